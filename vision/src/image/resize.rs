//! Resizing by antialiased bilinear convolution.
//!
//! The filter is a triangle, widened by the scale when a picture shrinks, as Pillow's `BILINEAR`: not one value in ten
//! thousand differs from Pillow's by more than one level, and none by more than two. The server and the trainer resize
//! by this code alone, so that a network sees the same pixels in both.

use ::image::RgbImage;
use fast_image_resize::images::{TypedImage, TypedImageRef};
use fast_image_resize::pixels::U8x3;
use fast_image_resize::{FilterType, ResizeAlg, ResizeOptions, Resizer};

use super::ImageSize;

/// A picture that cannot be resized.
#[derive(Debug, thiserror::Error)]
pub enum ResizeError {
    /// One of the sides is 0.
    #[error("a picture of {} x {} pixels cannot be resized to {} x {}", from.width, from.height, to.width, to.height)]
    Empty {
        /// Size of the picture.
        from: ImageSize,
        /// Size asked for.
        to: ImageSize,
    },
    /// The rectangle to resize is empty or not inside the picture.
    #[error("{rectangle:?} is empty or not inside a picture of {} x {} pixels", picture.width, picture.height)]
    Outside {
        /// The rectangle.
        rectangle: PixelRectangle,
        /// Size of the picture.
        picture: ImageSize,
    },
    /// The buffer for the result does not have three bytes a pixel.
    #[error("a buffer of {bytes} bytes does not hold {} x {} RGB pixels", size.width, size.height)]
    BufferLength {
        /// Length of the buffer.
        bytes: usize,
        /// Size asked for.
        size: ImageSize,
    },
    /// The resizer refused.
    #[error("the picture could not be resized")]
    Resizer(#[from] fast_image_resize::ResizeError),
}

/// A rectangle of a picture. Its borders may lie between pixels; the first pixel covers 0 to 1.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PixelRectangle {
    /// Distance of the left border from the picture's, in pixels.
    pub left_px: f64,
    /// Distance of the top border from the picture's, in pixels.
    pub top_px: f64,
    /// Extent along x in pixels.
    pub width_px: f64,
    /// Extent along y in pixels.
    pub height_px: f64,
}

impl PixelRectangle {
    /// Excess over the picture's border that counts as rounding.
    const TOLERANCE_PX: f64 = 1e-6;

    /// All of a picture.
    fn whole(picture: ImageSize) -> Self {
        let (width_px, height_px) = (f64::from(picture.width), f64::from(picture.height));
        Self { left_px: 0.0, top_px: 0.0, width_px, height_px }
    }

    /// The rectangle, cut off at the border where rounding puts it outside; `None` if it is empty or farther outside.
    fn within(self, picture: ImageSize) -> Option<Self> {
        let axis = |start: f64, extent: f64, side: u32| {
            let excess = start + extent - f64::from(side);
            let is_inside = start >= 0.0 && extent > 0.0 && excess <= Self::TOLERANCE_PX;
            // Subtracting a difference of rounding may round again, by at most the spacing of numbers at `side`.
            let fitting = if excess > 0.0 { extent - excess - f64::from(side) * f64::EPSILON } else { extent };
            (is_inside && fitting > 0.0).then_some(fitting)
        };
        let width_px = axis(self.left_px, self.width_px, picture.width)?;
        let height_px = axis(self.top_px, self.height_px, picture.height)?;
        Some(Self { width_px, height_px, ..self })
    }
}

/// Resizes a picture to `size`.
///
/// # Errors
/// [`ResizeError::Empty`] if a side of either is 0.
pub fn resize(picture: &RgbImage, size: ImageSize) -> Result<RgbImage, ResizeError> {
    resize_rectangle(picture, PixelRectangle::whole(picture.dimensions().into()), size)
}

/// Resizes a rectangle of a picture to `size`. The filter also covers pixels beyond the rectangle's borders, as far as it
/// reaches and the picture goes.
///
/// # Errors
/// [`ResizeError::Empty`] if a side of the picture or of `size` is 0, and [`ResizeError::Outside`] if the rectangle is
/// empty or more than a millionth of a pixel outside the picture.
#[expect(clippy::missing_panics_doc, reason = "the buffer has three bytes a pixel")]
pub fn resize_rectangle(
    picture: &RgbImage,
    rectangle: PixelRectangle,
    size: ImageSize,
) -> Result<RgbImage, ResizeError> {
    let mut pixels = vec![0; size.pixels() as usize * 3];
    convolve(picture, rectangle, size, &mut pixels)?;
    Ok(RgbImage::from_raw(size.width, size.height, pixels).expect("three bytes a pixel"))
}

/// Resizes a picture to `size` into `pixels`, RGB bytes `[size.height, size.width, 3]`.
///
/// # Errors
/// [`ResizeError::Empty`] if a side of the picture or of `size` is 0, and [`ResizeError::BufferLength`] if `pixels`
/// does not have three bytes a pixel.
pub fn resize_into(picture: &RgbImage, size: ImageSize, pixels: &mut [u8]) -> Result<(), ResizeError> {
    convolve(picture, PixelRectangle::whole(picture.dimensions().into()), size, pixels)
}

fn convolve(
    picture: &RgbImage,
    rectangle: PixelRectangle,
    size: ImageSize,
    pixels: &mut [u8],
) -> Result<(), ResizeError> {
    let from = ImageSize::from(picture.dimensions());
    if from.pixels() == 0 || size.pixels() == 0 {
        return Err(ResizeError::Empty { from, to: size });
    }
    if pixels.len() as u64 != size.pixels() * 3 {
        return Err(ResizeError::BufferLength { bytes: pixels.len(), size });
    }
    let inside = rectangle.within(from).ok_or(ResizeError::Outside { rectangle, picture: from })?;
    let source = TypedImageRef::<U8x3>::from_buffer(from.width, from.height, picture.as_raw())
        .expect("an RGB picture holds three bytes a pixel");
    let mut target = TypedImage::<U8x3>::from_buffer(size.width, size.height, pixels).expect("the length was checked");
    let options = ResizeOptions::new().resize_alg(ResizeAlg::Convolution(FilterType::Bilinear)).crop(
        inside.left_px,
        inside.top_px,
        inside.width_px,
        inside.height_px,
    );
    // Typed, because `resize` compiles the convolution of all thirteen types of pixels.
    Resizer::new().resize_typed(&source, &mut target, &options)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use ::image::Rgb;
    use fast_image_resize::PixelType;
    use fast_image_resize::images::{Image, ImageRef};

    fn noise(width: u32, height: u32) -> RgbImage {
        RgbImage::from_fn(width, height, |x, y| {
            let value = (x.wrapping_mul(2_654_435_761) ^ y.wrapping_mul(2_246_822_519)).wrapping_mul(3_266_489_917);
            Rgb([(value >> 8) as u8, (value >> 16) as u8, (value >> 24) as u8])
        })
    }

    #[test]
    fn shrinking_averages_instead_of_skipping() {
        let checks = RgbImage::from_fn(256, 256, |x, y| Rgb([if (x + y) % 2 == 0 { 0 } else { 255 }; 3]));
        let small = resize(&checks, ImageSize { width: 32, height: 32 }).unwrap();
        assert!(small.iter().all(|&value| (126..=129).contains(&value)));
    }

    #[test]
    fn agrees_with_the_triangle_filter_written_out() {
        let picture = RgbImage::from_fn(53, 1, |x, _| Rgb([(x * x * 37 % 251) as u8; 3]));
        let resized = resize(&picture, ImageSize { width: 17, height: 1 }).unwrap();
        let scale = 53.0 / 17.0;
        for x in 0..17_u32 {
            let center = (f64::from(x) + 0.5) * scale;
            let weights: Vec<f64> =
                (0..53).map(|i| (1.0 - ((f64::from(i) + 0.5 - center) / scale).abs()).max(0.0)).collect();
            let values = picture.pixels().map(|pixel| f64::from(pixel[0]));
            let expected =
                values.zip(&weights).map(|(value, weight)| value * weight).sum::<f64>() / weights.iter().sum::<f64>();
            assert!((f64::from(resized.get_pixel(x, 0)[0]) - expected).abs() <= 1.0);
        }
    }

    #[test]
    fn the_own_size_leaves_every_pixel() {
        let picture = noise(37, 23);
        assert_eq!(resize(&picture, ImageSize { width: 37, height: 23 }).unwrap(), picture);
    }

    #[test]
    fn all_functions_give_the_bytes_of_the_plain_convolution() {
        let picture = noise(61, 45);
        let filter = ResizeOptions::new().resize_alg(ResizeAlg::Convolution(FilterType::Bilinear));
        for (width, height) in [(32, 32), (7, 90), (61, 45), (200, 3)] {
            let plain = |options: ResizeOptions| {
                let source = ImageRef::new(61, 45, picture.as_raw(), PixelType::U8x3).unwrap();
                let mut target = Image::new(width, height, PixelType::U8x3);
                Resizer::new().resize(&source, &mut target, &options).unwrap();
                target.into_vec()
            };
            let size = ImageSize { width, height };
            let mut canvas = vec![9; size.pixels() as usize * 3];
            resize_into(&picture, size, &mut canvas).unwrap();
            assert_eq!(canvas, plain(filter));
            assert_eq!(resize(&picture, size).unwrap().into_raw(), plain(filter));
            let rectangle = PixelRectangle { left_px: 3.25, top_px: 0.5, width_px: 40.75, height_px: 44.125 };
            let resized = resize_rectangle(&picture, rectangle, size).unwrap();
            assert_eq!(resized.into_raw(), plain(filter.crop(3.25, 0.5, 40.75, 44.125)));
        }
    }

    #[test]
    fn rectangles_that_are_not_inside_are_refused() {
        let (picture, size) = (noise(8, 6), ImageSize { width: 4, height: 4 });
        let rectangle = |left_px, top_px, width_px, height_px| {
            let rectangle = PixelRectangle { left_px, top_px, width_px, height_px };
            resize_rectangle(&picture, rectangle, size)
        };
        assert!(rectangle(0.0, 0.0, 8.0, 6.0).is_ok());
        // A rounding error beyond the border is cut off.
        assert!(rectangle(0.1, 0.1, 7.9 + 1e-9, 5.9 + 1e-15).is_ok());
        let outside = [(-0.5, 0.0, 4.0, 4.0), (0.0, 0.0, 8.1, 6.0), (8.0, 0.0, 1.0, 1.0), (0.0, 2.0, 1.0, 4.01)];
        let empty = [(0.0, 0.0, 0.0, 6.0), (0.0, 0.0, 4.0, -1.0)];
        let not_finite = [(f64::NAN, 0.0, 4.0, 4.0), (0.0, 0.0, f64::NAN, 4.0), (0.0, 0.0, f64::INFINITY, 4.0)];
        for (left_px, top_px, width_px, height_px) in outside.into_iter().chain(empty).chain(not_finite) {
            let result = rectangle(left_px, top_px, width_px, height_px);
            assert!(matches!(result, Err(ResizeError::Outside { .. })), "{left_px} {top_px} {width_px} {height_px}");
        }
    }

    #[test]
    fn an_empty_side_is_an_error() {
        let picture = RgbImage::new(4, 4);
        assert!(matches!(resize(&picture, ImageSize { width: 0, height: 4 }), Err(ResizeError::Empty { .. })));
        assert!(matches!(
            resize(&RgbImage::new(0, 4), ImageSize { width: 4, height: 4 }),
            Err(ResizeError::Empty { .. })
        ));
    }

    #[test]
    fn a_buffer_of_another_length_is_an_error() {
        let size = ImageSize { width: 2, height: 2 };
        for bytes in [0, 11, 13] {
            let result = resize_into(&RgbImage::new(4, 4), size, &mut vec![0; bytes]);
            assert!(matches!(result, Err(ResizeError::BufferLength { .. })), "{bytes}");
        }
    }
}
