//! GIF: the first frame, on the canvas.

use ::image::RgbImage;
use ::image::metadata::Orientation;
use gif::{ColorOutput, DecodeOptions, DecodingError, MemoryLimit};

use super::Format::Gif;
use super::fields::Fields;
use super::{DecodeError, FileHeader};
use crate::image::ImageSize;

/// Tables of the decompressor and a buffer of the file.
const WORKSPACE_BYTES: u64 = 1 << 18;

pub(super) fn header(bytes: &[u8]) -> Result<FileHeader, DecodeError> {
    let fields = Fields::little_endian(bytes);
    let read = || Some(ImageSize { width: fields.u16(6)?.into(), height: fields.u16(8)?.into() });
    let size = read().ok_or_else(|| Gif.corrupt("its header is cut off"))?;
    Ok(FileHeader {
        stored: size,
        orientation: Orientation::NoTransforms,
        // The frame as indices, the canvas as RGB, and copies of metadata.
        decoding_bytes: size.pixels() * 4 + 2 * bytes.len() as u64 + WORKSPACE_BYTES,
    })
}

pub(super) fn pixels(bytes: &[u8], size: ImageSize) -> Result<RgbImage, DecodeError> {
    let failed = |error: DecodingError| match error {
        DecodingError::MemoryLimit => DecodeError::TooMuchMemory { format: Gif.name() },
        error => Gif.corrupt(error.to_string()),
    };
    let mut options = DecodeOptions::new();
    options.set_color_output(ColorOutput::Indexed);
    // The decoder keeps metadata, which are no longer than the file.
    options.set_memory_limit(MemoryLimit::Unlimited);
    let mut decoder = options.read_info(bytes).map_err(failed)?;
    let frame = decoder.next_frame_info().map_err(failed)?.ok_or_else(|| Gif.corrupt("it has no frame"))?;
    let (left, top) = (usize::from(frame.left), usize::from(frame.top));
    let (width, height) = (usize::from(frame.width), usize::from(frame.height));
    let (canvas_width, canvas_height) = (size.width as usize, size.height as usize);
    if width == 0 || height == 0 || left + width > canvas_width || top + height > canvas_height {
        return Err(Gif.corrupt("its first frame is empty or lies outside the canvas"));
    }
    // Canvas outside the frame is transparent, and transparency shows the colour it has in the palette.
    let background = frame.transparent.unwrap_or(0);
    let mut indices = vec![0; width * height];
    decoder.read_into_buffer(&mut indices).map_err(failed)?;

    let palette = decoder.palette().map_err(failed)?;
    let color = |index: u8| -> [u8; 3] {
        let entry = palette.get(usize::from(index) * 3..).and_then(|rest| rest.first_chunk());
        entry.copied().unwrap_or_default()
    };
    let colors: [[u8; 3]; 256] = std::array::from_fn(|index| color(index as u8));
    let mut rgb = colors[usize::from(background)].repeat(canvas_width * canvas_height);
    for (y, row) in indices.chunks_exact(width).enumerate() {
        let start = 3 * ((top + y) * canvas_width + left);
        for (pixel, &index) in rgb[start..start + 3 * width].chunks_exact_mut(3).zip(row) {
            pixel.copy_from_slice(&colors[usize::from(index)]);
        }
    }
    RgbImage::from_raw(size.width, size.height, rgb).ok_or_else(|| Gif.corrupt("it has several sizes"))
}
