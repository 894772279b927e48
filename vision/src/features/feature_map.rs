//! Dense feature maps: a descriptor for every cell of a grid.

use std::sync::Arc;

use ndarray::{ArrayView2, ArrayView3};

use super::{Geometry, GridSize, Layout};
use crate::image::ImageSize;

/// A feature map `[C, H, W]`, row-major in that order, as a model returns it. Clones share their values.
#[derive(Clone, Debug, PartialEq)]
pub struct FeatureMap {
    channels: usize,
    grid: GridSize,
    data: Arc<Vec<f32>>,
}

/// The error of a number of values that does not fit the shape, or of a shape with a size of 0.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{values} values do not make up a feature map of {channels} x {height} x {width}")]
pub struct ShapeError {
    channels: usize,
    height: usize,
    width: usize,
    values: usize,
}

impl FeatureMap {
    /// A map `[channels, height, width]` with the values `data`, row-major.
    ///
    /// # Errors
    /// [`ShapeError`] if the number of values does not fit the shape, or one of the sizes is 0.
    pub fn new(channels: usize, height: usize, width: usize, data: Vec<f32>) -> Result<Self, ShapeError> {
        let expected = channels.checked_mul(height).and_then(|rows| rows.checked_mul(width));
        if expected != Some(data.len()) || data.is_empty() {
            return Err(ShapeError { channels, height, width, values: data.len() });
        }
        Ok(Self { channels, grid: GridSize { width, height }, data: Arc::new(data) })
    }

    /// Length of a descriptor.
    pub fn channels(&self) -> usize {
        self.channels
    }

    /// The grid of cells.
    pub fn grid(&self) -> GridSize {
        self.grid
    }

    /// The values, `[C, H, W]`.
    pub fn data(&self) -> &[f32] {
        &self.data
    }

    /// The values, `[C, H, W]`. Copies them if the map has clones.
    pub fn into_data(self) -> Vec<f32> {
        Arc::unwrap_or_clone(self.data)
    }

    /// The values, `[C, H, W]`, shared.
    pub(super) fn values(&self) -> Arc<Vec<f32>> {
        Arc::clone(&self.data)
    }

    /// The values, `[C, H, W]`, to be changed. Copies them if the map has clones.
    pub(super) fn values_mut(&mut self) -> &mut Vec<f32> {
        Arc::make_mut(&mut self.data)
    }

    /// Memory that the values take, in bytes.
    pub fn bytes(&self) -> usize {
        self.data.capacity() * size_of::<f32>()
    }

    /// The geometry of the map over an image of size `image`.
    pub fn geometry(&self, image: ImageSize) -> Geometry {
        Geometry { image, grid: self.grid }
    }

    /// The shape in the order of `layout`.
    pub fn shape(&self, layout: Layout) -> [usize; 3] {
        layout.shape(self.channels, self.grid.height, self.grid.width)
    }

    /// The values in the order of `layout`, without a copy.
    #[expect(clippy::missing_panics_doc, reason = "the constructor checked the shape")]
    pub fn view(&self, layout: Layout) -> ArrayView3<'_, f32> {
        let chw =
            ArrayView3::from_shape(self.shape(Layout::Chw), self.data()).expect("the constructor checked the shape");
        match layout {
            Layout::Chw => chw,
            Layout::Hwc => chw.permuted_axes([1, 2, 0]),
        }
    }

    /// The values as a matrix with a column for each cell, `[C, H·W]`, without a copy.
    #[expect(clippy::missing_panics_doc, reason = "the constructor checked the shape")]
    pub fn matrix(&self) -> ArrayView2<'_, f32> {
        ArrayView2::from_shape((self.channels, self.grid.cells()), self.data())
            .expect("the constructor checked the shape")
    }
}

/// `1 / sqrt(sum_of_squares)`, or 0 if that is not a normal number.
pub(super) fn inverse_length(sum_of_squares: f32) -> f32 {
    let inverse = sum_of_squares.sqrt().recip();
    if inverse.is_normal() { inverse } else { 0.0 }
}
