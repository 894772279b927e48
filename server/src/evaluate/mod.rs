//! Measures correspondences against exact truth.
//!
//! A feature extractor is anything that turns a picture into a [`FeatureMap`](crate::features::FeatureMap): a model,
//! or the baseline [`rgb_patches`] here. Not here: running models. Invariant: every number is a mean over pairs of
//! pictures, so that a pair with many matches counts no more than one with few.

mod homography;
pub mod hpatches;
mod report;
mod rgb_patches;

pub use self::homography::{Homography, HomographyError};
pub use self::report::{MeanOverPairs, Report, Summary, Threshold, text_table};
pub use self::rgb_patches::rgb_patches;
