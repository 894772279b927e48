//! Resizing to the size a model sees.

use ::image::RgbImage;
use fast_image_resize::images::{Image, ImageRef};
use fast_image_resize::{FilterType, PixelType, ResizeAlg, ResizeOptions, Resizer};

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
    /// The resizer refused.
    #[error("the picture could not be resized")]
    Resizer(#[from] fast_image_resize::ResizeError),
}

/// `picture` at `size`, by antialiased bilinear convolution (a triangle filter widened by the scale when shrinking,
/// as Pillow's `BILINEAR`, from which not one value in ten thousand differs by more than one level, and none by more
/// than two).
///
/// # Errors
/// [`ResizeError::Empty`] if a side of either is 0.
#[expect(clippy::missing_panics_doc, reason = "both buffers have three bytes a pixel")]
pub fn resize(picture: &RgbImage, size: ImageSize) -> Result<RgbImage, ResizeError> {
    let from = ImageSize::from(picture.dimensions());
    if from.pixels() == 0 || size.pixels() == 0 {
        return Err(ResizeError::Empty { from, to: size });
    }
    if from == size {
        return Ok(picture.clone());
    }
    let source = ImageRef::new(from.width, from.height, picture.as_raw(), PixelType::U8x3)
        .expect("an RGB picture holds three bytes a pixel");
    let mut resized = Image::new(size.width, size.height, PixelType::U8x3);
    let options = ResizeOptions::new().resize_alg(ResizeAlg::Convolution(FilterType::Bilinear));
    Resizer::new().resize(&source, &mut resized, &options)?;
    Ok(RgbImage::from_raw(size.width, size.height, resized.into_vec()).expect("the resizer keeps three bytes a pixel"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use ::image::Rgb;

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
    fn an_empty_side_is_an_error() {
        let picture = RgbImage::new(4, 4);
        assert!(matches!(resize(&picture, ImageSize { width: 0, height: 4 }), Err(ResizeError::Empty { .. })));
        assert!(matches!(
            resize(&RgbImage::new(0, 4), ImageSize { width: 4, height: 4 }),
            Err(ResizeError::Empty { .. })
        ));
    }
}
