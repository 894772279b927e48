//! The tensor that is made of a map: principal components, sample positions or one vector, length of descriptors, order of
//! axes.

use std::sync::Arc;

use super::blend_lengths::BlendLengths;
use super::grid_window::GridWindow;
use super::interpolated::{InterpolatedMap, MAX_KEPT_LENGTHS};
use super::leading_subspace::product_bytes;
use super::tensor::Tensor;
use super::window::{Window, WindowError};
use super::{
    ComponentsError, FeatureMap, GridSize, ImagePoints, Layout, Pooling, PrincipalComponents, components_picture,
    descriptors_at, l2_normalize_rows, l2_normalize_vector, pooled,
};
use crate::image::{ImageSize, RgbImage};

/// The positions at which descriptors are sampled.
#[derive(Clone, Debug, PartialEq)]
pub enum Places {
    /// Points of the image; the tensor is `[P, C]`.
    Points(ImagePoints),
    /// The sample positions of a window; the tensor is a map.
    Window(Window),
    /// The cells of a window, pooled; the tensor is `[C]`.
    Pooled(Window, Pooling),
}

/// A description of the tensor to make of a map.
#[derive(Clone, Debug, PartialEq)]
pub struct Rendering {
    /// Size of the image, in pixels.
    pub image: ImageSize,
    /// The positions.
    pub places: Places,
    /// Number of principal components to project on. They are those of the whole map, whatever the positions.
    pub components: Option<usize>,
    /// Descriptors are scaled to length 1, both before a projection and in the result. A pooled vector is scaled to length
    /// 1; the descriptors are pooled unscaled.
    pub unit: bool,
    /// Order of a map's axes.
    pub layout: Layout,
}

/// The reason why a tensor cannot be made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RenderError {
    /// The number of components is not possible.
    #[error(transparent)]
    Components(#[from] ComponentsError),
    /// The window is not possible.
    #[error(transparent)]
    Window(#[from] WindowError),
}

impl Rendering {
    /// The shape of the tensor of a map `[channels, grid.height, grid.width]`, known before the map is computed.
    ///
    /// # Errors
    /// [`RenderError`] if the tensor cannot be made.
    pub fn shape(&self, channels: usize, grid: GridSize) -> Result<Vec<usize>, RenderError> {
        if let Some(count) = self.components {
            PrincipalComponents::check_count(count, channels)?;
        }
        let channels = self.components.unwrap_or(channels);
        match &self.places {
            Places::Points(points) => Ok(vec![points.len(), channels]),
            Places::Window(window) => {
                let places = window.places(grid)?;
                Ok(self.layout.shape(channels, places.height, places.width).to_vec())
            }
            Places::Pooled(window, _) => {
                window.cells(grid)?;
                Ok(vec![channels])
            }
        }
    }

    /// True if the descriptors of the map that is rendered must have length 1.
    pub fn takes_unit_map(&self) -> bool {
        match self.places {
            Places::Points(_) | Places::Window(_) => self.unit,
            Places::Pooled(..) => false,
        }
    }

    /// About how many bytes of memory [`render`](Self::render) and [`picture`](Self::picture) take, besides a map
    /// `[channels, grid.height, grid.width]` and one copy of it.
    pub fn extra_bytes(&self, channels: usize, grid: GridSize) -> u64 {
        const FLOAT_BYTES: usize = 4;
        let map = channels * grid.cells() * FLOAT_BYTES;
        // The centred map, and the solver's matrices in double precision.
        let components = self.components.map_or(0, |count| {
            let matrix = channels * channels.min(4 * count) * 2 * FLOAT_BYTES;
            map + 4 * matrix + product_bytes(count, channels)
        });
        let places = match &self.places {
            Places::Points(points) => 2 * points.len() * channels * FLOAT_BYTES,
            Places::Window(window) => window.raster().map_or(0, |raster| {
                let lengths = raster.cells().min(MAX_KEPT_LENGTHS) * FLOAT_BYTES;
                lengths + grid.cells() * BlendLengths::BYTES_PER_CELL
            }),
            Places::Pooled(..) => 2 * channels * FLOAT_BYTES,
        };
        (components + places) as u64
    }

    /// The tensor of `map`, whose descriptors must have length 1 already if [`takes_unit_map`](Self::takes_unit_map).
    /// Descriptors at points and vectors are computed now, maps between the cells when they are read.
    ///
    /// # Errors
    /// [`RenderError`] if the tensor cannot be made.
    #[expect(
        clippy::missing_panics_doc,
        reason = "the components were fitted to this map; the last window is not at cells"
    )]
    pub fn render(&self, map: FeatureMap) -> Result<Arc<dyn Tensor>, RenderError> {
        let (map, projected) = match self.components {
            Some(count) => (PrincipalComponents::fit(&map, count)?.project(&map), true),
            None => (Some(map), false),
        };
        let map = map.expect("the components were fitted to this map");
        match &self.places {
            Places::Points(points) => {
                let mut descriptors = descriptors_at(&map, self.image, points);
                if self.unit {
                    l2_normalize_rows(&mut descriptors);
                }
                Ok(Arc::new(descriptors))
            }
            Places::Window(window) if window.raster().is_none() => {
                let cells = window.cells(map.grid())?;
                let map = if self.unit && projected { map.into_normalized().into_map() } else { map };
                Ok(Arc::new(GridWindow::new(map, cells, self.layout)))
            }
            Places::Window(window) => {
                let map = InterpolatedMap::new(map, window, self.layout, self.unit);
                Ok(Arc::new(map.expect("the window is not at cells")))
            }
            Places::Pooled(window, pooling) => {
                let mut vector = pooled(&map, &window.cells(map.grid())?, *pooling);
                if self.unit {
                    l2_normalize_vector(&mut vector);
                }
                Ok(Arc::new(vector))
            }
        }
    }

    /// The first three components of `map` as a picture, see [`components_picture`]. The descriptors of `map` must have
    /// length 1 already if `unit`.
    ///
    /// # Panics
    /// If the positions are not those of a window.
    pub fn picture(&self, map: &FeatureMap) -> RgbImage {
        let Places::Window(window) = &self.places else { panic!("only a window makes a picture") };
        components_picture(map, *window)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::features::tensor::all_values;
    use crate::features::{CropBox, PixelPoint, Resolution};

    const IMAGE: ImageSize = ImageSize { width: 40, height: 30 };

    fn map() -> FeatureMap {
        FeatureMap::new(6, 3, 4, (0..72).map(|i| ((i * i) as f32).cos()).collect()).unwrap()
    }

    fn rendered(places: Places, components: Option<usize>, unit: bool) -> Arc<dyn Tensor> {
        let rendering = Rendering { image: IMAGE, places, components, unit, layout: Layout::Hwc };
        let tensor = rendering.render(map()).unwrap();
        assert_eq!(tensor.shape(), rendering.shape(6, map().grid()).unwrap());
        tensor
    }

    fn window(crop: Option<CropBox>, resolution: Resolution) -> Places {
        Places::Window(Window::new(IMAGE, crop, resolution).unwrap())
    }

    #[test]
    fn points_windows_and_crops_give_a_pixel_the_same_components() {
        for unit in [true, false] {
            let at = PixelPoint { x: 14.0, y: 14.0 };
            let points = Places::Points(ImagePoints::new(vec![at], IMAGE).unwrap());
            let at_point = all_values(&*rendered(points, Some(2), unit), 1);
            let whole = all_values(&*rendered(window(None, Resolution::Pixel), Some(2), unit), 1000);
            let crop = CropBox { x: 14, y: 14, width: 1, height: 1 };
            let cropped = all_values(&*rendered(window(Some(crop), Resolution::Pixel), Some(2), unit), 1);
            // The pixel is half a pixel away from the centre of cell (1, 1), which is at (14.5, 14.5).
            for index in 0..2 {
                assert!((at_point[index] - cropped[index]).abs() < 1e-5);
                assert!((whole[(14 * 40 + 14) * 2 + index] - cropped[index]).abs() < 1e-5);
            }
            assert!(!unit || (cropped[0].hypot(cropped[1]) - 1.0).abs() < 1e-5);
        }
    }

    #[test]
    fn a_cropped_grid_is_a_part_of_the_projected_whole() {
        let whole = all_values(&*rendered(window(None, Resolution::Grid), Some(3), true), 100);
        let crop = CropBox { x: 10, y: 10, width: 20, height: 10 };
        let part = all_values(&*rendered(window(Some(crop), Resolution::Grid), Some(3), true), 100);
        assert_eq!(part, whole[(4 + 1) * 3..(4 + 3) * 3]);
    }

    #[test]
    fn a_vector_is_pooled_from_the_map_as_it_is_and_scaled_afterwards() {
        let crop = Some(CropBox { x: 10, y: 10, width: 20, height: 10 });
        let places = |crop| Places::Pooled(Window::new(IMAGE, crop, Resolution::Grid).unwrap(), Pooling::Mean);
        let raw = all_values(&*rendered(places(crop), None, false), 1);
        for (channel, value) in raw.iter().enumerate() {
            // Cells 5 and 6 of the 4 × 3.
            let map = map();
            let cells = &map.data()[channel * 12 + 5..][..2];
            assert!((value - f32::midpoint(cells[0], cells[1])).abs() < 1e-6);
        }
        let unit = all_values(&*rendered(places(crop), None, true), 1);
        let length = raw.iter().map(|value| value * value).sum::<f32>().sqrt();
        assert!(unit.iter().zip(&raw).all(|(unit, raw)| (unit - raw / length).abs() < 1e-6));
        let between = CropBox { x: 6, y: 6, width: 2, height: 2 };
        let rendering = Rendering {
            image: IMAGE,
            places: places(Some(between)),
            components: None,
            unit: true,
            layout: Layout::Chw,
        };
        assert!(!rendering.takes_unit_map());
        assert!(matches!(rendering.shape(6, map().grid()), Err(RenderError::Window(WindowError::NoCells { .. }))));
        assert!(rendering.render(map()).is_err());
    }

    #[test]
    fn impossible_tensors_are_refused_before_there_is_a_map() {
        let rendering = |components, crop| Rendering {
            image: IMAGE,
            places: window(crop, Resolution::Grid),
            components,
            unit: true,
            layout: Layout::Chw,
        };
        assert!(matches!(rendering(Some(7), None).shape(6, map().grid()), Err(RenderError::Components(_))));
        assert!(matches!(rendering(Some(0), None).shape(6, map().grid()), Err(RenderError::Components(_))));
        let between = Some(CropBox { x: 6, y: 6, width: 2, height: 2 });
        assert!(matches!(rendering(None, between).shape(6, map().grid()), Err(RenderError::Window(_))));
    }
}
