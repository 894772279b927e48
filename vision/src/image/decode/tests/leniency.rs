//! Files that lack something, or have it wrong, but hold every pixel; and those that do not.

use super::*;

/// Files whose data no encoder of the `image` crate writes.
const PROGRESSIVE: [&[u8]; 3] = [
    include_bytes!("../../../../fuzz/corpus/image_decode/jpeg-RGB-90-420-progressive"),
    include_bytes!("../../../../fuzz/corpus/image_decode/jpeg-L-50-422-progressive"),
    include_bytes!("../../../../fuzz/corpus/image_decode/jpeg-L-50-420-progressive"),
];

fn position(file: &[u8], part: &[u8]) -> usize {
    file.windows(part.len()).position(|window| window == part).unwrap()
}

fn is_corrupt(file: &[u8]) -> bool {
    matches!(decode(file, &LIMITS), Err(DecodeError::Corrupt { .. }))
}

#[test]
fn a_jpeg_without_its_end_marker_is_read_if_its_data_are_whole() {
    let plain = gradient_file(ImageFormat::Jpeg);
    for file in PROGRESSIVE.into_iter().chain([plain.as_slice()]) {
        let (whole, data) = (decode(file, &LIMITS).unwrap(), &file[..file.len() - 2]);
        for tail in [&[][..], &[0; 2], &[0; 5000], b"\r\n", b"text \xFF behind", &[0xFF, 0], &[0xFF], &[0xFF, 0xD3]] {
            let decoded = decode(&[data, tail].concat(), &LIMITS).unwrap();
            assert!(decoded == whole, "{} bytes, then {:?}", file.len(), &tail[..tail.len().min(9)]);
        }
    }
}

#[test]
fn a_jpeg_that_ends_in_its_data_is_refused_wherever_it_does() {
    let plain = gradient_file(ImageFormat::Jpeg);
    for file in PROGRESSIVE.into_iter().chain([plain.as_slice()]) {
        let scan = position(file, &[0xFF, 0xDA]);
        for end in (scan..file.len() - 2).step_by(1 + file.len() / 500) {
            for tail in [&[][..], b"\r\n", &[0xFF, 0xD0]] {
                // A few bytes of another kind may stand for as many of the last ones.
                let is_replaced = tail == b"\r\n" && file.len() - end < 12;
                assert!(is_replaced || is_corrupt(&[&file[..end], tail].concat()), "{end} of {}", file.len());
            }
        }
    }
}

#[test]
fn a_jpeg_without_huffman_tables_has_the_typical_ones() {
    let grey =
        file_of(&DynamicImage::ImageLuma8(GrayImage::from_fn(19, 11, |x, y| Luma([(x * y) as u8]))), ImageFormat::Jpeg);
    for file in [gradient_file(ImageFormat::Jpeg), grey] {
        let whole = decode(&file, &LIMITS).unwrap();
        let (mut without, mut tables) = (file.clone(), 0);
        while let Some(start) = without.windows(2).position(|marker| marker == [0xFF, 0xC4]) {
            let length = usize::from(u16::from_be_bytes([without[start + 2], without[start + 3]]));
            without.drain(start..start + 2 + length);
            tables += 1;
            assert!(decode(&without, &LIMITS).unwrap() == whole, "without {tables}");
        }
        assert!(tables >= 1);
        // Neither an end.
        without.truncate(without.len() - 2);
        assert!(decode(&without, &LIMITS).unwrap() == whole);
    }
}

#[test]
fn what_is_wrong_behind_the_pixels_of_a_png_does_not_matter() {
    let file = gradient_file(ImageFormat::Png);
    let (data, end) = (position(&file, b"IDAT"), position(&file, b"IEND") - 4);
    let mut wrong_checksum = file.clone();
    wrong_checksum[end - 1] ^= 1;
    let mut wrong_data_checksum = file.clone();
    wrong_data_checksum[end - 5] ^= 1;
    // From the end of the file into the checksum of the compressed data.
    let cuts = (end - 8..file.len()).map(|length| file[..length].to_vec());
    let others = [wrong_checksum, wrong_data_checksum, [&file[..end], b"\0\0\0\x04!?!?1234"].concat()];
    for other in cuts.chain(others) {
        assert_eq!(decode(&other, &LIMITS).unwrap(), gradient(40, 24), "{} bytes", other.len());
    }
    for length in (data + 4..end - 16).step_by(7) {
        assert!(is_corrupt(&file[..length]), "{length} of {}", file.len());
    }
}

#[test]
fn a_wrong_checksum_of_a_pngs_header_or_palette_is_damage() {
    let mut file = gradient_file(ImageFormat::Png);
    file[32] ^= 1;
    assert!(is_corrupt(&file));
    let palette = include_bytes!("../../../../fuzz/corpus/image_decode/png-palette-4").to_vec();
    assert!(decode(&palette, &LIMITS).is_ok());
    let mut damaged = palette.clone();
    damaged[position(&palette, b"PLTE") + 4] ^= 0x10;
    assert!(is_corrupt(&damaged));
}

#[test]
fn the_canvas_of_a_gif_grows_with_its_first_frame() {
    let file = gradient_file(ImageFormat::Gif);
    let frame = position(&file, &[b',', 0, 0, 0, 0, 40, 0, 24, 0]);
    let whole = decode(&file, &LIMITS).unwrap();
    for (screen, place, canvas) in [
        ([0, 0], [0, 0], (40, 24)),
        ([1, 99], [0, 0], (40, 99)),
        ([30, 20], [7, 9], (47, 33)),
        ([60, 50], [20, 26], (60, 50)),
    ] {
        let mut moved = file.clone();
        (moved[6], moved[8], moved[frame + 1], moved[frame + 3]) = (screen[0], screen[1], place[0], place[1]);
        let decoded = decode(&moved, &LIMITS).unwrap();
        assert_eq!((decoded.dimensions(), probe(&moved, &LIMITS).unwrap().size), (canvas, canvas.into()));
        let (x, y) = (u32::from(place[0]), u32::from(place[1]));
        assert_eq!(::image::imageops::crop_imm(&decoded, x, y, 40, 24).to_image(), whole);
    }
    let mut huge = file;
    huge[frame + 1..frame + 5].copy_from_slice(&[0xFF; 4]);
    assert!(matches!(decode(&huge, &LIMITS), Err(DecodeError::TooManyPixels { .. })));
}

/// An animation of one frame at `place` on a canvas of 64 x 64 pixels.
fn animated_webp(still: &[u8], place: [u8; 2], size: [u8; 2]) -> Vec<u8> {
    let bitstream = &still[12..];
    let mut frame =
        [place[0] / 2, 0, 0, place[1] / 2, 0, 0, size[0] - 1, 0, 0, size[1] - 1, 0, 0, 100, 0, 0, 0].to_vec();
    frame.extend(bitstream);
    let chunk = |kind: &[u8; 4], values: &[u8]| [kind, &(values.len() as u32).to_le_bytes()[..], values].concat();
    let extended = chunk(b"VP8X", &[0x12, 0, 0, 0, 63, 0, 0, 63, 0, 0]);
    let body = [&b"WEBP"[..], &extended, &chunk(b"ANIM", &[9; 6]), &chunk(b"ANMF", &frame)].concat();
    chunk(b"RIFF", &body)
}

#[test]
fn the_first_frame_of_an_animation_is_taken_as_it_is() {
    let clear = RgbaImage::from_fn(20, 10, |x, y| ::image::Rgba([x as u8 * 12, y as u8 * 25, 77, (x * 13) as u8]));
    let still = file_of(&DynamicImage::ImageRgba8(clear), ImageFormat::WebP);
    let colors = decode(&still, &LIMITS).unwrap();
    assert_eq!(colors.get_pixel(19, 9), &Rgb([228, 225, 77]));
    let decoded = decode(&animated_webp(&still, [6, 30], [20, 10]), &LIMITS).unwrap();
    assert_eq!((decoded.dimensions(), decoded.get_pixel(5, 30)), ((64, 64), &Rgb([0; 3])));
    assert_eq!(::image::imageops::crop_imm(&decoded, 6, 30, 20, 10).to_image(), colors);
    // Beyond the canvas, and of another size than stated.
    assert!(is_corrupt(&animated_webp(&still, [50, 0], [20, 10])));
    assert!(is_corrupt(&animated_webp(&still, [0, 0], [10, 20])));
}

#[test]
fn a_bmp_may_have_any_number_of_planes_and_its_pixels_anywhere() {
    let file = gradient_file(ImageFormat::Bmp);
    for (place, value) in [(26, 0), (26, 3), (27, 9), (10, 0)] {
        let mut changed = file.clone();
        changed[place] = value;
        assert_eq!(decode(&changed, &LIMITS).unwrap(), gradient(40, 24), "{value} at {place}");
    }
    let mut other = file;
    other[14] = 16;
    assert!(matches!(decode(&other, &LIMITS), Err(DecodeError::Unsupported { format: "BMP", .. })));
}

#[test]
fn lengths_of_strips_may_be_missing_or_wrong() {
    let file = gradient_file(ImageFormat::Tiff);
    // The entry of the lengths: tag 279 of SHORTs or LONGs.
    let entry = [
        file.windows(4).position(|entry| entry == [0x17, 1, 4, 0]),
        file.windows(4).position(|entry| entry == [0x17, 1, 3, 0]),
    ];
    let entry = entry.into_iter().flatten().next().unwrap();
    for lengths in [[0; 4], [0xFF; 4], [1, 0, 0, 0]] {
        let mut changed = file.clone();
        changed[entry + 2..entry + 8].copy_from_slice(&[4, 0, 1, 0, 0, 0]);
        changed[entry + 8..entry + 12].copy_from_slice(&lengths);
        assert_eq!(decode(&changed, &LIMITS).unwrap(), gradient(40, 24), "{lengths:?}");
    }
    let mut missing = file;
    missing[entry..entry + 2].copy_from_slice(&[0xFE, 0xFE]);
    assert_eq!(decode(&missing, &LIMITS).unwrap(), gradient(40, 24));
}
