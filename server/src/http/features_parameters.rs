//! The parameters of `POST /features`: as they are written, and as they are meant.

use axum::http::HeaderMap;
use serde::Deserialize;
use utoipa::IntoParams;
use utoipa::openapi::schema::Schema;

use super::negotiation::{ReplyFormat, negotiate};
use super::parameters::{Parameters, one_of, read_points};
use super::pipeline::{Extraction, ExtractionChoice};
use super::state::AppState;
use crate::error::ApiError;
use crate::features::{Dtype, Layout, PixelPoint};

/// As they are written, in the query or as parts of the form.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct FeaturesQuery {
    /// Name of the model; the first one if not given.
    model: Option<String>,
    /// Version of the model; the newest if not given.
    version: Option<u32>,
    /// One layer, or several joined by `+`: upsampled to the finest and stacked (a hypercolumn). The manifest's default if not given. In a query `+` is written `%2B`.
    #[param(example = "res3+res4")]
    layer: Option<String>,
    /// Pixels that the image's longer side is resized to, 32 to the server's limit; the manifest's default if not given.
    #[param(minimum = 32)]
    side: Option<u64>,
    /// `grid`: one descriptor per cell. Other resolutions are not supported yet.
    #[param(schema_with = resolutions)]
    resolution: Option<String>,
    /// `[[x, y], …]` in pixels of the upright image, (0, 0) being the centre of its top-left pixel: descriptors at these points, `[P, C]`, instead of a map.
    #[param(example = "[[12.5, 40]]")]
    points: Option<String>,
    /// `l2`: every descriptor has length 1. `none`: as the model computes it.
    #[param(schema_with = normalizations)]
    #[serde(default)]
    normalize: Normalize,
    /// Type of the numbers.
    #[param(schema_with = dtypes)]
    #[serde(default)]
    dtype: Dtype,
    /// Order of a map's axes: channels first or last.
    #[param(schema_with = layouts)]
    #[serde(default)]
    layout: Layout,
    /// How JSON holds the numbers: little-endian bytes in base64, or nested arrays.
    #[param(schema_with = encodings)]
    #[serde(default)]
    encoding: Encoding,
    /// Format of the reply; what `Accept` prefers if not given, `json` for `*/*`. `png` shows the first three principal components as colours, at the image's size.
    #[param(schema_with = formats)]
    format: Option<FeaturesFormat>,
}

/// Length of the descriptors.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Normalize {
    #[default]
    L2,
    None,
}

/// How JSON holds numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Encoding {
    #[default]
    Base64,
    Array,
}

/// The formats of a reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum FeaturesFormat {
    Json,
    Npy,
    Raw,
    Png,
}

impl ReplyFormat for FeaturesFormat {
    const OFFERED: &'static [(Self, &'static str)] = &[
        (Self::Json, "application/json"),
        (Self::Npy, "application/x-npy"),
        (Self::Raw, "application/octet-stream"),
        (Self::Png, "image/png"),
    ];
}

fn resolutions() -> Schema {
    one_of(&["grid"])
}

fn normalizations() -> Schema {
    one_of(&["l2", "none"])
}

fn dtypes() -> Schema {
    one_of(&["float32", "float16"])
}

fn layouts() -> Schema {
    one_of(&["chw", "hwc"])
}

fn encodings() -> Schema {
    one_of(&["base64", "array"])
}

fn formats() -> Schema {
    one_of(&["json", "npy", "raw", "png"])
}

/// As they are meant.
pub(super) struct FeaturesParameters {
    pub(super) extraction: Extraction,
    /// Not yet known to lie in the image.
    pub(super) points: Option<Vec<PixelPoint>>,
    pub(super) reply: ReplyOptions,
}

/// How the reply is written.
#[derive(Clone, Copy, Debug)]
pub(super) struct ReplyOptions {
    pub(super) normalize: Normalize,
    pub(super) dtype: Dtype,
    pub(super) layout: Layout,
    pub(super) encoding: Encoding,
    pub(super) format: FeaturesFormat,
}

impl FeaturesParameters {
    pub(super) fn read(app: &AppState, parameters: &Parameters, headers: &HeaderMap) -> Result<Self, ApiError> {
        let query: FeaturesQuery = parameters.read()?;
        check_resolution(query.resolution.as_deref())?;
        let extraction = Extraction::resolve(
            app,
            &ExtractionChoice {
                model: query.model.as_deref(),
                version: query.version,
                layer: query.layer.as_deref(),
                side: query.side,
            },
        )?;
        let max_points = app.config().limits.max_points;
        let points = query.points.as_deref().map(|text| read_points(text, max_points)).transpose()?;
        let format = negotiate(query.format, headers)?;
        if points.is_some() && format == FeaturesFormat::Png {
            return Err(ApiError::Conflict("`points` gives descriptors, of which there is no `png`".to_owned()));
        }
        let FeaturesQuery { normalize, dtype, layout, encoding, .. } = query;
        Ok(Self { extraction, points, reply: ReplyOptions { normalize, dtype, layout, encoding, format } })
    }
}

fn check_resolution(resolution: Option<&str>) -> Result<(), ApiError> {
    let is_size = |text: &str| {
        text.split_once('x').is_some_and(|(width, height)| {
            [width, height].iter().all(|side| side.parse::<u32>().is_ok_and(|side| side > 0))
        })
    };
    match resolution {
        None | Some("grid") => Ok(()),
        Some(text) if text == "pixel" || is_size(text) => {
            Err(ApiError::NotSupported(format!("resolution `{text}` is not supported yet, only `grid`")))
        }
        Some(text) => Err(ApiError::MalformedParameter {
            name: "resolution".to_owned(),
            reason: format!("`{text}` is not a resolution: use grid"),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_resolution_that_will_come_is_told_from_a_wrong_one() {
        assert!(check_resolution(Some("grid")).is_ok());
        for later in ["pixel", "640x480"] {
            assert!(matches!(check_resolution(Some(later)), Err(ApiError::NotSupported(_))), "{later}");
        }
        for wrong in ["full", "0x5", "x", "640x", "-1x5"] {
            assert!(matches!(check_resolution(Some(wrong)), Err(ApiError::MalformedParameter { .. })), "{wrong}");
        }
    }

    #[test]
    fn the_documented_words_are_the_ones_that_are_read() {
        let words = |schema: Schema| {
            let schema = serde_json::to_value(schema).unwrap();
            schema["enum"].as_array().unwrap().iter().map(|word| word.as_str().unwrap().to_owned()).collect::<Vec<_>>()
        };
        let all = [
            ("normalize", words(normalizations())),
            ("dtype", words(dtypes())),
            ("layout", words(layouts())),
            ("encoding", words(encodings())),
            ("format", words(formats())),
        ];
        for (name, words) in all {
            for word in words {
                let mut parameters = Parameters::new(0);
                parameters.push_query(Some(&format!("{name}={word}"))).unwrap();
                assert!(parameters.read::<FeaturesQuery>().is_ok(), "{name}={word}");
            }
        }
    }
}
