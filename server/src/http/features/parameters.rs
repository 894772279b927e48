//! The parameters of `POST /features`: as they are written, and as they are meant.

use axum::http::HeaderMap;
use serde::Deserialize;
use utoipa::IntoParams;
use utoipa::openapi::schema::Schema;

use densecl_vision::features::{CropBox, Dtype, Layout, NumberForm, Resolution};

use crate::http::reply::{ReplyFormat, negotiate, negotiate_among};
use crate::http::request::{Parameters, RequestError, one_of, read_points, read_text};
use crate::serving::features::{WantedFeatures, WantedPlaces};
use crate::serving::{Selection, SelectionChoice, Service};

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
    /// `grid`: one descriptor per cell. `pixel`: one per pixel of the image, bilinearly between the cells. `WxH`: so many across and down. Large replies are computed while they are sent.
    #[param(pattern = "^(grid|pixel|[0-9]+x[0-9]+)$", default = "grid")]
    resolution: Option<String>,
    /// `x,y,w,h` in whole pixels of the upright image: this window of the result. With `grid` the cells whose centres lie in it; with `WxH` so many places within the window. The whole image if not given.
    #[param(example = "0,0,320,240")]
    crop: Option<String>,
    /// `[[x, y], …]` in pixels of the upright image, (0, 0) being the centre of its top-left pixel: descriptors at these points, `[P, C]`, instead of a map.
    #[param(example = "[[12.5, 40]]")]
    points: Option<String>,
    /// Project the descriptors on so many principal components of the whole map, 1 to its channels, whichever part of it is asked for.
    #[param(minimum = 1)]
    components: Option<usize>,
    /// `l2`: every descriptor has length 1, also after it was interpolated or projected. `none`: as the model computes it.
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
    /// Format of the reply; what `Accept` prefers if not given, `json` for `*/*`. `png` shows the first three principal components as colours, a pixel for each of the image unless `resolution` is `WxH`. Several images: `json` or `safetensors`.
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
    Safetensors,
    Raw,
    Png,
}

impl ReplyFormat for FeaturesFormat {
    const OFFERED: &'static [(Self, &'static str)] = &[
        (Self::Json, "application/json"),
        (Self::Npy, "application/x-npy"),
        (Self::Safetensors, "application/x-safetensors"),
        (Self::Raw, "application/octet-stream"),
        (Self::Png, "image/png"),
    ];
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
    one_of(&["json", "npy", "safetensors", "raw", "png"])
}

/// Formats that hold several tensors.
const FOR_SEVERAL: &[(FeaturesFormat, &str)] =
    &[(FeaturesFormat::Json, "application/json"), (FeaturesFormat::Safetensors, "application/x-safetensors")];

/// As they are meant.
pub(super) struct FeaturesParameters {
    pub(super) selection: Selection,
    pub(super) wanted: WantedFeatures,
    pub(super) reply: ReplyOptions,
}

/// How the reply is written.
#[derive(Clone, Copy, Debug)]
pub(super) struct ReplyOptions {
    pub(super) format: FeaturesFormat,
    pub(super) dtype: Dtype,
    pub(super) layout: Layout,
    pub(super) encoding: Encoding,
    /// Whether several images are answered.
    pub(super) several: bool,
}

impl ReplyOptions {
    /// How numbers are written.
    pub(super) fn number_form(self) -> NumberForm {
        match (self.format, self.encoding) {
            (FeaturesFormat::Json, Encoding::Base64) => NumberForm::Base64(self.dtype),
            (FeaturesFormat::Json, Encoding::Array) => NumberForm::Decimal,
            _ => NumberForm::Binary(self.dtype),
        }
    }
}

impl FeaturesParameters {
    /// The parameters of a request with so many images.
    pub(super) fn read(
        service: &Service,
        parameters: &Parameters,
        headers: &HeaderMap,
        images: usize,
    ) -> Result<Self, RequestError> {
        let query: FeaturesQuery = parameters.read()?;
        let choice = SelectionChoice {
            model: query.model.as_deref(),
            version: query.version,
            layer: query.layer.as_deref(),
            side: query.side,
        };
        let selection = Selection::resolve(service, &choice)?;
        let format = match images {
            0 | 1 => negotiate(query.format, headers)?,
            _ => negotiate_among(FOR_SEVERAL, query.format, headers)?,
        };
        let places = query.places(format, service.limits().max_points)?;
        if query.components.is_some() && format == FeaturesFormat::Png {
            return Err(RequestError::conflict("`png` shows three components, so `components` has no place"));
        }
        let FeaturesQuery { components, normalize, dtype, layout, encoding, .. } = query;
        Ok(Self {
            selection,
            wanted: WantedFeatures { places, components, unit: normalize == Normalize::L2, layout },
            reply: ReplyOptions { format, dtype, layout, encoding, several: images > 1 },
        })
    }
}

impl FeaturesQuery {
    fn places(&self, format: FeaturesFormat, max_points: usize) -> Result<WantedPlaces, RequestError> {
        let resolution: Option<Resolution> = read_text("resolution", self.resolution.as_deref())?;
        let crop: Option<CropBox> = read_text("crop", self.crop.as_deref())?;
        let Some(text) = self.points.as_deref() else {
            return Ok(WantedPlaces::Window { crop, resolution: resolution.unwrap_or_default() });
        };
        let points = read_points(text, max_points)?;
        if format == FeaturesFormat::Png {
            return Err(RequestError::conflict("`points` gives descriptors, of which there is no `png`"));
        }
        if crop.is_some() || resolution.is_some_and(|resolution| resolution != Resolution::Grid) {
            return Err(RequestError::conflict(
                "`points` says where descriptors are wanted, and so do `crop` and `resolution`",
            ));
        }
        Ok(WantedPlaces::Points(points))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
