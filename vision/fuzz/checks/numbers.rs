//! Numbers, shapes and tensors from a fuzzer's bytes, and the bytes of replies from tensors.

use std::ops::Range;
use std::sync::Arc;

use densecl_vision::features::{
    CropBox, FeatureMap, ImagePoints, Layout, PixelPoint, Places, Rendering, Resolution, Tensor, Window,
};
use densecl_vision::image::ImageSize;

/// The bytes of an input, zeros behind their end.
pub(crate) struct Numbers<'a>(pub(crate) &'a [u8]);

impl Numbers<'_> {
    pub(crate) fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        *first
    }

    /// A number from 1 on.
    pub(crate) fn size(&mut self, most: usize) -> usize {
        1 + usize::from(self.byte()) % most
    }

    /// Any number of 32 bits, with the infinite ones and those that are none.
    pub(crate) fn floats(&mut self, count: usize) -> Vec<f32> {
        (0..count).map(|_| f32::from_le_bytes([self.byte(), self.byte(), self.byte(), self.byte()])).collect()
    }

    /// A tensor as replies hold it: of points, cells or places between them.
    pub(crate) fn rendered(&mut self) -> Option<Arc<dyn Tensor>> {
        let (channels, height, width) = (self.size(6), self.size(5), self.size(5));
        let image = ImageSize { width: self.size(64) as u32, height: self.size(64) as u32 };
        let flags = self.byte();
        let crop = CropBox {
            x: u32::from(self.byte()),
            y: u32::from(self.byte()),
            width: u32::from(self.byte()),
            height: u32::from(self.byte()),
        };
        let resolution = match flags & 3 {
            0 => Resolution::Grid,
            1 => Resolution::Pixel,
            _ => Resolution::Size { width: u32::from(self.byte()), height: u32::from(self.byte()) },
        };
        let places = if flags & 0x40 == 0 {
            Places::Window(Window::new(image, (flags & 4 != 0).then_some(crop), resolution).ok()?)
        } else {
            let points = (0..self.size(9)).map(|_| PixelPoint { x: f64::from(self.byte()), y: f64::from(self.byte()) });
            Places::Points(ImagePoints::new(points.collect(), image).ok()?)
        };
        let rendering = Rendering {
            image,
            places,
            components: (flags & 8 != 0).then(|| self.size(8)),
            unit: flags & 16 != 0,
            layout: if flags & 32 == 0 { Layout::Chw } else { Layout::Hwc },
        };
        // What models put out is finite: whatever is not becomes 1.
        let data = self.floats(channels * height * width).into_iter().map(|x| if x.abs() < 1e6 { x } else { 1.0 });
        let map = FeatureMap::new(channels, height, width, data.collect()).expect("as many as its shape says");
        let stated = rendering.shape(channels, map.grid());
        let tensor = rendering.render(map).ok()?;
        assert_eq!(Ok(tensor.shape()), stated, "the shape that was said before");
        Some(tensor)
    }
}

/// All values of a tensor, after a look that parts of it are parts of the whole.
pub(crate) fn values(tensor: &dyn Tensor, step: usize) -> Vec<f32> {
    let count = tensor.shape().iter().product();
    let mut whole = Vec::new();
    tensor.append(0..count, &mut whole);
    assert_eq!(whole.len(), count);
    let unit = tensor.unit();
    for start in (0..count).step_by(step * unit) {
        let range: Range<usize> = start..count.min(start + step * unit);
        let mut part = Vec::new();
        tensor.append(range.clone(), &mut part);
        assert!(same(&part, &whole[range.clone()]), "{range:?} of {count}");
    }
    whole
}

/// Equal, bit by bit; of what is no number any is as good.
pub(crate) fn same(one: &[f32], other: &[f32]) -> bool {
    let equal = |(a, b): (&f32, &f32)| a.to_bits() == b.to_bits() || (a.is_nan() && b.is_nan());
    one.len() == other.len() && one.iter().zip(other).all(equal)
}
