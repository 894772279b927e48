//! From a map to the tensor that a reply holds: components, places, length, order.

use std::sync::Arc;

use super::blend_lengths::BlendLengths;
use super::grid_window::GridWindow;
use super::interpolated::{InterpolatedMap, MAX_KEPT_LENGTHS};
use super::tensor::Tensor;
use super::window::{Window, WindowError};
use super::{
    ComponentsError, FeatureMap, GridSize, ImagePoints, Layout, PrincipalComponents, components_picture,
    descriptors_at, l2_normalize_rows,
};
use crate::image::{ImageSize, RgbImage};

/// Where descriptors are wanted.
#[derive(Clone, Debug, PartialEq)]
pub enum Places {
    /// At points of the picture: `[P, C]`.
    Points(ImagePoints),
    /// At the places of a window: a map.
    Window(Window),
}

/// What is wanted of a map, and in which order.
#[derive(Clone, Debug, PartialEq)]
pub struct Rendering {
    /// The size of the picture.
    pub image: ImageSize,
    /// Where.
    pub places: Places,
    /// Projected on so many principal components of the whole map, whichever part of it is wanted.
    pub components: Option<usize>,
    /// Whether descriptors have length 1. They have it before they are projected, and those of the result, too.
    pub unit: bool,
    /// Order of a map's axes.
    pub layout: Layout,
}

/// Why there is no such tensor.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RenderError {
    /// The components.
    #[error(transparent)]
    Components(#[from] ComponentsError),
    /// The window.
    #[error(transparent)]
    Window(#[from] WindowError),
}

impl Rendering {
    /// The shape that a map of `channels` on `grid` will give, for checks before there is a map.
    ///
    /// # Errors
    /// [`RenderError`] if there is no such tensor.
    pub fn shape(&self, channels: usize, grid: GridSize) -> Result<Vec<usize>, RenderError> {
        if let Some(count) = self.components {
            PrincipalComponents::check(count, channels)?;
        }
        let channels = self.components.unwrap_or(channels);
        match &self.places {
            Places::Points(points) => Ok(vec![points.len(), channels]),
            Places::Window(window) => {
                let places = window.places(grid)?;
                Ok(self.layout.shape(channels, places.height, places.width).to_vec())
            }
        }
    }

    /// About how many bytes [`of`](Self::of) and [`picture`](Self::picture) take beside a map of `channels` on `grid`
    /// and a copy of it.
    pub fn extra_bytes(&self, channels: usize, grid: GridSize) -> u64 {
        const FLOAT_BYTES: usize = 4;
        let map = channels * grid.cells() * FLOAT_BYTES;
        // The centred map, and matrices of the solver in double precision.
        let components = self.components.map_or(0, |count| {
            let matrix = channels * channels.min(4 * count) * 2 * FLOAT_BYTES;
            map + 4 * matrix
        });
        let places = match &self.places {
            Places::Points(points) => 2 * points.len() * channels * FLOAT_BYTES,
            Places::Window(window) => window.raster().map_or(0, |raster| {
                let lengths = raster.cells().min(MAX_KEPT_LENGTHS) * FLOAT_BYTES;
                lengths + grid.cells() * BlendLengths::BYTES_PER_CELL
            }),
        };
        (components + places) as u64
    }

    /// The tensor of `map`, whose descriptors have length 1 already if that is asked for. Maps between the cells are not
    /// computed yet; descriptors at points are.
    ///
    /// # Errors
    /// [`RenderError`] if there is no such tensor.
    #[expect(clippy::missing_panics_doc, reason = "the components are of this map, and the window's places no cells")]
    pub fn of(&self, map: FeatureMap) -> Result<Arc<dyn Tensor>, RenderError> {
        let (map, projected) = match self.components {
            Some(count) => (PrincipalComponents::of(&map, count)?.project(&map), true),
            None => (Some(map), false),
        };
        let map = map.expect("the components are of this map");
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
                Ok(Arc::new(map.expect("a window whose places are not the cells")))
            }
        }
    }

    /// The first three components of `map`, whose descriptors have length 1 already if that is asked for, as a picture.
    ///
    /// # Panics
    /// If places are points.
    pub fn picture(&self, map: &FeatureMap) -> RgbImage {
        let Places::Window(window) = &self.places else { panic!("points make no picture") };
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
        let tensor = rendering.of(map()).unwrap();
        assert_eq!(tensor.shape(), rendering.shape(6, map().grid()).unwrap());
        tensor
    }

    fn window(crop: Option<CropBox>, resolution: Resolution) -> Places {
        Places::Window(Window::new(IMAGE, crop, resolution).unwrap())
    }

    #[test]
    fn every_way_to_ask_for_a_pixel_gives_the_same_components() {
        for unit in [true, false] {
            let at = PixelPoint { x: 14.0, y: 14.0 };
            let points = Places::Points(ImagePoints::new(vec![at], IMAGE).unwrap());
            let at_point = all_values(&*rendered(points, Some(2), unit), 1);
            let whole = all_values(&*rendered(window(None, Resolution::Pixel), Some(2), unit), 1000);
            let crop = CropBox { x: 14, y: 14, width: 1, height: 1 };
            let cropped = all_values(&*rendered(window(Some(crop), Resolution::Pixel), Some(2), unit), 1);
            // The pixel is the centre of cell (1, 1) (14.5, 14.5) but for half a pixel.
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
    fn what_cannot_be_is_known_before_there_is_a_map() {
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
