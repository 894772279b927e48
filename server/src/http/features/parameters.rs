//! Parameters of `POST /features`: raw ([`FeaturesQuery`]) and validated ([`FeaturesParameters`]).

use axum::http::HeaderMap;
use serde::Deserialize;
use utoipa::IntoParams;
use utoipa::openapi::schema::Schema;

use densecl_vision::features::{CropBox, Dtype, Layout, NumberForm, Pooling, Resolution};

use crate::http::reply::{ReplyFormat, negotiate, negotiate_among};
use crate::http::request::{Parameters, RequestError, read_points, read_text, word_schema};
use crate::serving::features::{RequestedFeatures, RequestedPlaces};
use crate::serving::{Selection, SelectionChoice, Service};

/// Raw parameters, from the query or from parts of the form.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct FeaturesQuery {
    /// Name of the model; the first one if not given.
    model: Option<String>,
    /// Version of the model; the newest if not given.
    version: Option<u32>,
    /// One layer, or several joined by `+`, such as `res3+res4`: upsampled to the finest and stacked (a hypercolumn). In a query `+` is written `%2B`. `global`, of models that have it: one vector for the whole image, `[D]`. The manifest's default if not given.
    layer: Option<String>,
    #[param(schema_with = poolings)]
    pool: Option<PoolingWord>,
    /// Pixels that the image's longer side is resized to, 32 to the server's limit; the manifest's default if not given.
    #[param(minimum = 32)]
    side: Option<u64>,
    /// `grid` (the default): one descriptor per cell. `pixel`: one per pixel of the image, interpolated bilinearly between the cells. `WxH`: W across and H down. Large replies are computed while they are sent.
    #[param(pattern = "^(grid|pixel|[0-9]+x[0-9]+)?$")]
    resolution: Option<String>,
    /// `x,y,w,h` in whole pixels of the upright image, such as `0,0,320,240`: only this window of the result. With `grid`, the cells whose centres lie in it; with `WxH`, W by H places within the window. The whole image if not given.
    crop: Option<String>,
    /// `[[x, y], …]` in pixels of the upright image, where (0, 0) is the centre of its top-left pixel, such as `[[12.5, 40]]`: descriptors at these points, `[P, C]`, instead of a map.
    points: Option<String>,
    /// Project the descriptors on this number of principal components, 1 to the map's channels. The components are those of the whole map, also with `crop` or `points`.
    #[param(minimum = 1)]
    components: Option<usize>,
    #[param(schema_with = normalizations)]
    #[serde(default)]
    normalize: Normalize,
    #[param(schema_with = dtypes)]
    #[serde(default)]
    dtype: DtypeWord,
    #[param(schema_with = layouts)]
    #[serde(default)]
    layout: LayoutWord,
    #[param(schema_with = encodings)]
    #[serde(default)]
    encoding: Encoding,
    #[param(schema_with = formats)]
    format: Option<FeaturesFormat>,
}

/// A way to make one vector of a map, as requests name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum PoolingWord {
    Mean,
    Max,
    Gem,
}

impl From<PoolingWord> for Pooling {
    fn from(word: PoolingWord) -> Self {
        match word {
            PoolingWord::Mean => Self::Mean,
            PoolingWord::Max => Self::Max,
            PoolingWord::Gem => Self::Gem,
        }
    }
}

/// Length of the descriptors.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Normalize {
    #[default]
    L2,
    None,
}

/// Encoding of the numbers in JSON.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Encoding {
    #[default]
    Base64,
    Array,
}

/// Type of the numbers, as requests name it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum DtypeWord {
    #[default]
    Float32,
    Float16,
}

impl From<DtypeWord> for Dtype {
    fn from(word: DtypeWord) -> Self {
        match word {
            DtypeWord::Float32 => Self::Float32,
            DtypeWord::Float16 => Self::Float16,
        }
    }
}

/// Order of a map's axes, as requests name it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum LayoutWord {
    #[default]
    Chw,
    Hwc,
}

impl From<LayoutWord> for Layout {
    fn from(word: LayoutWord) -> Self {
        match word {
            LayoutWord::Chw => Self::Chw,
            LayoutWord::Hwc => Self::Hwc,
        }
    }
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

fn poolings() -> Schema {
    word_schema(
        "One vector for each image instead of a map: `[C]`, and `[N, C]` for several images, which may have different sizes. Of the cells of each channel, `mean` is the mean, `max` the largest value, and `gem` the generalised mean `(mean of x³)^(1/3)` with every x at least 1e-6. What is pooled are the values of the model, as `normalize=none` gives them as a map; the vector is scaled to length 1 afterwards, unless `normalize=none`. With `crop`: of the cells whose centres lie in it. Not with `points`, `components`, `png`, or a `resolution` other than `grid`.",
        &Pooling::ALL.map(Pooling::name),
    )
}

fn normalizations() -> Schema {
    word_schema(
        "`l2` (the default): every descriptor has length 1, also after it was interpolated or projected, and a vector after it was pooled. `none`: as the model computes it.",
        &["l2", "none"],
    )
}

fn dtypes() -> Schema {
    word_schema("Type of the numbers; `float32` if not given.", &["float32", "float16"])
}

fn layouts() -> Schema {
    word_schema("Order of a map's axes: channels first (`chw`, the default) or last.", &["chw", "hwc"])
}

fn encodings() -> Schema {
    word_schema(
        "Encoding of the numbers in JSON: little-endian bytes in base64 (the default), or nested arrays.",
        &["base64", "array"],
    )
}

fn formats() -> Schema {
    word_schema(
        "Format of the reply; what `Accept` prefers if not given, `json` for `*/*`. `png` shows the first three principal components as colours, one pixel for each pixel of the image unless `resolution` is `WxH`. Several images: `json` or `safetensors`; vectors of several images also `npy` or `raw`.",
        &["json", "npy", "safetensors", "raw", "png"],
    )
}

/// Formats that hold several tensors.
const FOR_SEVERAL: &[(FeaturesFormat, &str)] =
    &[(FeaturesFormat::Json, "application/json"), (FeaturesFormat::Safetensors, "application/x-safetensors")];

/// Formats that hold vectors, of one image or of several.
const FOR_VECTORS: &[(FeaturesFormat, &str)] = &[
    (FeaturesFormat::Json, "application/json"),
    (FeaturesFormat::Npy, "application/x-npy"),
    (FeaturesFormat::Safetensors, "application/x-safetensors"),
    (FeaturesFormat::Raw, "application/octet-stream"),
];

/// Validated parameters.
pub(super) struct FeaturesParameters {
    pub(super) selection: Selection,
    pub(super) requested: RequestedFeatures,
    pub(super) reply: ReplyOptions,
}

/// Format of the reply.
#[derive(Clone, Copy, Debug)]
pub(super) struct ReplyOptions {
    pub(super) format: FeaturesFormat,
    pub(super) dtype: Dtype,
    pub(super) layout: Layout,
    pub(super) encoding: Encoding,
    /// How the cells of a map became a vector, if they did.
    pub(super) pooling: Option<Pooling>,
    /// True if the reply is about several images.
    pub(super) several: bool,
}

impl ReplyOptions {
    /// Encoding of the reply's numbers.
    pub(super) fn number_form(self) -> NumberForm {
        match (self.format, self.encoding) {
            (FeaturesFormat::Json, Encoding::Base64) => NumberForm::Base64(self.dtype),
            (FeaturesFormat::Json, Encoding::Array) => NumberForm::Decimal,
            _ => NumberForm::Binary(self.dtype),
        }
    }
}

impl FeaturesParameters {
    /// Validates the parameters of a request with this number of images.
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
        let pooled = query.pooled_places(selection.is_global())?;
        let format = match (&pooled, images) {
            (Some(_), _) => negotiate_among(FOR_VECTORS, query.format, headers)?,
            (None, 0 | 1) => negotiate(query.format, headers)?,
            (None, _) => negotiate_among(FOR_SEVERAL, query.format, headers)?,
        };
        let places = pooled.map_or_else(|| query.places(format, service.limits().max_points), Ok)?;
        if query.components.is_some() && format == FeaturesFormat::Png {
            return Err(RequestError::conflict("`png` shows three components, so `components` has no place"));
        }
        let FeaturesQuery { components, normalize, encoding, .. } = query;
        let (dtype, layout, pooling) = (query.dtype.into(), query.layout.into(), query.pool.map(Pooling::from));
        Ok(Self {
            selection,
            requested: RequestedFeatures { places, components, unit: normalize == Normalize::L2, layout },
            reply: ReplyOptions { format, dtype, layout, encoding, pooling, several: images > 1 },
        })
    }
}

impl FeaturesQuery {
    /// The places of a request for vectors: of pooled maps, or of the model's `global`. `None` for any other request.
    fn pooled_places(&self, is_global: bool) -> Result<Option<RequestedPlaces>, RequestError> {
        let vector = match (self.pool, is_global) {
            (None, false) => return Ok(None),
            (Some(_), false) => "pool",
            (None, true) => "layer=global",
            (Some(_), true) => {
                let reason = "`layer=global` is one vector for each image already, so `pool` has no place";
                return Err(RequestError::conflict(reason));
            }
        };
        let resolution: Option<Resolution> = read_text("resolution", self.resolution.as_deref())?;
        let of_a_map = [
            ("points", self.points.is_some()),
            ("resolution", resolution.is_some_and(|resolution| resolution != Resolution::Grid)),
            ("components", self.components.is_some()),
            ("png", self.format == Some(FeaturesFormat::Png)),
            ("crop", is_global && self.crop.is_some()),
        ];
        if let Some((name, _)) = of_a_map.iter().find(|(_, is_given)| *is_given) {
            let reason = format!("`{vector}` gives one vector for each image, and `{name}` is about a map");
            return Err(RequestError::Conflict(reason));
        }
        let crop = read_text("crop", self.crop.as_deref())?;
        // The mean of the one cell of `global` is the cell.
        let pooling = self.pool.map_or(Pooling::Mean, Pooling::from);
        Ok(Some(RequestedPlaces::Pooled { crop, pooling }))
    }

    fn places(&self, format: FeaturesFormat, max_points: usize) -> Result<RequestedPlaces, RequestError> {
        let resolution: Option<Resolution> = read_text("resolution", self.resolution.as_deref())?;
        let crop: Option<CropBox> = read_text("crop", self.crop.as_deref())?;
        let Some(text) = self.points.as_deref() else {
            return Ok(RequestedPlaces::Window { crop, resolution: resolution.unwrap_or_default() });
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
        Ok(RequestedPlaces::Points(points))
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
            ("pool", words(poolings())),
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

    #[test]
    fn a_vector_excludes_what_is_about_a_map() {
        let pooled = |query: &str, is_global: bool| {
            let mut parameters = Parameters::new(9);
            parameters.push_query(Some(query)).unwrap();
            parameters.read::<FeaturesQuery>().unwrap().pooled_places(is_global)
        };
        assert!(matches!(pooled("resolution=pixel&components=3", false), Ok(None)));
        assert!(matches!(
            pooled("pool=gem&crop=0,0,9,9&resolution=grid&format=npy", false),
            Ok(Some(RequestedPlaces::Pooled { crop: Some(_), pooling: Pooling::Gem }))
        ));
        assert!(matches!(pooled("normalize=none", true), Ok(Some(RequestedPlaces::Pooled { crop: None, .. }))));
        for query in ["points=[[1,2]]", "resolution=pixel", "resolution=8x8", "components=3", "format=png"] {
            for (query, is_global) in [(format!("pool=mean&{query}"), false), (query.to_owned(), true)] {
                assert!(matches!(pooled(&query, is_global), Err(RequestError::Conflict(_))), "{query}");
            }
        }
        for query in ["crop=0,0,9,9", "pool=max"] {
            assert!(matches!(pooled(query, true), Err(RequestError::Conflict(_))), "{query}");
        }
    }
}
