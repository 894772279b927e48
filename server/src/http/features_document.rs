//! What the JSON replies of `POST /features` hold.

use serde::Serialize;
use utoipa::ToSchema;
use utoipa::openapi::schema::{ArrayBuilder, ObjectBuilder, OneOfBuilder, Schema, SchemaType, Type};

use super::pipeline::Extraction;
use crate::cache::FeatureId;
use densecl_vision::features::{CellScale, Dtype, Layout, NumberForm, PixelPoint, Placement};
use densecl_vision::image::ImageSize;

/// The features of one image, or of several.
#[derive(ToSchema)]
#[serde(untagged)]
#[expect(dead_code, reason = "it describes what is written piece by piece")]
pub(super) enum FeaturesJson<'a> {
    One(FeaturesDocument<'a>),
    Several(FeaturesListDocument<'a>),
}

/// The features of several images.
#[derive(ToSchema)]
#[expect(dead_code, reason = "it describes what is written piece by piece")]
pub(super) struct FeaturesListDocument<'a> {
    /// In the order of the images.
    images: Vec<FeaturesDocument<'a>>,
}

/// Width and height of an image.
#[derive(Clone, Copy, Debug, Serialize, ToSchema)]
pub(super) struct ImageSizeDocument {
    /// In pixels, after the EXIF orientation is applied.
    width: u32,
    /// In pixels, after the EXIF orientation is applied.
    height: u32,
}

impl From<ImageSize> for ImageSizeDocument {
    fn from(ImageSize { width, height }: ImageSize) -> Self {
        Self { width, height }
    }
}

/// Pixels of the image from one descriptor of a map to the next.
#[derive(Clone, Copy, Debug, Serialize, ToSchema)]
pub(super) struct CellScaleDocument {
    /// To the right.
    x: f64,
    /// Down.
    y: f64,
}

/// The features of one image.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct FeaturesDocument<'a> {
    /// Name of the model.
    model: &'a str,
    /// Version of the model.
    version: u32,
    /// The layer, or several joined by `+`.
    layer: String,
    /// Size of the image.
    image_size: ImageSizeDocument,
    /// Names the features by image, model, layer and side.
    feature_id: String,
    /// Of a map: the descriptor in column `i` and row `j` is at `cell_origin + (i, j) · cell_scale` in pixels of the image.
    #[serde(skip_serializing_if = "Option::is_none")]
    cell_scale: Option<CellScaleDocument>,
    /// Of a map: `[x, y]` in pixels of its first descriptor.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<[f64; 2]>)]
    cell_origin: Option<PixelPoint>,
    /// Of a map: `chw` or `hwc`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    layout: Option<Layout>,
    /// `float32` or `float16`; of nested arrays always `float32`.
    #[schema(value_type = String)]
    dtype: Dtype,
    /// Sizes of the axes: `[C, h, w]`, `[h, w, C]`, or `[P, C]` at points.
    shape: &'a [usize],
    /// `base64` or `array`.
    encoding: &'static str,
    /// Little-endian numbers in C order as base64; nested arrays of numbers if `encoding` is `array`.
    #[schema(schema_with = text_or_array)]
    data: DataPlace,
}

/// Where the numbers go, which are written while they are computed.
#[derive(Debug, Serialize)]
struct DataPlace(&'static str);

fn text_or_array() -> Schema {
    let text = ObjectBuilder::new().schema_type(SchemaType::new(Type::String));
    let array = ArrayBuilder::new().items(ObjectBuilder::new().schema_type(SchemaType::AnyValue));
    OneOfBuilder::new().item(text).item(array).into()
}

/// What a document says of an image beside its numbers.
pub(super) struct Described<'a> {
    pub(super) extraction: &'a Extraction,
    pub(super) size: ImageSize,
    pub(super) id: &'a FeatureId,
    pub(super) shape: &'a [usize],
    /// Of a map.
    pub(super) map: Option<(Placement, Layout)>,
}

impl Described<'_> {
    /// The text before the numbers and the text after them.
    pub(super) fn json(&self, form: NumberForm) -> Result<(String, &'static str), serde_json::Error> {
        let (dtype, encoding) = match form {
            // Numbers in text are neither 16 nor 32 bits wide; they are the ones that were computed.
            NumberForm::Decimal => (Dtype::Float32, "array"),
            NumberForm::Base64(dtype) | NumberForm::Binary(dtype) => (dtype, "base64"),
        };
        let placement = self.map.map(|(placement, _)| placement);
        let document = FeaturesDocument {
            model: self.extraction.model.name(),
            version: self.extraction.model.version(),
            layer: self.extraction.layer_name(),
            image_size: self.size.into(),
            feature_id: self.id.to_string(),
            cell_scale: placement.map(|Placement { scale: CellScale { x, y }, .. }| CellScaleDocument { x, y }),
            cell_origin: placement.map(|placement| placement.origin),
            layout: self.map.map(|(_, layout)| layout),
            dtype,
            shape: self.shape,
            encoding,
            data: DataPlace(""),
        };
        let mut text = serde_json::to_string(&document)?;
        // The document ends in its empty data, which give way to the numbers.
        let (empty, end) = match form {
            NumberForm::Decimal => (r#"""}"#, "}"),
            NumberForm::Base64(_) | NumberForm::Binary(_) => (r#""}"#, r#""}"#),
        };
        text.truncate(text.len() - empty.len());
        Ok((text, end))
    }

    /// The same as pairs of text, for the head of a safetensors file; names begin with `prefix`.
    pub(super) fn metadata(&self, prefix: &str) -> Vec<(String, String)> {
        let mut pairs = vec![
            ("image_size", format!("{}x{}", self.size.width, self.size.height)),
            ("feature_id", self.id.to_string()),
        ];
        if let Some((Placement { origin, scale }, layout)) = self.map {
            pairs.push(("layout", layout.name().to_owned()));
            pairs.push(("cell_origin", format!("{},{}", origin.x, origin.y)));
            pairs.push(("cell_scale", format!("{},{}", scale.x, scale.y)));
        }
        pairs.into_iter().map(|(name, value)| (format!("{prefix}{name}"), value)).collect()
    }
}
