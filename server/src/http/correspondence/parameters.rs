//! Parameters of `POST /correspondence`: raw ([`CorrespondenceQuery`]) and validated ([`CorrespondenceParameters`]).

use std::num::NonZeroUsize;

use axum::http::HeaderMap;
use serde::Deserialize;
use utoipa::ToSchema;
use utoipa::openapi::schema::Schema;

use densecl_vision::matching::{GeometricModel, MatchOptions, Refinement, VerifyOptions};

use super::feature_ids::KnownFeatures;
use crate::http::reply::{ReplyFormat, media_type, negotiate_among};
use crate::http::request::{Parameters, RequestError, read_flag, read_points, word_schema};
use crate::serving::correspondence::{CorrespondenceTask, RequestedPoints};
use crate::serving::{Selection, SelectionChoice, Service};

/// Limit of the candidates of a point.
const MAX_TOP_K: usize = 100;

/// Raw parameters, from the query, from parts of the form or from fields of the object.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct CorrespondenceQuery {
    /// `[[x, y], …]` in pixels of the upright source image, where (0, 0) is the centre of its top-left pixel, such as `[[12.5, 40]]`. Every cell of the source if neither `points` nor `grid` is given.
    points: Option<String>,
    /// Spacing of a regular grid of points, in pixels of the source.
    #[schema(minimum = 1)]
    grid: Option<f64>,
    /// Name of the model; the first one if not given.
    model: Option<String>,
    /// Version of the model; the newest if not given.
    version: Option<u32>,
    /// One layer, or several joined by `+`, such as `res3+res4` (a hypercolumn); the manifest's default if not given.
    layer: Option<String>,
    /// Pixels that the images' longer sides are resized to, 32 to the server's limit; the manifest's default if not given.
    #[schema(minimum = 32)]
    side: Option<u64>,
    /// Candidates per point, 1 to 100; 1 if not given.
    #[schema(minimum = 1, maximum = 100)]
    top_k: Option<usize>,
    /// Keep only mutual nearest neighbours; `false` if not given.
    #[serde(default, deserialize_with = "read_flag")]
    mutual: Option<bool>,
    /// Keep only matches with at least this cosine similarity, from -1 to 1.
    min_score: Option<f32>,
    /// Keep only matches whose second-best similarity, outside the best's neighbourhood, is at most this fraction of the best.
    max_ratio: Option<f32>,
    #[schema(schema_with = refinements)]
    refine: Option<RefinementWord>,
    #[schema(schema_with = geometric_models)]
    verify: Option<GeometricModelWord>,
    /// Largest distance of an inlier in pixels of the target, with `verify`; half a cell of its map if not given. In the source the threshold is the same fraction of a cell.
    #[schema(exclusive_minimum = 0)]
    verify_threshold: Option<f64>,
    #[schema(schema_with = formats)]
    format: Option<CorrespondenceFormat>,
}

/// Refinement of a match, as requests name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum RefinementWord {
    None,
    SoftArgmax,
}

impl From<RefinementWord> for Refinement {
    fn from(word: RefinementWord) -> Self {
        match word {
            RefinementWord::None => Self::None,
            RefinementWord::SoftArgmax => Self::SoftArgmax,
        }
    }
}

/// Geometry that matches agree on, as requests name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum GeometricModelWord {
    Homography,
    Fundamental,
}

impl From<GeometricModelWord> for GeometricModel {
    fn from(word: GeometricModelWord) -> Self {
        match word {
            GeometricModelWord::Homography => Self::Homography,
            GeometricModelWord::Fundamental => Self::Fundamental,
        }
    }
}

/// The formats of a reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum CorrespondenceFormat {
    Json,
    Npy,
    Safetensors,
    Png,
    Heatmap,
}

impl ReplyFormat for CorrespondenceFormat {
    const OFFERED: &'static [(Self, &'static str)] = &[
        (Self::Json, "application/json"),
        (Self::Npy, "application/x-npy"),
        (Self::Safetensors, "application/x-safetensors"),
        (Self::Png, "image/png"),
        // After `npy`, so that `Accept` never selects it.
        (Self::Heatmap, "application/x-npy"),
    ];
}

fn refinements() -> Schema {
    word_schema(
        "`softargmax` (the default): a position between the cells. `none`: the centre of the best cell.",
        &["softargmax", "none"],
    )
}

fn geometric_models() -> Schema {
    word_schema(
        "Find the geometry that most matches agree on (RANSAC), and flag the matches that agree: `homography` for a plane or a rotating camera, `fundamental` matrix for any rigid scene. The matrix is null, with a `reason`, if the matches are too few, do not agree, or are degenerate.",
        &["homography", "fundamental"],
    )
}

fn formats() -> Schema {
    word_schema(
        "Format of the reply; what `Accept` prefers if not given, `json` for `*/*`. `npy`: `[M, 5]` float32 with the columns xs, ys, xt, yt, score. `safetensors`: such a tensor for each target, named `0`, `1`, …; with `verify` also `0.inlier` (`[M]` uint8) and `0.matrix` (`[3, 3]` float64), which is absent if the matches determine none; the metadata `0.reason` then tells why. `png`: both images with the matches; for a single point, its similarity over the target. `heatmap`: the cosine similarity of every point with every cell of the target, `[P, h, w]` float32 as npy. Several targets: `json` or `safetensors`. With `verify`: not `npy`. With a `mask`: `png` in the style of the mask, `npy` (`[H, W]` uint8), or `safetensors` (such a tensor for each target).",
        &["json", "npy", "safetensors", "png", "heatmap"],
    )
}

/// Images that came with the parameters.
#[derive(Clone, Copy, Debug)]
pub(super) struct Uploaded {
    /// Number of targets, uploaded or named by an id.
    pub(super) targets: usize,
    pub(super) has_mask: bool,
}

/// Validated parameters.
pub(super) struct CorrespondenceParameters {
    pub(super) selection: Selection,
    pub(super) task: CorrespondenceTask,
    pub(super) format: CorrespondenceFormat,
}

impl CorrespondenceParameters {
    pub(super) fn read(
        service: &Service,
        parameters: &Parameters,
        headers: &HeaderMap,
        given: (Uploaded, &KnownFeatures),
    ) -> Result<Self, RequestError> {
        let (uploaded, known) = given;
        let query: CorrespondenceQuery = parameters.read()?;
        let choice = SelectionChoice {
            model: query.model.as_deref(),
            version: query.version,
            layer: query.layer.as_deref(),
            side: query.side,
        };
        let selection = match known.recipe(&choice)? {
            Some(recipe) => Selection::from_recipe(service, recipe)?,
            None => Selection::resolve(service, &choice)?,
        };
        if selection.is_global() {
            let reason = "`global` is one vector for each image, and correspondences are between the cells of maps: name a layer";
            return Err(RequestError::conflict(reason));
        }
        let task = query.task(uploaded, service.limits().max_points)?;
        let format = negotiate_among(&offered(&task, uploaded.targets), query.format, headers)?;
        if format == CorrespondenceFormat::Png && matches!(task, CorrespondenceTask::Matches { .. }) {
            known.check_none_for_picture()?;
        }
        Ok(Self { selection, task, format })
    }
}

/// Formats of the reply to a task; the first is the answer to `*/*`.
fn offered(task: &CorrespondenceTask, targets: usize) -> Vec<(CorrespondenceFormat, &'static str)> {
    use CorrespondenceFormat::{Heatmap, Json, Npy, Png, Safetensors};
    let formats: &[CorrespondenceFormat] = match (task, targets) {
        (CorrespondenceTask::Heatmaps { .. }, ..=1) => &[Heatmap],
        (CorrespondenceTask::Heatmaps { .. }, _) => &[],
        (CorrespondenceTask::Labels, ..=1) => &[Png, Npy, Safetensors],
        (CorrespondenceTask::Labels, _) => &[Safetensors],
        (CorrespondenceTask::Matches { verify: None, .. }, ..=1) => &[Json, Npy, Safetensors, Png],
        // `npy` holds one table, and no matrix.
        (CorrespondenceTask::Matches { .. }, ..=1) => &[Json, Safetensors, Png],
        (CorrespondenceTask::Matches { .. }, _) => &[Json, Safetensors],
    };
    formats.iter().map(|&format| (format, media_type(format))).collect()
}

impl CorrespondenceQuery {
    fn task(&self, uploaded: Uploaded, max_points: usize) -> Result<CorrespondenceTask, RequestError> {
        if uploaded.has_mask {
            return self.check_only_mask().map(|()| CorrespondenceTask::Labels);
        }
        let points = match (self.points.as_deref(), self.grid) {
            (Some(_), Some(_)) => return Err(RequestError::conflict("both `points` and `grid` are given")),
            (Some(text), None) => Some(RequestedPoints::Points(read_points(text, max_points)?)),
            (None, Some(spacing_px)) => Some(RequestedPoints::Grid { spacing_px, max_points }),
            (None, None) => None,
        };
        let (options, verify) = (self.match_options()?, self.verify_options()?);
        if self.format != Some(CorrespondenceFormat::Heatmap) {
            return Ok(CorrespondenceTask::Matches { points, options, verify });
        }
        if verify.is_some() {
            return Err(RequestError::conflict("`heatmap` shows similarities, and `verify` is about matches"));
        }
        let points =
            points.ok_or_else(|| RequestError::conflict("`heatmap` takes `points` or `grid`, and neither is given"))?;
        Ok(CorrespondenceTask::Heatmaps { points })
    }

    /// Refuses parameters of points and matches, which exclude a mask.
    fn check_only_mask(&self) -> Result<(), RequestError> {
        let given = [
            ("points", self.points.is_some()),
            ("grid", self.grid.is_some()),
            ("top_k", self.top_k.is_some()),
            ("mutual", self.mutual.is_some()),
            ("min_score", self.min_score.is_some()),
            ("max_ratio", self.max_ratio.is_some()),
            ("refine", self.refine.is_some()),
            ("verify", self.verify.is_some()),
            ("verify_threshold", self.verify_threshold.is_some()),
            ("format=heatmap", self.format == Some(CorrespondenceFormat::Heatmap)),
        ];
        match given.iter().find(|(_, is_given)| *is_given) {
            Some((name, _)) => {
                Err(RequestError::conflict(&format!("`mask` carries labels over, and `{name}` is about points")))
            }
            None => Ok(()),
        }
    }

    fn match_options(&self) -> Result<MatchOptions, RequestError> {
        let top_k = NonZeroUsize::new(self.top_k.unwrap_or(1))
            .filter(|top_k| top_k.get() <= MAX_TOP_K)
            .ok_or_else(|| RequestError::malformed("top_k", "it is not within 1 to 100"))?;
        for (name, value) in [("min_score", self.min_score), ("max_ratio", self.max_ratio)] {
            if value.is_some_and(|value| !value.is_finite()) {
                return Err(RequestError::malformed(name, "it is not a finite number"));
            }
        }
        let Self { min_score, max_ratio, .. } = *self;
        let (mutual, refine) = (self.mutual.unwrap_or(false), self.refine.map(Refinement::from).unwrap_or_default());
        Ok(MatchOptions { top_k, mutual, min_score, max_ratio, refine, ..MatchOptions::default() })
    }

    fn verify_options(&self) -> Result<Option<VerifyOptions>, RequestError> {
        let threshold_px = self.verify_threshold;
        if threshold_px.is_some_and(|threshold| !(threshold.is_finite() && threshold >= 1e-3)) {
            return Err(RequestError::malformed("verify_threshold", "it is not a number of at least 0.001 pixels"));
        }
        match self.verify {
            Some(model) => Ok(Some(VerifyOptions { model: model.into(), threshold_px })),
            None if threshold_px.is_some() => {
                Err(RequestError::conflict("`verify_threshold` is given, and `verify` is not"))
            }
            None => Ok(None),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: Uploaded = Uploaded { targets: 1, has_mask: false };

    fn task(query: &str, uploaded: Uploaded) -> Result<CorrespondenceTask, RequestError> {
        let mut parameters = Parameters::new(10);
        parameters.push_query(Some(query))?;
        parameters.read::<CorrespondenceQuery>()?.task(uploaded, 10)
    }

    #[test]
    fn a_mask_excludes_parameters_of_points() {
        let masked = Uploaded { has_mask: true, ..ONE };
        assert!(matches!(task("side=64&layer=res4&format=npy", masked), Ok(CorrespondenceTask::Labels)));
        let others = ["points=[[1,2]]", "grid=8", "top_k=2", "mutual=false", "min_score=0", "max_ratio=1"];
        let others = others.iter().chain(&["refine=none", "verify=homography", "format=heatmap"]);
        for query in others {
            assert!(matches!(task(query, masked), Err(RequestError::Conflict(_))), "{query}");
        }
    }

    #[test]
    fn heatmaps_need_points() {
        assert!(matches!(task("grid=8&format=heatmap", ONE), Ok(CorrespondenceTask::Heatmaps { .. })));
        assert!(matches!(task("format=heatmap", ONE), Err(RequestError::Conflict(_))));
        assert!(matches!(task("grid=8&format=heatmap&verify=homography", ONE), Err(RequestError::Conflict(_))));
    }

    #[test]
    fn a_threshold_is_a_length_and_needs_verify() {
        assert!(task("verify=fundamental&verify_threshold=2.5", ONE).is_ok());
        for query in ["verify=homography&verify_threshold=0", "verify=homography&verify_threshold=nan", "verify=affine"]
        {
            assert!(matches!(task(query, ONE), Err(RequestError::MalformedParameter { .. })), "{query}");
        }
        assert!(matches!(task("verify_threshold=3", ONE), Err(RequestError::Conflict(_))));
    }

    #[test]
    fn formats_depend_on_the_task() {
        use CorrespondenceFormat::{Json, Png, Safetensors};
        let formats = |query: &str, uploaded: Uploaded| -> Vec<CorrespondenceFormat> {
            offered(&task(query, uploaded).unwrap(), uploaded.targets).into_iter().map(|(format, _)| format).collect()
        };
        assert_eq!(formats("verify=homography", ONE), [Json, Safetensors, Png]);
        assert_eq!(formats("", Uploaded { targets: 2, ..ONE }), [Json, Safetensors]);
        assert_eq!(formats("", Uploaded { targets: 1, has_mask: true })[0], Png);
        assert_eq!(formats("", Uploaded { targets: 3, has_mask: true }), [Safetensors]);
        assert!(formats("grid=8&format=heatmap", Uploaded { targets: 2, ..ONE }).is_empty());
    }

    #[test]
    fn the_documented_words_are_the_ones_that_are_read() {
        let words = |schema: Schema| {
            let schema = serde_json::to_value(schema).unwrap();
            schema["enum"].as_array().unwrap().iter().map(|word| word.as_str().unwrap().to_owned()).collect::<Vec<_>>()
        };
        for (name, words) in
            [("refine", words(refinements())), ("verify", words(geometric_models())), ("format", words(formats()))]
        {
            for word in words {
                assert!(task(&format!("grid=9&{name}={word}"), ONE).is_ok(), "{name}={word}");
            }
        }
    }
}
