//! Feature maps: coordinates, normalisation, sampling, pooling, stacking of layers, principal components, and tensors as
//! bytes.
//!
//! Not here: running a model, and comparing two maps ([`crate::matching`]). Invariant: a [`FeatureMap`] has exactly
//! `channels × height × width` values, at least one, which its constructor checks.

mod axis_position;
mod blend_lengths;
mod components;
mod components_picture;
mod coordinates;
mod encoded;
mod encoding;
mod feature_map;
mod grid_window;
mod hypercolumn;
mod interpolated;
mod leading_subspace;
mod mirror;
mod neighbour_products;
mod normalized_map;
mod npy;
mod points;
mod pooling;
mod rendering;
mod resample;
mod safetensors;
mod sample_axis;
mod sampling;
mod tensor;
mod window;

pub use self::axis_position::AxisPosition;
pub use self::components::{ComponentsError, PrincipalComponents};
pub use self::components_picture::components_picture;
pub use self::coordinates::{CellPoint, CellScale, Geometry, PixelPoint};
pub use self::encoded::{EncodedTensor, NumberForm};
pub use self::encoding::{Dtype, Element, ElementType, Layout, append_values, encode_raw};
pub use self::feature_map::{FeatureMap, ShapeError};
pub use self::grid_window::GridWindow;
pub use self::hypercolumn::{HypercolumnError, LayerScaling, hypercolumn};
pub use self::interpolated::InterpolatedMap;
pub use self::mirror::flip_average;
pub(crate) use self::neighbour_products::NeighbourProducts;
pub use self::normalized_map::NormalizedMap;
pub use self::npy::{encode_npy, encode_npy_u8, npy_header};
pub use self::points::{GridError, ImagePoints, PointError};
pub use self::pooling::{ParsePoolingError, Pooling, l2_normalize_vector, pooled};
pub use self::rendering::{Places, RenderError, Rendering};
pub use self::resample::resampled;
pub use self::safetensors::{StoredTensor, TensorEntry, encode_safetensors, safetensors_header};
pub use self::sampling::{descriptors_at, l2_normalize_rows};
pub use self::tensor::Tensor;
pub use self::window::{
    CellWindow, CropBox, MAX_PLACES_PER_SIDE, ParseWindowError, Placement, Resolution, Window, WindowError,
};
pub use densecl_models::geometry::GridSize;
