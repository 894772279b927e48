//! JSON replies of `POST /features`.

use serde::Serialize;
use utoipa::openapi::schema::{ArrayBuilder, ObjectBuilder, OneOfBuilder, Schema, SchemaType, Type};
use utoipa::openapi::{Ref, RefOr};
use utoipa::{PartialSchema, ToSchema};

use densecl_vision::features::{Dtype, Layout, NumberForm, PixelPoint, Placement, Pooling};
use densecl_vision::image::ImageSize;

use crate::cache::FeatureId;
use crate::http::reply::{ImageSizeDocument, open_object};
use crate::serving::Selection;

/// The features of one image, the features of several, or the vectors of several. Schema only, as replies are written piece
/// by piece.
pub(super) struct FeaturesJson;

impl PartialSchema for FeaturesJson {
    fn schema() -> RefOr<Schema> {
        OneOfBuilder::new()
            .item(Ref::from_schema_name(FeaturesDocument::name()))
            .item(Ref::from_schema_name(FeaturesListDocument::name()))
            .item(Ref::from_schema_name(VectorsDocument::name()))
            .description(Some("The features of one image, the features of several, or the vectors of several."))
            .into()
    }
}

impl ToSchema for FeaturesJson {
    fn schemas(schemas: &mut Vec<(String, RefOr<Schema>)>) {
        FeaturesHead::schemas(schemas);
        VectorsHead::schemas(schemas);
        schemas.push((FeaturesDocument::name().into(), FeaturesDocument::schema()));
        schemas.push((FeaturesListDocument::name().into(), FeaturesListDocument::schema()));
        schemas.push((VectorsDocument::name().into(), VectorsDocument::schema()));
    }
}

/// The features of several images. Schema only.
struct FeaturesListDocument;

impl PartialSchema for FeaturesListDocument {
    fn schema() -> RefOr<Schema> {
        let images = ArrayBuilder::new()
            .items(Ref::from_schema_name(FeaturesDocument::name()))
            .description(Some("In the order of the images."));
        ObjectBuilder::new()
            .description(Some("The features of several images."))
            .property("images", images)
            .required("images")
            .into()
    }
}

impl ToSchema for FeaturesListDocument {}

/// The features of one image: a [`FeaturesHead`] and the member `data`. Schema only.
struct FeaturesDocument;

impl PartialSchema for FeaturesDocument {
    fn schema() -> RefOr<Schema> {
        with_numbers(FeaturesHead::schema())
    }
}

impl ToSchema for FeaturesDocument {}

/// The vectors of several images: a [`VectorsHead`] and the member `data`. Schema only.
struct VectorsDocument;

impl PartialSchema for VectorsDocument {
    fn schema() -> RefOr<Schema> {
        with_numbers(VectorsHead::schema())
    }
}

impl ToSchema for VectorsDocument {}

/// Adds the member `data` to the schema of an object.
fn with_numbers(head: RefOr<Schema>) -> RefOr<Schema> {
    let RefOr::T(Schema::Object(mut object)) = head else { return head };
    object.properties.insert("data".to_owned(), text_or_array());
    object.required.push("data".to_owned());
    Schema::Object(object).into()
}

/// Schema of the numbers: little-endian in C order as base64, or nested arrays if `encoding` is `array`.
fn text_or_array() -> RefOr<Schema> {
    let text = ObjectBuilder::new().schema_type(SchemaType::new(Type::String));
    let array = ArrayBuilder::new().items(ObjectBuilder::new().schema_type(SchemaType::AnyValue));
    OneOfBuilder::new().item(text).item(array).into()
}

/// Pixels of the image from one descriptor of a map to the next.
#[derive(Clone, Copy, Debug, Serialize, ToSchema)]
pub(super) struct CellScaleDocument {
    /// Pixels to the right.
    x: f64,
    /// Pixels down.
    y: f64,
}

/// The features of one image.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct FeaturesHead<'a> {
    /// Name of the model.
    model: &'a str,
    /// Version of the model.
    version: u32,
    /// The layer, or several joined by `+`; `global` for the vector of the model itself.
    layer: String,
    /// How the cells of the layer became one vector: `mean`, `max` or `gem`; for a pooled vector.
    #[serde(skip_serializing_if = "Option::is_none")]
    pool: Option<&'static str>,
    /// Size of the image.
    image_size: ImageSizeDocument,
    /// Identifies the features by image, model, layer and side: of a pooled vector, the map that it was pooled from.
    feature_id: String,
    /// Pixels from one descriptor to the next, for a map: the descriptor in column `i` and row `j` is at `cell_origin + (i, j) · cell_scale` in pixels of the image.
    #[serde(skip_serializing_if = "Option::is_none")]
    cell_scale: Option<CellScaleDocument>,
    /// Position of the first descriptor, `[x, y]` in pixels, for a map.
    #[serde(skip_serializing_if = "Option::is_none")]
    cell_origin: Option<[f64; 2]>,
    /// Order of the axes, for a map: `chw` or `hwc`.
    #[serde(skip_serializing_if = "Option::is_none")]
    layout: Option<&'static str>,
    /// Type of the numbers: `float32` or `float16`; always `float32` for nested arrays.
    dtype: &'static str,
    /// Sizes of the axes: `[C, h, w]`, `[h, w, C]`, `[P, C]` at points, or `[C]` for a vector.
    shape: &'a [usize],
    /// `base64` or `array`.
    encoding: &'static str,
}

/// The vectors of several images, one in each row of one matrix.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct VectorsHead<'a> {
    /// Name of the model.
    model: &'a str,
    /// Version of the model.
    version: u32,
    /// The layer, or several joined by `+`; `global` for the vector of the model itself.
    layer: String,
    /// How the cells of the layer became one vector: `mean`, `max` or `gem`; for pooled vectors.
    #[serde(skip_serializing_if = "Option::is_none")]
    pool: Option<&'static str>,
    /// The images, in their order, which is that of the rows.
    images: Vec<VectorImageDocument>,
    /// Type of the numbers: `float32` or `float16`; always `float32` for nested arrays.
    dtype: &'static str,
    /// Sizes of the axes: `[N, C]`.
    shape: &'a [usize],
    /// `base64` or `array`.
    encoding: &'static str,
}

/// An image whose vector is a row of a matrix.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct VectorImageDocument {
    /// Size of the image.
    image_size: ImageSizeDocument,
    /// Identifies the features by image, model, layer and side: of a pooled vector, the map that it was pooled from.
    feature_id: String,
}

/// Description of an image and its features, without the numbers.
pub(super) struct DescribedFeatures<'a> {
    pub(super) selection: &'a Selection,
    pub(super) size: ImageSize,
    pub(super) id: &'a FeatureId,
    pub(super) shape: &'a [usize],
    /// Set for a map, `None` for descriptors at points and vectors.
    pub(super) map: Option<(Placement, Layout)>,
    pub(super) pooling: Option<Pooling>,
}

/// Description of the vectors of several images, without the numbers.
pub(super) struct DescribedVectors<'a> {
    pub(super) selection: &'a Selection,
    pub(super) pooling: Option<Pooling>,
    pub(super) images: Vec<(ImageSize, &'a FeatureId)>,
    pub(super) shape: &'a [usize],
}

impl DescribedFeatures<'_> {
    /// Returns the JSON before and after the numbers.
    ///
    /// # Errors
    /// If the head cannot be serialised.
    pub(super) fn json(&self, form: NumberForm) -> Result<(Vec<u8>, &'static str), serde_json::Error> {
        let (dtype, encoding) = dtype_and_encoding(form);
        let placement = self.map.map(|(placement, _)| placement);
        let head = FeaturesHead {
            model: self.selection.model.name(),
            version: self.selection.model.version(),
            layer: self.selection.layer_name(),
            pool: self.pooling.map(Pooling::name),
            image_size: self.size.into(),
            feature_id: self.id.to_string(),
            cell_scale: placement.map(|Placement { scale, .. }| CellScaleDocument { x: scale.x, y: scale.y }),
            cell_origin: placement.map(|Placement { origin: PixelPoint { x, y }, .. }| [x, y]),
            layout: self.map.map(|(_, layout)| layout.name()),
            dtype: dtype.name(),
            shape: self.shape,
            encoding,
        };
        around_numbers(&head, form)
    }

    /// Metadata for the header of a safetensors file. Names begin with `prefix`.
    pub(super) fn metadata(&self, prefix: &str) -> Vec<(String, String)> {
        let mut pairs = image_metadata(self.size, self.id).to_vec();
        if let Some((Placement { origin, scale }, layout)) = self.map {
            pairs.push(("layout", layout.name().to_owned()));
            pairs.push(("cell_origin", format!("{},{}", origin.x, origin.y)));
            pairs.push(("cell_scale", format!("{},{}", scale.x, scale.y)));
        }
        pairs.into_iter().map(|(name, value)| (format!("{prefix}{name}"), value)).collect()
    }
}

impl DescribedVectors<'_> {
    /// Returns the JSON before and after the numbers.
    ///
    /// # Errors
    /// If the head cannot be serialised.
    pub(super) fn json(&self, form: NumberForm) -> Result<(Vec<u8>, &'static str), serde_json::Error> {
        let (dtype, encoding) = dtype_and_encoding(form);
        let image = |&(size, id): &(ImageSize, &FeatureId)| VectorImageDocument {
            image_size: size.into(),
            feature_id: id.to_string(),
        };
        let head = VectorsHead {
            model: self.selection.model.name(),
            version: self.selection.model.version(),
            layer: self.selection.layer_name(),
            pool: self.pooling.map(Pooling::name),
            images: self.images.iter().map(image).collect(),
            dtype: dtype.name(),
            shape: self.shape,
            encoding,
        };
        around_numbers(&head, form)
    }

    /// Metadata of the images for the header of a safetensors file. Names begin with the number of the row: `0.`, `1.`, ….
    pub(super) fn metadata(&self) -> Vec<(String, String)> {
        let of_image = |(row, &(size, id)): (usize, &(ImageSize, &FeatureId))| {
            image_metadata(size, id).map(|(name, value)| (format!("{row}.{name}"), value))
        };
        self.images.iter().enumerate().flat_map(of_image).collect()
    }
}

fn dtype_and_encoding(form: NumberForm) -> (Dtype, &'static str) {
    match form {
        // Numbers as text are those that were computed, which are float32.
        NumberForm::Decimal => (Dtype::Float32, "array"),
        NumberForm::Base64(dtype) | NumberForm::Binary(dtype) => (dtype, "base64"),
    }
}

/// The JSON of `head` up to the numbers, the value of its member `data`, and what follows them.
fn around_numbers(head: &impl Serialize, form: NumberForm) -> Result<(Vec<u8>, &'static str), serde_json::Error> {
    let mut json = open_object(head, "data")?;
    let end = match form {
        NumberForm::Decimal => "}",
        NumberForm::Base64(_) | NumberForm::Binary(_) => {
            json.push(b'"');
            "\"}"
        }
    };
    Ok((json, end))
}

fn image_metadata(size: ImageSize, id: &FeatureId) -> [(&'static str, String); 2] {
    [("image_size", format!("{}x{}", size.width, size.height)), ("feature_id", id.to_string())]
}
