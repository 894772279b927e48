//! Feature maps and what is done to them: coordinates, normalising, sampling, stacking, principal components, encoding.
//!
//! Not here: running a model (`engine`) and comparing two maps (`matching`). Everything is synchronous and keeps no
//! state. Invariant: a [`FeatureMap`]'s data always have `channels × height × width` values; the constructor is the
//! only place that checks.

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
mod points;
mod rendering;
mod resample;
mod safetensors;
mod sampling;
mod tensor;
mod window;

pub use self::components::{ComponentsError, PrincipalComponents};
pub use self::components_picture::components_picture;
pub use self::coordinates::{CellPoint, CellScale, Geometry, PixelPoint};
pub use self::encoded::{EncodedTensor, NumberForm};
pub use self::encoding::{Dtype, Layout, append_values, encode_npy, encode_npy_bytes, encode_raw, npy_header};
pub use self::feature_map::{FeatureMap, NormalizedMap, ShapeError};
pub use self::grid_window::GridWindow;
pub use self::hypercolumn::{HypercolumnError, LayerScaling, hypercolumn};
pub use self::interpolated::InterpolatedMap;
pub use self::mirror::flip_average;
pub(crate) use self::neighbour_products::NeighbourProducts;
pub use self::points::{GridError, ImagePoints, PointError};
pub use self::rendering::{Places, RenderError, Rendering};
pub use self::resample::resampled;
pub use self::safetensors::{TensorEntry, safetensors_header};
pub use self::sampling::neighbours;
pub use self::sampling::{descriptors_at, l2_normalize_rows};
pub use self::tensor::Tensor;
pub use self::window::{
    CellWindow, CropBox, MAX_PLACES_PER_SIDE, Placement, Resolution, ViewTextError, Window, WindowError,
};
pub use densecl_models::geometry::GridSize;
