//! Decoding at 1/2, 1/4 or 1/8 of the size, by inverse transforms of the lower frequencies alone.
//!
//! The decoder was chosen by measurement, on photographs of 4032 x 3024 pixels, 1.6 MB on average, 4:2:0, one thread of an
//! EPYC with AVX2: at 1/8 libjpeg-turbo's code (mozjpeg, built without assembler) takes 27 ms, jpeg-decoder 44 ms, and
//! zune-jpeg, which has no such transforms, 100 ms for the whole picture. It is C, so it gets only what the checks of the
//! whole picture have passed: a header within the limits that zune-jpeg reads too, few scans, tables that are all there.
//! Whatever it warns of ends it, and the picture is decoded whole.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use ::image::RgbImage;
use mozjpeg::Decompress;
use mozjpeg_sys::{jpeg_common_struct, jpeg_error_mgr as ErrorMgr};

use super::is_plain;
use crate::image::ImageSize;
use crate::image::decode::Reduction;

#[cfg(panic = "abort")]
compile_error!("libjpeg's errors unwind: with panic = \"abort\" a damaged picture would end the process");

/// Decodes a JPEG at a fraction of its size, each side rounded up; `None` if the file is not plain and sound enough for
/// that.
pub(in crate::image::decode) fn pixels(bytes: &[u8], stored: ImageSize, reduction: Reduction) -> Option<RgbImage> {
    if !is_plain(bytes) {
        return None;
    }
    let decoded = catch_unwind(AssertUnwindSafe(|| decode(bytes, reduction)));
    let (size, rgb) =
        decoded.unwrap_or_else(|payload| if payload.is::<Ended>() { None } else { resume_unwind(payload) })?;
    (size == reduction.of(stored)).then(|| RgbImage::from_raw(size.width, size.height, rgb)).flatten()
}

fn decode(bytes: &[u8], reduction: Reduction) -> Option<(ImageSize, Vec<u8>)> {
    let mut decoder = Decompress::with_err(strict_errors()).from_mem(bytes).ok()?;
    decoder.scale(8 / reduction.denominator());
    // Decoders of whole pictures do not guess the coefficients that a progressive file lacks.
    decoder.do_block_smoothing(false);
    let mut rows = decoder.rgb().ok()?;
    let size = ImageSize { width: u32::try_from(rows.width()).ok()?, height: u32::try_from(rows.height()).ok()? };
    let rgb = rows.read_scanlines().ok()?;
    rows.finish().ok()?;
    Some((size, rgb))
}

/// Payload of the unwinding that ends decoding.
struct Ended;

/// Ends decoding at the first error or warning. Unwinding is how the library reports errors too.
fn strict_errors() -> ErrorMgr {
    extern "C-unwind" fn exit(_: &mut jpeg_common_struct) {
        resume_unwind(Box::new(Ended));
    }
    extern "C-unwind" fn message(_: &mut jpeg_common_struct, level: std::ffi::c_int) {
        // Levels from 0 on are traces.
        if level < 0 {
            resume_unwind(Box::new(Ended));
        }
    }
    let mut errors = standard_errors();
    errors.error_exit = Some(exit);
    errors.emit_message = Some(message);
    errors
}

#[expect(unsafe_code, reason = "the library has no safe constructor")]
fn standard_errors() -> ErrorMgr {
    let mut errors = std::mem::MaybeUninit::<ErrorMgr>::zeroed();
    // SAFETY: a zeroed structure of numbers, pointers and optional functions is valid, and the call fills it.
    unsafe {
        mozjpeg_sys::jpeg_std_error(errors.assume_init_mut());
        errors.assume_init()
    }
}
