//! Metrics of errors, masks and rankings, as pure functions.

mod boundary;
mod corners;
mod estimate;
mod pck;
mod ranking;
mod region;

pub use self::boundary::{BoundaryTolerance, MaskPair, boundary_f};
pub use self::corners::mean_corner_error;
pub use self::estimate::Estimate;
pub use self::pck::{mean, median, share_below};
pub use self::ranking::{area_under_roc, average_precision};
pub use self::region::region_similarity;
