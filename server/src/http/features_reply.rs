//! Feature maps and descriptors as replies.

use std::sync::Arc;

use axum::http::{HeaderMap, HeaderName, HeaderValue, header};
use axum::response::{IntoResponse, Response};

use super::cpu_pool::CpuPool;
use super::features_document::Described;
use super::features_parameters::{FeaturesFormat, ReplyOptions};
use super::negotiation::media_type;
use super::pipeline::Extraction;
use super::reply_body::{PIECES_BYTES, ReplyBody};
use crate::cache::{CachedFeatures, FeatureId};
use crate::error::ApiError;
use densecl_vision::features::{
    EncodedTensor, FeatureMap, GridSize, Layout, Placement, Places, Rendering, Tensor, TensorEntry, npy_header,
    safetensors_header,
};
use densecl_vision::image::encode_png;

pub(super) const MODEL: HeaderName = HeaderName::from_static("densecl-model");
pub(super) const LAYER: HeaderName = HeaderName::from_static("densecl-layer");
const SHAPE: HeaderName = HeaderName::from_static("densecl-shape");
const IMAGE_SIZE: HeaderName = HeaderName::from_static("densecl-image-size");
const FEATURE_ID: HeaderName = HeaderName::from_static("densecl-feature-id");

/// What every reply to one image carries.
pub(super) const HEADERS: [HeaderName; 5] = [MODEL, LAYER, SHAPE, IMAGE_SIZE, FEATURE_ID];

/// What the images of a request have in common.
pub(super) struct FeaturesReply {
    pub(super) extraction: Extraction,
    pub(super) options: ReplyOptions,
    pub(super) max_bytes: u64,
    pub(super) cpu: CpuPool,
}

/// An image whose features are asked for.
pub(super) struct AskedImage {
    pub(super) id: FeatureId,
    pub(super) rendering: Rendering,
}

/// The features of an image, not yet computed where they lie between the cells.
struct ImageFeatures {
    asked: AskedImage,
    shape: Vec<usize>,
    placement: Option<Placement>,
    tensor: Arc<dyn Tensor>,
}

impl ImageFeatures {
    fn of(asked: AskedImage, features: &CachedFeatures) -> Result<Self, ApiError> {
        let map = map_of(&asked, features)?;
        let placement = match &asked.rendering.places {
            Places::Window(window) => Some(window.placement(map.grid())?),
            Places::Points(_) => None,
        };
        let tensor = asked.rendering.render(map)?;
        Ok(Self { shape: tensor.shape(), asked, placement, tensor })
    }
}

impl FeaturesReply {
    /// Refuses a reply that would be too large, or cannot be, by what the manifest says of the maps. Says how much
    /// memory it takes beside the maps and a copy of them.
    pub(super) fn check(&self, asked: &[AskedImage]) -> Result<u64, ApiError> {
        let (mut bytes, mut memory) = (0_u64, 0_u64);
        for (index, image) in asked.iter().enumerate() {
            let (channels, grid) = self.extraction.expected_map(image.rendering.image);
            let shape = self.shape(image, channels, grid).map_err(|error| self.of_image(index, error))?;
            let values = shape.iter().map(|&size| size as u64).product();
            memory = memory.saturating_add(image.rendering.extra_bytes(channels, grid));
            bytes = bytes.saturating_add(match self.options.format {
                FeaturesFormat::Png => {
                    // The picture, and its file.
                    memory = memory.saturating_add(2 * values);
                    values
                }
                _ => self.options.number_form().bytes(values),
            });
        }
        if bytes > self.max_bytes {
            return Err(ApiError::ReplyTooLarge { bytes, limit: self.max_bytes });
        }
        Ok(memory.saturating_add(bytes.min(PIECES_BYTES)))
    }

    fn shape(&self, image: &AskedImage, channels: usize, grid: GridSize) -> Result<Vec<usize>, ApiError> {
        match (self.options.format, &image.rendering.places) {
            (FeaturesFormat::Png, Places::Window(window)) => {
                let size = window.in_pixels().places(grid)?;
                Ok(vec![size.height, size.width, 3])
            }
            _ => Ok(image.rendering.shape(channels, grid)?),
        }
    }

    /// The reply, from the features of each image.
    pub(super) fn write(&self, images: Vec<(AskedImage, Arc<CachedFeatures>)>) -> Result<Response, ApiError> {
        if self.options.format == FeaturesFormat::Png {
            return self.write_picture(images);
        }
        let images = images.into_iter().enumerate().map(|(index, (asked, features))| {
            ImageFeatures::of(asked, &features).map_err(|error| self.of_image(index, error))
        });
        let images = images.collect::<Result<Vec<_>, _>>()?;
        let body = match self.options.format {
            FeaturesFormat::Json => self.json(&images)?,
            FeaturesFormat::Safetensors => self.safetensors(&images),
            FeaturesFormat::Npy => self.one(&images, npy_header(self.options.dtype, &images[0].shape)),
            FeaturesFormat::Raw | FeaturesFormat::Png => self.one(&images, Vec::new()),
        };
        let mut headers = self.headers()?;
        if let [image] = &images[..] {
            describe(&mut headers, &image.asked, &image.shape)?;
        }
        Ok((headers, body.into_body(self.cpu.clone())).into_response())
    }

    fn write_picture(&self, images: Vec<(AskedImage, Arc<CachedFeatures>)>) -> Result<Response, ApiError> {
        let (asked, features) = images.into_iter().next().ok_or(ApiError::EmptyBody)?;
        let picture = asked.rendering.picture(&map_of(&asked, &features)?);
        let shape = [picture.height() as usize, picture.width() as usize, 3];
        let mut headers = self.headers()?;
        describe(&mut headers, &asked, &shape)?;
        let file = encode_png(&picture).map_err(ApiError::internal)?;
        Ok((headers, file).into_response())
    }

    /// The numbers of the only image, after `head`.
    fn one(&self, images: &[ImageFeatures], head: Vec<u8>) -> ReplyBody {
        images.iter().fold(ReplyBody::from_bytes(head), |body, image| body.tensor(self.encoded(image)))
    }

    fn json(&self, images: &[ImageFeatures]) -> Result<ReplyBody, ApiError> {
        let mut body = ReplyBody::from_bytes(if self.options.several { "{\"images\":[" } else { "" });
        for (index, image) in images.iter().enumerate() {
            let (mut head, tail) =
                self.described(image).json(self.options.number_form()).map_err(ApiError::internal)?;
            if index > 0 {
                head.insert(0, ',');
            }
            body = body.bytes(head).tensor(self.encoded(image)).bytes(tail);
        }
        Ok(if self.options.several { body.bytes("]}") } else { body })
    }

    /// The tensor `features` of one image, `0`, `1`, … of several.
    fn safetensors(&self, images: &[ImageFeatures]) -> ReplyBody {
        let model = &self.extraction.model;
        let mut metadata = vec![
            ("model".to_owned(), model.name().to_owned()),
            ("version".to_owned(), model.version().to_string()),
            ("layer".to_owned(), self.extraction.layer_name()),
        ];
        let mut entries = Vec::new();
        for (index, image) in images.iter().enumerate() {
            let (name, prefix) = if self.options.several {
                (index.to_string(), format!("{index}."))
            } else {
                ("features".into(), String::new())
            };
            metadata.extend(self.described(image).metadata(&prefix));
            entries.push(TensorEntry { name, element: self.options.dtype.into(), shape: image.shape.clone() });
        }
        self.one(images, safetensors_header(&entries, &metadata))
    }

    fn encoded(&self, image: &ImageFeatures) -> EncodedTensor {
        EncodedTensor::new(Arc::clone(&image.tensor), self.options.number_form())
    }

    fn described<'a>(&'a self, image: &'a ImageFeatures) -> Described<'a> {
        let ImageFeatures { asked, shape, placement, .. } = image;
        let layout: Layout = self.options.layout;
        Described {
            extraction: &self.extraction,
            size: asked.rendering.image,
            id: &asked.id,
            shape,
            map: placement.map(|placement| (placement, layout)),
        }
    }

    /// Says which image an error is about, if there are several.
    pub(super) fn of_image(&self, index: usize, error: ApiError) -> ApiError {
        if self.options.several { error.of_image(format!("images[{index}]")) } else { error }
    }

    fn headers(&self) -> Result<HeaderMap, ApiError> {
        let model = &self.extraction.model;
        Ok(HeaderMap::from_iter([
            (header::CONTENT_TYPE, HeaderValue::from_static(media_type(self.options.format))),
            (MODEL, value(format!("{}/{}", model.name(), model.version()))?),
            (LAYER, value(self.extraction.layer_name())?),
        ]))
    }
}

/// The layers as one map: of unit descriptors if those are asked for, else of what the model computes.
fn map_of(asked: &AskedImage, features: &CachedFeatures) -> Result<FeatureMap, ApiError> {
    if asked.rendering.unit {
        return Ok(features.unit_map().map_err(ApiError::internal)?.into_map());
    }
    let raw = features.raw_map().map_err(ApiError::internal)?;
    raw.ok_or_else(|| ApiError::internal(anyhow::anyhow!("the layers were asked for")))
}

/// Adds what is said of one image.
fn describe(headers: &mut HeaderMap, asked: &AskedImage, shape: &[usize]) -> Result<(), ApiError> {
    let size = asked.rendering.image;
    headers.insert(SHAPE, value(shape.iter().map(usize::to_string).collect::<Vec<_>>().join(","))?);
    headers.insert(IMAGE_SIZE, value(format!("{}x{}", size.width, size.height))?);
    headers.insert(FEATURE_ID, value(asked.id.to_string())?);
    Ok(())
}

fn value(text: String) -> Result<HeaderValue, ApiError> {
    HeaderValue::try_from(text).map_err(ApiError::internal)
}
