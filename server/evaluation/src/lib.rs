//! Measures correspondences against exact truth.
//!
//! A [`Dataset`] is told by what is in its folder, a [`FeatureMethod`] is anything that describes pictures (a model, or a
//! baseline), [`measure`] brings them together by the protocol that belongs to the data set, and a [`Report`] holds what
//! came out. Not here: running models. Invariant: every number is a mean over pairs of pictures with its standard error,
//! so that a pair with many matches counts no more than one with few, unless its name says that points count.

mod dataset;
mod feature_method;
pub mod metrics;
mod pair_result;
mod protocol;
mod report;
mod rgb_patches;
mod sift;

pub use self::dataset::{
    Dataset, DatasetError, DatasetLayout, GroundTruth, KeypointPair, Picture, Scene, SceneFrame, Selection, Sequence,
    SequencePicture, Split, read_picture,
};
pub use self::feature_method::{FeatureMethod, FeatureMethodError};
pub use self::metrics::Estimate;
pub use self::pair_result::{
    Curve, CurveSample, MeasuredMatch, Metric, PairIllustration, PairResult, PropagatedMask, Score, Unit,
};
pub use self::protocol::{EvaluationError, EvaluationOptions, MethodResult, measure};
pub use self::report::{
    Cost, MeanCurve, Measurement, MethodKind, PageError, PairGroup, Report, ReportRow, page, text_table,
};
pub use self::rgb_patches::{RgbPatches, rgb_patches};
pub use self::sift::{Sift, SiftError};
