//! Correspondences of a source and a target image by the cosine similarity of their feature maps, their verification by
//! a geometric model, propagation of labels, and drawing.
//!
//! Not here: running a model, and the wire format. Invariants: the full similarity matrix of two maps is never in memory,
//! only bounded blocks of rows; results are in the order of the queries and do not depend on the number of threads; long
//! work checks its [`Cancellation`] every few milliseconds.

mod cancellation;
mod correspondences;
mod draw;
mod propagate;
mod raster;
mod refine;
mod similarity;
mod similarity_maps;
mod verify;

pub use self::cancellation::{Cancellation, Cancelled};
pub use self::correspondences::{
    Candidate, ImagePair, MatchError, MatchOptions, MatchedImage, PointMatch, Queries, Refinement, find_correspondences,
};
pub use self::draw::{draw_matches, draw_similarity};
pub use self::propagate::propagate_labels;
pub use self::refine::{RefinementWindow, SoftArgmax};
pub use self::similarity_maps::SimilarityMaps;
pub use self::verify::{GeometricModel, GeometryPair, Undetermined, Verification, VerifyOptions, verify};
pub use crate::product::multiply;
