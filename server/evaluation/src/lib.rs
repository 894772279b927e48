//! Measures correspondences against exact truth.
//!
//! A [`Dataset`] is told by what is in its folder, a [`Contestant`] is anything that describes pictures (a model, or a
//! baseline), [`measure`] brings them together by the protocol that belongs to the data set, and a [`Report`] holds what
//! came out. Not here: running models. Invariant: every number is a mean over pairs of pictures with its standard error,
//! so that a pair with many matches counts no more than one with few, unless its name says that points count.

mod case;
mod contestant;
mod dataset;
pub mod metrics;
mod protocol;
mod report;
mod rgb_patches;
mod sift;

pub use self::case::{CarriedMask, Case, Curve, CurveSample, Exhibit, MatchError, Metric, Score, Unit};
pub use self::contestant::{Contestant, ContestantError};
pub use self::dataset::{
    Dataset, DatasetError, KeypointPair, Layout, OtherPicture, Picture, Scene, SceneFrame, Selection, Sequence, Split,
    Truth, read_picture,
};
pub use self::metrics::Estimate;
pub use self::protocol::{EvaluateError, Measured, Options, measure};
pub use self::report::{Cost, Group, Kind, MeanCurve, Measurement, PageError, Report, Row, page, text_table};
pub use self::rgb_patches::{RgbPatches, rgb_patches};
pub use self::sift::{Sift, SiftError};
