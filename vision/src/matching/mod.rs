//! Correspondences: which point of a target picture looks like a point of a source picture, by their feature maps.
//!
//! Not here: running a model, and the wire format. Everything is synchronous, keeps no state and computes on rayon's
//! pool. Invariants: the full similarity matrix of two maps is never held, only bounded blocks of rows; results come
//! in the order of the queries and do not depend on the number of threads; long work looks at its [`Cancellation`]
//! every few milliseconds.

mod cancellation;
mod correspond;
mod draw;
mod product;
mod propagate;
mod raster;
mod refine;
mod similarity;
mod similarity_maps;
mod verify;

pub use self::cancellation::{Cancellation, Cancelled};
pub use self::correspond::{
    Candidate, ImagePair, MatchError, MatchOptions, MatchSide, PointMatch, Queries, Refine, correspond,
};
pub use self::draw::{draw_matches, draw_similarity};
pub use self::product::multiply;
pub use self::propagate::propagate_labels;
pub use self::refine::{SoftArgmax, Window};
pub use self::similarity_maps::SimilarityMaps;
pub use self::verify::{GeometricModel, Undetermined, Verification, VerifyOptions, verify};
