//! Evaluation of correspondences against exact ground truth.
//!
//! [`measure`] runs a [`FeatureMethod`] (a model or a baseline) on a [`Dataset`] by the protocol of that data set. A
//! [`Report`] sums up the results. Not here: running models. Invariant: every number is a mean over pairs of images with
//! its standard error, so that a pair with many matches has no more weight than one with few, unless the name of the
//! metric says that points are counted.

mod dataset;
mod error;
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
pub use self::error::{EvaluationError, FeatureMethodError};
pub use self::feature_method::FeatureMethod;
pub use self::metrics::Estimate;
pub use self::pair_result::{
    Curve, CurveSample, MeasuredMatch, Metric, PairIllustration, PairResult, PropagatedMask, Score, Unit,
};
pub use self::protocol::{EvaluationOptions, MethodResult, measure};
pub use self::report::{
    Cost, MeanCurve, Measurement, MethodKind, PageError, PairGroup, Report, ReportRow, page, text_table,
};
pub use self::rgb_patches::{RgbPatches, rgb_patches};
pub use self::sift::{Sift, SiftError};
