//! Decoding of pictures: the size and memory that a probe states hold, what it refuses is refused, nothing panics.

use densecl_vision::image::{DecodeLimits, DecodeResizedError, ImageSize, decode_resized, decode_uncaught, probe};

/// The counting allocator of the process.
pub(crate) trait PeakMemory {
    /// Resets the peak and returns the bytes that are allocated now.
    fn reset(&self) -> usize;
    /// Most bytes that were allocated at a time since the reset.
    fn peak(&self) -> usize;
}

const LIMITS: DecodeLimits = DecodeLimits { max_pixels: 1 << 18 };
/// Buffers and tables of decoders, whose size does not depend on the picture.
const FIXED_BYTES: usize = 64 << 10;
/// Keyword of EXIF data that are the text of a PNG.
const PROFILE: &[u8] = b"Raw profile type exif";
/// EXIF data that are the text of a PNG, with the buffer that they outgrow.
const PROFILE_BYTES: usize = 1 << 20;
/// Buffers of the size that a damaged WebP states for its partitions, allocated but never written, so that no page of
/// them is taken.
const UNTOUCHED_BYTES: usize = 18 << 20;

/// Sizes are divided by these, so that a JPEG is decoded at 1/2, 1/4 and 1/8.
const REDUCING_DIVISORS: [u32; 3] = [5, 10, 20];

/// Runs one input. The memory of a JPEG at a fraction of its size is not counted, because a C library takes it.
pub(crate) fn check(file: &[u8], memory: &dyn PeakMemory) {
    let before = memory.reset();
    let probed = probe(file, &LIMITS);
    let probing_bytes = memory.peak() - before;
    let is_webp = file.get(8..12) == Some(b"WEBP");
    let has_profile = file.windows(PROFILE.len()).any(|text| text == PROFILE);
    let profile_bytes = if has_profile { PROFILE_BYTES } else { 0 };
    // Directories and profiles are copied, and are no longer than the file.
    assert!(probing_bytes <= FIXED_BYTES + 2 * file.len() + profile_bytes, "probing took {probing_bytes} bytes");
    let stated = probed.as_ref().map_or(0, |header| header.peak_bytes as usize);
    let before = memory.reset();
    let decoded = decode_uncaught(file, &LIMITS);
    let taken = memory.peak() - before;
    let untouched = if is_webp && decoded.is_err() { UNTOUCHED_BYTES } else { 0 };
    assert!(taken <= stated + FIXED_BYTES + 2 * file.len() + untouched, "{taken} bytes taken, {stated} stated");
    match (probed, decoded) {
        (Ok(header), Ok(picture)) => {
            assert_eq!(header.size, ImageSize::from(picture.dimensions()));
            assert!(header.size.pixels() <= LIMITS.max_pixels);
            for divisor in REDUCING_DIVISORS {
                assert_eq!(resized(file, divisor).expect("it was decoded whole"), header.size);
            }
        }
        (Err(probed), Err(decoded)) => assert_eq!(probed.to_string(), decoded.to_string()),
        // A JPEG may be refused whole and read at a fraction of its size; that nothing panics counts.
        (Ok(_), Err(_)) => drop(resized(file, REDUCING_DIVISORS[0])),
        (Err(error), Ok(_)) => panic!("refused and decoded: {error}"),
    }
}

/// The size of a picture that is decoded and made smaller.
fn resized(file: &[u8], divisor: u32) -> Result<ImageSize, DecodeResizedError> {
    let small = |side: u32| (side / divisor).max(1);
    let small = |size: ImageSize| ImageSize { width: small(size.width), height: small(size.height) };
    decode_resized(file, &LIMITS, small).map(|resized| resized.full_size)
}
