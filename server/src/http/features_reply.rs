//! Feature maps and descriptors as replies.

use axum::http::{HeaderName, HeaderValue, header};
use axum::response::{IntoResponse, Response};
use ndarray::{Array2, ArrayViewD};
use serde::Serialize;
use utoipa::ToSchema;

use super::features_parameters::{Encoding, FeaturesFormat, Normalize, ReplyOptions};
use super::negotiation::ReplyFormat;
use super::pipeline::{Extraction, FeatureId, stack};
use crate::batch::LayerOutput;
use crate::error::ApiError;
use crate::features::{
    Base64Tensor, Dtype, FeatureMap, ImagePoints, LayerScaling, Layout, NestedArray, components_picture,
    descriptors_at, encode_npy, encode_raw, l2_normalize_rows,
};
use crate::image::{ImageSize, encode_png};

pub(super) const MODEL: HeaderName = HeaderName::from_static("densecl-model");
pub(super) const LAYER: HeaderName = HeaderName::from_static("densecl-layer");
const SHAPE: HeaderName = HeaderName::from_static("densecl-shape");
const IMAGE_SIZE: HeaderName = HeaderName::from_static("densecl-image-size");
const FEATURE_ID: HeaderName = HeaderName::from_static("densecl-feature-id");

/// What every reply to one image carries.
pub(super) const HEADERS: [HeaderName; 5] = [MODEL, LAYER, SHAPE, IMAGE_SIZE, FEATURE_ID];

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

/// Pixels of the image per cell: a pixel coordinate is `(cell + 0.5) · scale − 0.5`.
#[derive(Clone, Copy, Debug, Serialize, ToSchema)]
pub(super) struct CellScaleDocument {
    /// Pixels a column.
    x: f64,
    /// Pixels a row.
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
    /// Of a map, not of descriptors at points.
    #[serde(skip_serializing_if = "Option::is_none")]
    cell_scale: Option<CellScaleDocument>,
    /// Of a map: `chw` or `hwc`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    layout: Option<Layout>,
    #[serde(flatten)]
    tensor: TensorDocument<'a>,
}

/// Numbers in JSON.
#[derive(Debug, Serialize, ToSchema)]
struct TensorDocument<'a> {
    /// `float32` or `float16`.
    #[schema(value_type = String)]
    dtype: Dtype,
    /// Sizes of the axes: `[C, h, w]`, `[h, w, C]`, or `[P, C]` at points.
    shape: Vec<usize>,
    /// `base64` or `array`.
    encoding: &'static str,
    /// Little-endian numbers in C order as base64; nested arrays of numbers if `encoding` is `array`.
    #[schema(value_type = String)]
    data: TensorData<'a>,
}

#[derive(Debug, Serialize)]
#[serde(untagged)]
enum TensorData<'a> {
    Base64(String),
    Array(NestedArray<'a>),
}

/// All that is needed to write a reply, but the layers.
pub(super) struct FeaturesReply {
    pub(super) extraction: Extraction,
    pub(super) size: ImageSize,
    pub(super) id: FeatureId,
    pub(super) points: Option<ImagePoints>,
    pub(super) options: ReplyOptions,
    pub(super) max_bytes: u64,
}

/// What the reply is about.
enum Features {
    Map(FeatureMap),
    /// `[P, C]`.
    Descriptors(Array2<f32>),
}

impl FeaturesReply {
    pub(super) fn write(&self, layers: Vec<LayerOutput>) -> Result<Response, ApiError> {
        let features = self.features(layers)?;
        let (shape, layout) = match &features {
            Features::Map(map) => (map.shape(self.options.layout).to_vec(), Some(self.options.layout)),
            Features::Descriptors(rows) => (rows.shape().to_vec(), None),
        };
        self.check_size(&shape)?;
        let body = match (self.options.format, &features) {
            (FeaturesFormat::Png, Features::Map(map)) => {
                encode_png(&components_picture(map, self.size)).map_err(ApiError::internal)?
            }
            (_, Features::Map(map)) => self.encode(map.view(self.options.layout).into_dyn(), layout)?,
            (_, Features::Descriptors(rows)) => self.encode(rows.view().into_dyn(), layout)?,
        };
        Ok((self.headers(&shape)?, body).into_response())
    }

    fn features(&self, layers: Vec<LayerOutput>) -> Result<Features, ApiError> {
        let is_unit = self.options.normalize == Normalize::L2;
        let map = if is_unit {
            stack(layers, LayerScaling::Unit)?.into_normalized().into_map()
        } else {
            stack(layers, LayerScaling::AsIs)?
        };
        let Some(points) = &self.points else { return Ok(Features::Map(map)) };
        let mut rows = descriptors_at(&map, self.size, points);
        if is_unit {
            l2_normalize_rows(&mut rows);
        }
        Ok(Features::Descriptors(rows))
    }

    /// Refuses a reply that would be too large before its bytes exist.
    fn check_size(&self, shape: &[usize]) -> Result<(), ApiError> {
        /// A float as JSON writes it, with its comma.
        const LONGEST_NUMBER: u64 = 16;
        let numbers: u64 = shape.iter().map(|&size| size as u64).product();
        let binary = numbers.saturating_mul(self.options.dtype.bytes() as u64);
        let bytes = match (self.options.format, self.options.encoding) {
            (FeaturesFormat::Npy | FeaturesFormat::Raw, _) => binary,
            (FeaturesFormat::Json, Encoding::Base64) => binary.div_ceil(3).saturating_mul(4),
            (FeaturesFormat::Json, Encoding::Array) => numbers.saturating_mul(LONGEST_NUMBER),
            (FeaturesFormat::Png, _) => self.size.pixels().saturating_mul(3),
        };
        if bytes > self.max_bytes {
            return Err(ApiError::ReplyTooLarge { bytes, limit: self.max_bytes });
        }
        Ok(())
    }

    fn encode(&self, tensor: ArrayViewD<'_, f32>, layout: Option<Layout>) -> Result<Vec<u8>, ApiError> {
        let dtype = self.options.dtype;
        match self.options.format {
            FeaturesFormat::Npy => Ok(encode_npy(tensor, dtype)),
            FeaturesFormat::Raw => Ok(encode_raw(tensor, dtype)),
            FeaturesFormat::Json | FeaturesFormat::Png => {
                let tensor = tensor_document(tensor, self.options);
                serde_json::to_vec(&self.document(tensor, layout)).map_err(ApiError::internal)
            }
        }
    }

    fn document<'a>(&'a self, tensor: TensorDocument<'a>, layout: Option<Layout>) -> FeaturesDocument<'a> {
        let cells = layout.map(|layout| match layout {
            Layout::Chw => (tensor.shape[2], tensor.shape[1]),
            Layout::Hwc => (tensor.shape[1], tensor.shape[0]),
        });
        let per_cell = |pixels: u32, cells: usize| f64::from(pixels) / cells as f64;
        FeaturesDocument {
            model: self.extraction.model.name(),
            version: self.extraction.model.version(),
            layer: self.extraction.layer_name(),
            image_size: self.size.into(),
            feature_id: self.id.to_string(),
            cell_scale: cells.map(|(columns, rows)| CellScaleDocument {
                x: per_cell(self.size.width, columns),
                y: per_cell(self.size.height, rows),
            }),
            layout,
            tensor,
        }
    }

    fn headers(&self, shape: &[usize]) -> Result<[(HeaderName, HeaderValue); 6], ApiError> {
        let model = &self.extraction.model;
        let shape = shape.iter().map(usize::to_string).collect::<Vec<_>>().join(",");
        let value = |text: String| HeaderValue::try_from(text).map_err(ApiError::internal);
        Ok([
            (header::CONTENT_TYPE, HeaderValue::from_static(media_type(self.options.format))),
            (MODEL, value(format!("{}/{}", model.name(), model.version()))?),
            (LAYER, value(self.extraction.layer_name())?),
            (SHAPE, value(shape)?),
            (IMAGE_SIZE, value(format!("{}x{}", self.size.width, self.size.height))?),
            (FEATURE_ID, value(self.id.to_string())?),
        ])
    }
}

fn tensor_document(tensor: ArrayViewD<'_, f32>, options: ReplyOptions) -> TensorDocument<'_> {
    match options.encoding {
        Encoding::Base64 => {
            let Base64Tensor { dtype, shape, encoding, data } = Base64Tensor::new(tensor, options.dtype);
            TensorDocument { dtype, shape, encoding, data: TensorData::Base64(data) }
        }
        // Numbers in text are neither 16 nor 32 bits wide; they are the ones that were computed.
        Encoding::Array => TensorDocument {
            dtype: Dtype::Float32,
            shape: tensor.shape().to_vec(),
            encoding: "array",
            data: TensorData::Array(NestedArray(tensor)),
        },
    }
}

/// The media type of one of the formats offered.
pub(super) fn media_type<F: ReplyFormat + PartialEq>(format: F) -> &'static str {
    let found = F::OFFERED.iter().find(|(offered, _)| *offered == format);
    found.map_or("application/octet-stream", |(_, media_type)| media_type)
}
