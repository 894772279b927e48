//! Feature maps and descriptors as replies.

use std::sync::Arc;

use axum::http::{HeaderMap, HeaderName, HeaderValue, header};
use axum::response::{IntoResponse, Response};

use densecl_vision::features::{
    EncodedTensor, GridSize, Layout, Placement, Places, Tensor, TensorEntry, npy_header, safetensors_header,
};
use densecl_vision::image::encode_png;
use ndarray::{Array1, Array2};

use super::document::{DescribedFeatures, DescribedVectors};
use super::parameters::{FeaturesFormat, ReplyOptions};
use crate::cache::CachedFeatures;
use crate::http::reply::{PIECES_BYTES, ReplyBody, media_type};
use crate::serving::features::{ImageRendering, name_image_if_several};
use crate::serving::{CpuPool, Selection, Service, ServingError};

pub(in crate::http) const MODEL: HeaderName = HeaderName::from_static("densecl-model");
pub(in crate::http) const LAYER: HeaderName = HeaderName::from_static("densecl-layer");
const SHAPE: HeaderName = HeaderName::from_static("densecl-shape");
const IMAGE_SIZE: HeaderName = HeaderName::from_static("densecl-image-size");
const FEATURE_ID: HeaderName = HeaderName::from_static("densecl-feature-id");

/// Headers of every reply to one image.
pub(in crate::http) const HEADERS: [HeaderName; 5] = [MODEL, LAYER, SHAPE, IMAGE_SIZE, FEATURE_ID];

/// Properties that all images of a reply share.
pub(super) struct FeaturesReply {
    selection: Selection,
    options: ReplyOptions,
    max_bytes: u64,
    cpu: CpuPool,
}

/// Features of an image, which may be interpolated while they are sent.
struct ImageFeatures {
    requested: ImageRendering,
    shape: Vec<usize>,
    placement: Option<Placement>,
    tensor: Arc<dyn Tensor>,
}

impl ImageFeatures {
    fn new(image: ImageRendering, features: &CachedFeatures) -> Result<Self, ServingError> {
        let map = image.stacked_map(features)?;
        let placement = match &image.rendering.places {
            Places::Window(window) => Some(window.placement(map.grid())?),
            Places::Points(_) | Places::Pooled(..) => None,
        };
        let tensor = image.rendering.render(map)?;
        Ok(Self { shape: tensor.shape(), requested: image, placement, tensor })
    }

    /// The features of an image of which there is only a vector.
    fn from_vector((requested, vector): (ImageRendering, Vec<f32>)) -> Self {
        Self { shape: vec![vector.len()], requested, placement: None, tensor: Arc::new(Array1::from(vector)) }
    }
}

impl FeaturesReply {
    /// Creates a reply by `options`, within the limits of `service`.
    pub(super) fn new(service: &Service, selection: Selection, options: ReplyOptions) -> Self {
        Self { selection, options, max_bytes: service.limits().max_response_bytes, cpu: service.cpu().clone() }
    }

    /// Checks, by the shapes of the manifest, that the reply is possible and not too large. Returns the bytes of memory
    /// that it takes beside the maps and a copy of them.
    pub(super) fn check(&self, images: &[ImageRendering]) -> Result<u64, ServingError> {
        let (mut bytes, mut memory) = (0_u64, 0_u64);
        for (index, image) in images.iter().enumerate() {
            let (channels, grid) = self.selection.expected_map(image.rendering.image);
            let shape = self
                .shape(image, channels, grid)
                .map_err(|error| name_image_if_several(self.options.several, index, error))?;
            let values = shape.iter().map(|&size| size as u64).product();
            memory = memory.saturating_add(image.rendering.extra_bytes(channels, grid));
            bytes = bytes.saturating_add(match self.options.format {
                FeaturesFormat::Png => {
                    // The image and its file.
                    memory = memory.saturating_add(2 * values);
                    values
                }
                _ => self.options.number_form().bytes(values),
            });
        }
        if bytes > self.max_bytes {
            return Err(ServingError::ReplyTooLarge { bytes, limit: self.max_bytes });
        }
        Ok(memory.saturating_add(bytes.min(PIECES_BYTES)))
    }

    fn shape(&self, image: &ImageRendering, channels: usize, grid: GridSize) -> Result<Vec<usize>, ServingError> {
        match (self.options.format, &image.rendering.places) {
            (FeaturesFormat::Png, Places::Window(window)) => {
                let size = window.in_pixels().places(grid)?;
                Ok(vec![size.height, size.width, 3])
            }
            _ => Ok(image.rendering.shape(channels, grid)?),
        }
    }

    /// Writes the reply from the features of each image.
    pub(super) fn write(&self, images: Vec<(ImageRendering, Arc<CachedFeatures>)>) -> Result<Response, ServingError> {
        if self.options.format == FeaturesFormat::Png {
            return self.write_picture(images);
        }
        let images = images.into_iter().enumerate().map(|(index, (image, features))| {
            ImageFeatures::new(image, &features)
                .map_err(|error| name_image_if_several(self.options.several, index, error))
        });
        self.write_images(&images.collect::<Result<Vec<_>, _>>()?)
    }

    /// Writes the reply from the vector of each image.
    pub(super) fn write_vectors(&self, images: Vec<(ImageRendering, Vec<f32>)>) -> Result<Response, ServingError> {
        if !self.options.several {
            return self.write_images(&images.into_iter().map(ImageFeatures::from_vector).collect::<Vec<_>>());
        }
        let (requested, vectors): (Vec<_>, Vec<_>) = images.into_iter().unzip();
        let shape = [vectors.len(), vectors.first().map_or(0, Vec::len)];
        let matrix = Array2::from_shape_vec(shape, vectors.concat()).map_err(ServingError::internal)?;
        let described = DescribedVectors {
            selection: &self.selection,
            pooling: self.options.pooling,
            images: requested.iter().map(|image| (image.rendering.image, &image.id)).collect(),
            shape: &shape,
        };
        let form = self.options.number_form();
        let head = match self.options.format {
            FeaturesFormat::Json => None,
            FeaturesFormat::Npy => Some(npy_header(self.options.dtype, &shape)),
            FeaturesFormat::Safetensors => {
                let entry = self.entry("features".to_owned(), &shape);
                Some(safetensors_header(&[entry], &[self.metadata(), described.metadata()].concat()))
            }
            FeaturesFormat::Raw | FeaturesFormat::Png => Some(Vec::new()),
        };
        let (head, tail) = match head {
            Some(head) => (head, ""),
            None => described.json(form).map_err(ServingError::internal)?,
        };
        let body = ReplyBody::from_bytes(head).tensor(EncodedTensor::new(Arc::new(matrix), form)).bytes(tail);
        let mut headers = self.headers()?;
        headers.insert(SHAPE, shape_value(&shape)?);
        Ok((headers, body.into_body(self.cpu.clone())).into_response())
    }

    fn write_images(&self, images: &[ImageFeatures]) -> Result<Response, ServingError> {
        let body = match self.options.format {
            FeaturesFormat::Json => self.json(images)?,
            FeaturesFormat::Safetensors => self.safetensors(images),
            FeaturesFormat::Npy => {
                let [image] = images else { return Err(no_image()) };
                self.binary(images, npy_header(self.options.dtype, &image.shape))
            }
            FeaturesFormat::Raw | FeaturesFormat::Png => self.binary(images, Vec::new()),
        };
        let mut headers = self.headers()?;
        if let [image] = images {
            add_image_headers(&mut headers, &image.requested, &image.shape)?;
        }
        Ok((headers, body.into_body(self.cpu.clone())).into_response())
    }

    fn write_picture(&self, images: Vec<(ImageRendering, Arc<CachedFeatures>)>) -> Result<Response, ServingError> {
        let (image, features) = images.into_iter().next().ok_or_else(no_image)?;
        let picture = image.rendering.picture(&image.stacked_map(&features)?);
        let shape = [picture.height() as usize, picture.width() as usize, 3];
        let mut headers = self.headers()?;
        add_image_headers(&mut headers, &image, &shape)?;
        let file = encode_png(&picture).map_err(ServingError::internal)?;
        Ok((headers, file).into_response())
    }

    /// `head`, followed by the numbers of all images.
    fn binary(&self, images: &[ImageFeatures], head: Vec<u8>) -> ReplyBody {
        images.iter().fold(ReplyBody::from_bytes(head), |body, image| body.tensor(self.encoded(image)))
    }

    fn json(&self, images: &[ImageFeatures]) -> Result<ReplyBody, ServingError> {
        let mut body = ReplyBody::from_bytes(if self.options.several { "{\"images\":[" } else { "" });
        for (index, image) in images.iter().enumerate() {
            let (mut head, tail) =
                self.described(image).json(self.options.number_form()).map_err(ServingError::internal)?;
            if index > 0 {
                head.insert(0, b',');
            }
            body = body.bytes(head).tensor(self.encoded(image)).bytes(tail);
        }
        Ok(if self.options.several { body.bytes("]}") } else { body })
    }

    /// A safetensors file: the tensor `features` for one image, `0`, `1`, … for several.
    fn safetensors(&self, images: &[ImageFeatures]) -> ReplyBody {
        let mut metadata = self.metadata();
        let mut entries = Vec::new();
        for (index, image) in images.iter().enumerate() {
            let (name, prefix) = if self.options.several {
                (index.to_string(), format!("{index}."))
            } else {
                ("features".into(), String::new())
            };
            metadata.extend(self.described(image).metadata(&prefix));
            entries.push(self.entry(name, &image.shape));
        }
        self.binary(images, safetensors_header(&entries, &metadata))
    }

    fn entry(&self, name: String, shape: &[usize]) -> TensorEntry {
        TensorEntry { name, element: self.options.dtype.into(), shape: shape.to_vec() }
    }

    /// Metadata of all images for the header of a safetensors file.
    fn metadata(&self) -> Vec<(String, String)> {
        let model = &self.selection.model;
        let mut pairs = vec![
            ("model", model.name().to_owned()),
            ("version", model.version().to_string()),
            ("layer", self.selection.layer_name()),
        ];
        pairs.extend(self.options.pooling.map(|pooling| ("pool", pooling.name().to_owned())));
        pairs.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
    }

    fn encoded(&self, image: &ImageFeatures) -> EncodedTensor {
        EncodedTensor::new(Arc::clone(&image.tensor), self.options.number_form())
    }

    fn described<'a>(&'a self, image: &'a ImageFeatures) -> DescribedFeatures<'a> {
        let ImageFeatures { requested, shape, placement, .. } = image;
        let layout: Layout = self.options.layout;
        DescribedFeatures {
            selection: &self.selection,
            size: requested.rendering.image,
            id: &requested.id,
            shape,
            map: placement.map(|placement| (placement, layout)),
            pooling: self.options.pooling,
        }
    }

    fn headers(&self) -> Result<HeaderMap, ServingError> {
        let model = &self.selection.model;
        Ok(HeaderMap::from_iter([
            (header::CONTENT_TYPE, HeaderValue::from_static(media_type(self.options.format))),
            (MODEL, value(format!("{}/{}", model.name(), model.version()))?),
            (LAYER, value(self.selection.layer_name())?),
        ]))
    }
}

/// Adds the headers of one image.
fn add_image_headers(headers: &mut HeaderMap, image: &ImageRendering, shape: &[usize]) -> Result<(), ServingError> {
    let size = image.rendering.image;
    headers.insert(SHAPE, shape_value(shape)?);
    headers.insert(IMAGE_SIZE, value(format!("{}x{}", size.width, size.height))?);
    headers.insert(FEATURE_ID, value(image.id.to_string())?);
    Ok(())
}

fn shape_value(shape: &[usize]) -> Result<HeaderValue, ServingError> {
    value(shape.iter().map(usize::to_string).collect::<Vec<_>>().join(","))
}

fn no_image() -> ServingError {
    ServingError::internal(anyhow::anyhow!("a request has an image"))
}

fn value(text: String) -> Result<HeaderValue, ServingError> {
    HeaderValue::try_from(text).map_err(ServingError::internal)
}
