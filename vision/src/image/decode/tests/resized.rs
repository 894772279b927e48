//! Decoding at the size that is wanted.

use super::*;

/// A picture with the spectrum of a photograph.
fn photograph(width: u32, height: u32) -> RgbImage {
    let noise = |x: u32, y: u32| {
        let hash = (x.wrapping_mul(0x9E37_79B1) ^ y.wrapping_mul(0x85EB_CA77)).wrapping_mul(0xC2B2_AE35);
        Rgb([(hash >> 8) as u8, (hash >> 16) as u8, (hash >> 24) as u8])
    };
    let mut sum = vec![0.0; (width * height * 3) as usize];
    for octave in 1..9 {
        let coarse = RgbImage::from_fn((width >> octave).max(2), (height >> octave).max(2), noise);
        let smooth = resize(&coarse, ImageSize { width, height }).unwrap();
        let weight = 0.05 * f64::from(octave);
        sum.iter_mut().zip(smooth.iter()).for_each(|(sum, &value)| *sum += weight * (f64::from(value) - 128.0));
    }
    let bytes = sum.into_iter().map(|value: f64| (value + 128.0).clamp(0.0, 255.0) as u8);
    RgbImage::from_raw(width, height, bytes.collect()).unwrap()
}

fn jpeg_of(picture: RgbImage) -> Vec<u8> {
    file_of(&DynamicImage::ImageRgb8(picture), ImageFormat::Jpeg)
}

fn mean_difference(one: &RgbImage, other: &RgbImage) -> f64 {
    assert_eq!(one.dimensions(), other.dimensions());
    one.iter().zip(other.iter()).map(|(&a, &b)| f64::from(a.abs_diff(b))).sum::<f64>() / one.len() as f64
}

const fn size(width: u32, height: u32) -> ImageSize {
    ImageSize { width, height }
}

#[test]
fn a_reduced_picture_is_nearly_the_whole_one_resized() {
    for (width, height, orientations) in [(1600, 1200, [1, 8]), (1601, 1207, [2, 6]), (1207, 1599, [3, 5])] {
        let file = jpeg_of(photograph(width, height));
        for orientation in orientations {
            let file = with_orientation(&file, orientation);
            let whole = decode(&file, &LIMITS).unwrap();
            for side in [64, 100, 160, 224, 400] {
                let (across, down) = (f64::from(whole.width()), f64::from(whole.height()));
                let wanted = size(side, (f64::from(side) * down / across).round() as u32);
                let ResizedPicture { full_size, pixels } = decode_resized(&file, &LIMITS, |_| wanted).unwrap();
                assert_eq!(full_size, ImageSize::from(whole.dimensions()));
                let difference = mean_difference(&pixels, &resize(&whole, wanted).unwrap());
                assert!(difference < 1.0, "{width} x {height}, orientation {orientation}, to {side}: {difference}");
                let is_reduced = Reduction::down_to(full_size, wanted).is_some();
                assert_eq!(is_reduced, difference > 0.0, "orientation {orientation}, to {side}");
            }
        }
    }
}

#[test]
fn borders_stay_where_they_are() {
    const LIMIT: f64 = 1.0;
    // The right and the lower border cover a pixel of the reduced picture in part.
    let (width, height) = (8 * 50 + 1, 8 * 40 + 3);
    // Taking the whole reduced picture for the picture would move what is near the far borders most.
    let bright = |is_bright: bool| if is_bright { 255 } else { 0 };
    let edges = RgbImage::from_fn(width, height, |x, y| Rgb([bright(x >= 384), bright(y >= 304), 9]));
    let file = jpeg_of(edges);
    for orientation in 1..=8 {
        let file = with_orientation(&file, orientation);
        let whole = decode(&file, &LIMITS).unwrap();
        let wanted = size(whole.width() / 18, whole.height() / 18);
        let pixels = decode_resized(&file, &LIMITS, |_| wanted).unwrap().pixels;
        let difference = mean_difference(&pixels, &resize(&whole, wanted).unwrap());
        assert!(difference < LIMIT, "orientation {orientation}: {difference}");
    }
}

#[test]
fn what_is_not_a_plain_jpeg_is_decoded_whole() {
    let picture = photograph(640, 480);
    let jpeg = jpeg_of(picture.clone());
    let wanted = size(32, 24);
    let whole = |file: &[u8]| resize(&decode(file, &LIMITS).unwrap(), wanted).unwrap();
    let resized = |file: &[u8]| decode_resized(file, &LIMITS, |_| wanted).unwrap().pixels;
    assert_ne!(resized(&jpeg), whole(&jpeg));
    let without_end = &jpeg[..jpeg.len() - 2];
    let zeros_within = [&jpeg[..jpeg.len() / 2], &[0; 64], &jpeg[jpeg.len() / 2 + 64..]].concat();
    let png = file_of(&DynamicImage::ImageRgb8(picture), ImageFormat::Png);
    for file in [without_end, &zeros_within, &png] {
        assert_eq!(resized(file), whole(file));
    }
}

/// `jpeg` with bytes put in front of the first marker of this kind.
fn with_bytes_before(jpeg: &[u8], marker: u8, bytes: &[u8]) -> Vec<u8> {
    let place = jpeg.windows(2).position(|window| window == [0xFF, marker]).unwrap();
    [&jpeg[..place], bytes, &jpeg[place..]].concat()
}

#[test]
fn what_one_decoder_passes_over_and_the_other_refuses_is_judged_alike_at_every_size() {
    let jpeg = jpeg_of(photograph(640, 480));
    let grey = file_of(&DynamicImage::ImageRgb8(photograph(640, 480)).grayscale(), ImageFormat::Jpeg);
    let number_of_lines: &[u8] = &[0xFF, 0xDC, 0, 4, 1, 0xE0];
    let adobe =
        |length: u8, transform: &[u8]| [&[0xFF, 0xEE, 0, length], &b"Adobe\0\x64\0\0\0\0"[..], transform].concat();
    let files = [
        with_bytes_before(&jpeg, 0xDA, number_of_lines),
        with_bytes_before(&jpeg, 0xD9, number_of_lines),
        with_bytes_before(&jpeg, 0xDA, &[0xFF, 0xCC, 0, 4, 0, 17]),
        with_bytes_before(&jpeg, 0xDA, &[0xFF, 0xD0]),
        with_bytes_before(&jpeg, 0xC0, &[0xFF, 0xD0]),
        with_bytes_before(&jpeg, 0xDA, &[0xFF, 0x01]),
        with_bytes_before(&jpeg, 0xC4, &[0xFF, 0x01]),
        with_bytes_before(&grey, 0xC0, &adobe(14, &[5])),
        with_bytes_before(&jpeg, 0xC0, &adobe(13, &[])),
        // A Huffman table with more codes of one bit than there are.
        with_bytes_before(&jpeg, 0xDA, &[&[0xFF, 0xC4, 0, 22, 0x13, 3], &[0; 15][..], &[1, 2, 3]].concat()),
    ];
    for (index, file) in files.iter().enumerate() {
        let whole = decode(file, &LIMITS).map(|_| ()).map_err(|error| error.to_string());
        let resized = decode_resized(file, &LIMITS, |_| size(32, 24)).map(|_| ()).map_err(|error| error.to_string());
        assert_eq!(whole, resized, "{index}");
    }
}

#[test]
fn a_fraction_is_at_least_two_and_a_quarter_times_the_wanted_size() {
    let down_to = |width, height| Reduction::down_to(size(4032, 3024), size(width, height));
    assert_eq!(down_to(224, 168), Some(Reduction::Eighth));
    assert_eq!(down_to(225, 168), Some(Reduction::Quarter));
    assert_eq!(down_to(224, 169), Some(Reduction::Quarter));
    assert_eq!(down_to(448, 336), Some(Reduction::Quarter));
    assert_eq!(down_to(449, 336), Some(Reduction::Half));
    assert_eq!(down_to(896, 672), Some(Reduction::Half));
    assert_eq!(down_to(897, 672), None);
    assert_eq!(down_to(u32::MAX, 1), None);
}

#[test]
fn a_size_of_zero_is_an_error() {
    let file = jpeg_of(gradient(64, 64));
    for wanted in [size(0, 8), size(8, 0)] {
        assert!(matches!(decode_resized(&file, &LIMITS, |_| wanted), Err(DecodeResizedError::Resize(_))));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    /// A damaged file is read or refused at every size alike.
    #[test]
    fn damage_is_judged_alike_at_every_size(
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        is_header in any::<bool>(),
        cut in prop::option::of(any::<prop::sample::Index>()),
    ) {
        let mut file = gradient_file(ImageFormat::Jpeg);
        let end = if is_header { 700 } else { file.len() };
        for (place, byte) in damage {
            file[place.index(end)] = byte;
        }
        if let Some(cut) = cut {
            file.truncate(cut.index(file.len()) + 1);
        }
        let limits = DecodeLimits { max_pixels: 100_000 };
        let whole = decode(&file, &limits).map(|picture| ImageSize::from(picture.dimensions()));
        let resized = decode_resized(&file, &limits, |_| size(2, 1)).map(|resized| resized.full_size);
        match (whole, resized) {
            (Ok(whole), Ok(resized)) => prop_assert_eq!(whole, resized),
            (Err(whole), Err(resized)) => prop_assert_eq!(whole.to_string(), resized.to_string()),
            (whole, resized) => prop_assert!(false, "{whole:?}, {resized:?}"),
        }
    }
}
