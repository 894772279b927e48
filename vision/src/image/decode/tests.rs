//! Files are written by the `image` crate's encoders, then damaged by hand where the test is about damage.

use ::image::{GrayImage, ImageBuffer, ImageFormat, Luma, Rgb, RgbaImage};
use proptest::prelude::*;

use super::*;

mod leniency;
mod resized;

const FORMATS: [ImageFormat; 6] =
    [ImageFormat::Jpeg, ImageFormat::Png, ImageFormat::WebP, ImageFormat::Gif, ImageFormat::Bmp, ImageFormat::Tiff];
const LIMITS: DecodeLimits = DecodeLimits { max_pixels: 50_000_000 };

fn gradient(width: u32, height: u32) -> RgbImage {
    RgbImage::from_fn(width, height, |x, y| Rgb([(x * 5 % 256) as u8, (y * 7 % 256) as u8, ((x + y) % 256) as u8]))
}

fn file_of(picture: &DynamicImage, format: ImageFormat) -> Vec<u8> {
    let mut file = Cursor::new(Vec::new());
    picture.write_to(&mut file, format).unwrap();
    file.into_inner()
}

fn gradient_file(format: ImageFormat) -> Vec<u8> {
    file_of(&DynamicImage::ImageRgb8(gradient(40, 24)), format)
}

/// An EXIF segment that holds an orientation and nothing else, put behind the JPEG's first marker.
fn with_orientation(jpeg: &[u8], orientation: u8) -> Vec<u8> {
    let mut tiff = b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0".to_vec();
    tiff.extend([orientation, 0, 0, 0, 0, 0, 0]);
    let length = (tiff.len() + 2) as u16;
    let mut file = jpeg[..2].to_vec();
    file.extend([0xFF, 0xE1]);
    file.extend(length.to_be_bytes());
    file.extend(tiff);
    file.extend(&jpeg[2..]);
    file
}

/// The first bytes of a PNG file that says it is `width × height`.
fn png_header(width: u32, height: u32) -> Vec<u8> {
    let mut file = file_of(&DynamicImage::ImageRgb8(gradient(8, 8)), ImageFormat::Png);
    file[16..20].copy_from_slice(&width.to_be_bytes());
    file[20..24].copy_from_slice(&height.to_be_bytes());
    let checksum = crc32(&file[12..29]);
    file[29..33].copy_from_slice(&checksum.to_be_bytes());
    file
}

fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(u32::MAX, |crc, &byte| {
        (0..8).fold(crc ^ u32::from(byte), |crc, _| (crc >> 1) ^ (0xEDB8_8320 & (crc & 1).wrapping_neg()))
    })
}

#[test]
fn lossless_formats_come_back_exactly() {
    for format in [ImageFormat::Png, ImageFormat::Bmp, ImageFormat::Tiff, ImageFormat::WebP] {
        assert_eq!(decode(&gradient_file(format), &LIMITS).unwrap(), gradient(40, 24), "{format:?}");
    }
}

#[test]
fn lossy_formats_come_back_approximately() {
    for format in [ImageFormat::Jpeg, ImageFormat::Gif] {
        let decoded = decode(&gradient_file(format), &LIMITS).unwrap();
        assert_eq!(decoded.dimensions(), (40, 24));
        let difference: u32 =
            decoded.iter().zip(gradient(40, 24).iter()).map(|(&a, &b)| u32::from(a.abs_diff(b))).sum();
        assert!(difference / (40 * 24 * 3) < 12, "{format:?} {difference}");
    }
}

#[test]
fn alpha_is_dropped() {
    let clear = RgbaImage::from_pixel(3, 2, ::image::Rgba([10, 20, 30, 0]));
    let decoded = decode(&file_of(&DynamicImage::ImageRgba8(clear), ImageFormat::Png), &LIMITS).unwrap();
    assert_eq!(decoded.get_pixel(2, 1), &Rgb([10, 20, 30]));
}

#[test]
fn grey_is_repeated_and_sixteen_bits_keep_the_upper_eight() {
    let grey = DynamicImage::ImageLuma8(GrayImage::from_pixel(3, 2, Luma([77])));
    assert_eq!(decode(&file_of(&grey, ImageFormat::Png), &LIMITS).unwrap().get_pixel(0, 0), &Rgb([77; 3]));
    let deep = DynamicImage::ImageLuma16(ImageBuffer::from_pixel(3, 2, Luma([0x12FF])));
    assert_eq!(decode(&file_of(&deep, ImageFormat::Png), &LIMITS).unwrap().get_pixel(0, 0), &Rgb([0x12; 3]));
    let deep = DynamicImage::ImageRgb16(ImageBuffer::from_pixel(3, 2, Rgb([0x01FF, 0xFF00, 0x8080])));
    for format in [ImageFormat::Png, ImageFormat::Tiff] {
        assert_eq!(decode(&file_of(&deep, format), &LIMITS).unwrap().get_pixel(2, 1), &Rgb([1, 255, 128]));
    }
}

#[test]
fn every_orientation_is_applied() {
    // Left half red, right half blue, wider than high.
    let halves = RgbImage::from_fn(32, 16, |x, _| if x < 16 { Rgb([250, 0, 0]) } else { Rgb([0, 0, 250]) });
    let jpeg = file_of(&DynamicImage::ImageRgb8(halves), ImageFormat::Jpeg);
    // Where the red half is afterwards: (width, height) and a pixel in it.
    let red = [(32, 4, 8), (32, 28, 8), (32, 28, 8), (32, 4, 8), (16, 8, 4), (16, 8, 4), (16, 8, 28), (16, 8, 28)];
    for (orientation, (width, x, y)) in (1..).zip(red) {
        let decoded = decode(&with_orientation(&jpeg, orientation), &LIMITS).unwrap();
        assert_eq!(decoded.width(), width, "orientation {orientation}");
        let pixel = decoded.get_pixel(x, y);
        assert!(pixel[0] > 200 && pixel[2] < 50, "orientation {orientation}: {pixel:?}");
    }
}

#[test]
fn not_an_image_is_told_from_a_damaged_one() {
    assert!(matches!(decode(b"", &LIMITS), Err(DecodeError::Empty)));
    assert!(matches!(decode(b"hello, I am text", &LIMITS), Err(DecodeError::UnknownFormat { .. })));
    assert!(matches!(decode(b"P6 1 1 255 abc", &LIMITS), Err(DecodeError::UnknownFormat { .. })));
    assert!(matches!(decode(b"\x89PNG\r\n\x1a\n", &LIMITS), Err(DecodeError::Corrupt { format: "PNG", .. })));
    assert!(matches!(decode(&[0xFF, 0xD8, 0xFF], &LIMITS), Err(DecodeError::Corrupt { format: "JPEG", .. })));
}

#[test]
fn a_file_cut_off_anywhere_is_an_error() {
    for format in [ImageFormat::Jpeg, ImageFormat::Png, ImageFormat::Bmp, ImageFormat::Tiff, ImageFormat::WebP] {
        let file = gradient_file(format);
        // The last bytes of a PNG come after its pixels, and those of a TIFF are tags.
        for length in (16..file.len() - 16).step_by(37) {
            let result = decode(&file[..length], &LIMITS);
            assert!(
                matches!(result, Err(DecodeError::Corrupt { .. } | DecodeError::Unsupported { .. })),
                "{format:?} cut at {length} of {}: {:?}",
                file.len(),
                result.map(|picture| picture.dimensions())
            );
        }
    }
}

#[test]
fn a_thumbnails_end_is_not_the_end() {
    let jpeg = gradient_file(ImageFormat::Jpeg);
    let mut file = jpeg[..2].to_vec();
    file.extend([0xFF, 0xE5, 0, 6, 0xFF, 0xD8, 0xFF, 0xD9]);
    file.extend(&jpeg[2..]);
    assert!(decode(&file, &LIMITS).is_ok());
    assert!(matches!(decode(&file[..file.len() / 2], &LIMITS), Err(DecodeError::Corrupt { .. })));
}

#[test]
fn a_huge_header_is_refused() {
    let result = decode(&png_header(30_000, 30_000), &LIMITS);
    assert!(matches!(
        result,
        Err(DecodeError::TooManyPixels { size: ImageSize { width: 30_000, height: 30_000 }, .. })
    ));
}

#[test]
fn a_probe_says_what_decoding_gives() {
    for format in FORMATS {
        let file = gradient_file(format);
        let header = probe(&file, &LIMITS).unwrap();
        assert_eq!(header.size, ImageSize::from(decode(&file, &LIMITS).unwrap().dimensions()), "{format:?}");
        assert!(header.peak_bytes >= 40 * 24 * 3, "{format:?}");
    }
    let jpeg = gradient_file(ImageFormat::Jpeg);
    let (turned, upright) = (probe(&with_orientation(&jpeg, 6), &LIMITS).unwrap(), probe(&jpeg, &LIMITS).unwrap());
    assert_eq!(turned.size, ImageSize { width: 24, height: 40 });
    assert!(turned.peak_bytes >= upright.peak_bytes);
}

#[test]
fn a_header_without_pixels_is_an_error() {
    assert!(matches!(decode(&png_header(4000, 4000), &LIMITS), Err(DecodeError::Corrupt { .. })));
    assert!(matches!(decode(&png_header(0, 10), &LIMITS), Err(DecodeError::Corrupt { .. })));
}

/// Files whose readers are mostly ours: EXIF, segments, containers, compositing, chunks that are left out.
fn files_with_metadata() -> Vec<(ImageFormat, Vec<u8>)> {
    let deep = DynamicImage::ImageRgb16(ImageBuffer::from_pixel(9, 7, Rgb([0x1234, 0xFF00, 0x8080])));
    let grey = DynamicImage::ImageLuma8(GrayImage::from_fn(19, 11, |x, y| Luma([(x * y) as u8])));
    vec![
        (ImageFormat::Jpeg, with_orientation(&gradient_file(ImageFormat::Jpeg), 6)),
        (ImageFormat::Jpeg, file_of(&grey, ImageFormat::Jpeg)),
        (ImageFormat::Png, file_of(&deep, ImageFormat::Png)),
        (ImageFormat::Tiff, file_of(&deep, ImageFormat::Tiff)),
        (ImageFormat::Tiff, file_of(&grey, ImageFormat::Tiff)),
        (ImageFormat::Bmp, file_of(&grey, ImageFormat::Bmp)),
    ]
}

/// No decoder panics, ours or a library's: nothing catches a panic here. Should a library's decoder begin to, the
/// format leaves this list until that is mended, and `decode` still answers.
#[test]
fn no_flipped_bit_makes_a_decoder_panic() {
    let limits = DecodeLimits { max_pixels: 10_000 };
    let plain = FORMATS.map(|format| (format, gradient_file(format)));
    for (format, file) in plain.into_iter().chain(files_with_metadata()) {
        for position in 0..file.len() {
            // All of a header, and every seventh byte of the rest.
            if position >= 256 && position % 7 != 0 {
                continue;
            }
            for flip in [0x01, 0x41, 0x80] {
                let mut damaged = file.clone();
                damaged[position] ^= flip;
                let result = catch_unwind(|| decode_uncaught(&damaged, &limits).is_ok());
                assert!(result.is_ok(), "{format:?} panics with {flip:#04x} at {position} of {}", file.len());
            }
        }
    }
}

#[test]
fn a_panic_of_a_decoder_is_a_corrupt_picture() {
    let result = catch_panic::<RgbImage>(Format::Gif, || panic!("an index out of bounds"));
    assert!(matches!(result, Err(DecodeError::Corrupt { format: "GIF", .. })));
}

/// The start of a JPEG file with an empty segment, and a body of 32 MiB.
fn jpeg_with_body(body: &[u8]) -> Vec<u8> {
    let mut file = vec![0xFF, 0xD8, 0xFF, 0xE1, 0, 2];
    file.extend(body.iter().copied().cycle().take(32 << 20));
    file
}

/// Reading a header must not go through a body that holds no header, whatever it consists of.
#[test]
fn a_jpeg_of_filler_is_refused_after_64_kib() {
    let restarts: Vec<u8> = (0xD0..=0xD7).flat_map(|marker| [0xFF, marker]).collect();
    let bodies: [&[u8]; 6] = [&[0xFF], &[0xFF, 0x00], &restarts, &[0x00], &[0xFF, 0xD8], &[0xFF, 0xFF, 0x01, 0x55]];
    for body in bodies {
        let file = jpeg_with_body(body);
        for result in [probe(&file, &LIMITS).map(|_| ()), decode(&file, &LIMITS).map(|_| ())] {
            let Err(DecodeError::Corrupt { format: "JPEG", detail }) = result else { panic!("{body:?}: {result:?}") };
            assert!(detail.contains("64 KiB"), "{body:?}: {detail}");
        }
    }
}

#[test]
fn a_jpeg_of_empty_segments_is_refused_after_4096() {
    for body in [&[0xFF, 0xE1, 0, 2][..], &[0xFF, 0xFE, 0, 3, 0xFF], &[0xFF, 0xC0, 0, 11, 8, 0, 9, 0, 9, 1, 1, 0x11, 0]]
    {
        let result = probe(&jpeg_with_body(body), &LIMITS);
        let Err(DecodeError::Corrupt { format: "JPEG", detail }) = result else { panic!("{body:?}: {result:?}") };
        assert!(detail.contains("4096"), "{body:?}: {detail}");
    }
    // A length below its own two bytes ends the search.
    for body in [&[0xFF, 0xE1, 0, 0][..], &[0xFF, 0xE1, 0, 1]] {
        assert!(matches!(probe(&jpeg_with_body(body), &LIMITS), Err(DecodeError::Corrupt { .. })));
    }
}

#[test]
fn filler_within_the_limit_is_passed_over() {
    let jpeg = with_orientation(&gradient_file(ImageFormat::Jpeg), 6);
    let end_of_exif = 4 + usize::from(u16::from_be_bytes([jpeg[4], jpeg[5]]));
    for filler in [0xFF, 0x00] {
        let file = [&jpeg[..end_of_exif], &vec![filler; 60_000], &jpeg[end_of_exif..]].concat();
        assert_eq!(probe(&file, &LIMITS).unwrap().size, ImageSize { width: 24, height: 40 }, "{filler:#04x}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    /// The size that a probe states is the decoded one, what it refuses is refused, and no decoder panics.
    #[test]
    fn a_damaged_file_is_decoded_or_refused_as_probed(
        format in prop::sample::select(&FORMATS),
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..5),
        is_header in any::<bool>(),
    ) {
        let limits = DecodeLimits { max_pixels: 1_000_000 };
        let mut file = gradient_file(format);
        let end = if is_header { file.len().min(96) } else { file.len() };
        for (place, byte) in damage {
            file[place.index(end)] = byte;
        }
        match (probe(&file, &limits), decode_uncaught(&file, &limits)) {
            (Ok(header), Ok(picture)) => prop_assert_eq!(header.size, ImageSize::from(picture.dimensions())),
            (Err(probed), Err(decoded)) => prop_assert_eq!(probed.to_string(), decoded.to_string()),
            (Ok(_), Err(_)) => {}
            (Err(error), Ok(_)) => prop_assert!(false, "refused and decoded: {error}"),
        }
    }
}

#[test]
fn scans_are_counted() {
    let jpeg = gradient_file(ImageFormat::Jpeg);
    let scan = jpeg.windows(2).position(|marker| marker == [0xFF, 0xDA]).unwrap();
    let end = jpeg.len() - 2;
    let with_scans = |count: usize| [&jpeg[..end], &jpeg[scan..end].repeat(count), &jpeg[end..]].concat();
    assert!(decode(&with_scans(1), &LIMITS).is_ok());
    assert!(matches!(decode(&with_scans(64), &LIMITS), Err(DecodeError::Unsupported { format: "JPEG", .. })));
}
