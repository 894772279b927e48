//! Feature maps and what is done to them: coordinates, normalising, sampling, stacking, principal components, encoding.
//!
//! Not here: running a model (`engine`) and comparing two maps (`matching`). Everything is synchronous and keeps no
//! state. Invariant: a [`FeatureMap`]'s data always have `channels × height × width` values; the constructor is the
//! only place that checks.

mod components;
mod components_picture;
mod coordinates;
mod encoding;
mod feature_map;
mod hypercolumn;
mod points;
mod resample;
mod sampling;
mod symmetric_eigen;
mod tensor;

pub use self::components::{ComponentsError, PrincipalComponents};
pub use self::components_picture::components_picture;
pub use self::coordinates::{CellPoint, CellScale, Geometry, GridSize, PixelPoint};
pub use self::encoding::{Base64Tensor, Dtype, Layout, NestedArray, append_values, encode_npy, encode_raw, npy_header};
pub use self::feature_map::{FeatureMap, NormalizedMap, ShapeError};
pub use self::hypercolumn::{HypercolumnError, LayerScaling, hypercolumn};
pub use self::points::{GridError, ImagePoints, PointError};
pub use self::resample::resampled;
pub(crate) use self::sampling::neighbours;
pub use self::sampling::{descriptors_at, l2_normalize_rows};
pub use self::tensor::Tensor;
