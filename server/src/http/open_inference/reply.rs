//! Replies with outputs: one JSON document, or JSON followed by the numbers as bytes.

use std::ops::Range;
use std::sync::Arc;

use axum::http::{HeaderMap, HeaderName, HeaderValue, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use super::request::TensorForm;
use super::resolved_outputs::{ResolvedOutput, ResolvedOutputs};
use crate::http::reply::{ReplyBody, open_object};
use crate::serving::{CpuPool, ServingError};
use densecl_inference::batch::LayerOutput;
use densecl_inference::registry::ServedModel;
use densecl_vision::features::{CellWindow, EncodedTensor, FeatureMap, Tensor, l2_normalize_vector, pooled};
use ndarray::Array1;

/// Header with the number of bytes of a body that are JSON; the rest are tensors.
pub(in crate::http) const HEADER_LENGTH: HeaderName = HeaderName::from_static("inference-header-content-length");

/// Writer of the reply to a request.
pub(super) struct InferenceReplyWriter {
    pub(super) model: ServedModel,
    pub(super) id: Option<String>,
    pub(super) outputs: ResolvedOutputs,
}

impl InferenceReplyWriter {
    /// Writes the reply from the layers of each image, which are in the order of [`ResolvedOutputs::layers`].
    pub(super) fn write(self, images: Vec<Vec<LayerOutput>>, cpu: CpuPool) -> Result<Response, ServingError> {
        let tensors = self.tensors(images)?;
        let mut json = JsonParts::default();
        json.text(self.head()?);
        for (index, (output, tensor)) in self.outputs.outputs.iter().zip(&tensors).enumerate() {
            if index > 0 {
                json.text(",");
            }
            json.output(output, tensor)?;
        }
        json.text("]}");
        if !self.outputs.is_binary() {
            let content_type = HeaderValue::from_static("application/json");
            return Ok(([(header::CONTENT_TYPE, content_type)], json.streamed().into_body(cpu)).into_response());
        }
        // The header with the length of the JSON is sent before its first byte.
        let json = json.whole();
        let headers = HeaderMap::from_iter([
            (header::CONTENT_TYPE, HeaderValue::from_static("application/octet-stream")),
            (HEADER_LENGTH, HeaderValue::from(json.len())),
        ]);
        let binary = self.outputs.outputs.iter().zip(tensors).filter(|(output, _)| output.form == TensorForm::Binary);
        let body = binary.fold(ReplyBody::from_bytes(json), |body, (_, tensor)| body.tensor(tensor));
        Ok((headers, body.into_body(cpu)).into_response())
    }

    /// The JSON up to the first output.
    fn head(&self) -> Result<Vec<u8>, ServingError> {
        let version = self.model.version().to_string();
        let head = ReplyHead { model_name: self.model.name(), model_version: version, id: self.id.as_deref() };
        let mut json = open_object(&head, "outputs").map_err(ServingError::internal)?;
        json.push(b'[');
        Ok(json)
    }

    /// The outputs in the order of the request.
    fn tensors(&self, images: Vec<Vec<LayerOutput>>) -> Result<Vec<EncodedTensor>, ServingError> {
        let mut by_layer: Vec<Vec<LayerOutput>> = self.outputs.layers.names().iter().map(|_| Vec::new()).collect();
        for image in images {
            for (layer, output) in by_layer.iter_mut().zip(image) {
                layer.push(output);
            }
        }
        let tensor = |output: &ResolvedOutput| {
            let index = self.outputs.layers.names().iter().position(|name| *name == output.name);
            let images = index.map(|index| std::mem::take(&mut by_layer[index])).unwrap_or_default();
            let images = images.into_iter().map(|image| self.values(output, image));
            let tensor = OutputTensor { shape: output.shape.clone(), images: images.collect::<Result<_, _>>()? };
            Ok(EncodedTensor::new(Arc::new(tensor), output.number_form()))
        };
        self.outputs.outputs.iter().map(tensor).collect()
    }

    /// The values of an output of one image.
    fn values(&self, output: &ResolvedOutput, image: LayerOutput) -> Result<Vec<f32>, ServingError> {
        let LayerOutput { channels, height, width, data } = image;
        let mut vector = match output.pooling {
            Some(pooling) => {
                let map = FeatureMap::new(channels, height, width, data).map_err(ServingError::internal)?;
                pooled(&map, &CellWindow { columns: 0..width, rows: 0..height }, pooling)
            }
            None if self.outputs.normalize => Array1::from(data),
            None => return Ok(data),
        };
        if self.outputs.normalize {
            l2_normalize_vector(&mut vector);
        }
        Ok(vector.to_vec())
    }
}

/// The members of a reply before its outputs.
#[derive(Serialize)]
struct ReplyHead<'a> {
    model_name: &'a str,
    model_version: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<&'a str>,
}

/// The members of an output before its numbers, or all of them if the numbers follow as bytes.
#[derive(Serialize)]
struct OutputHead<'a> {
    name: &'a str,
    datatype: &'static str,
    shape: &'a [usize],
    #[serde(skip_serializing_if = "Option::is_none")]
    parameters: Option<OutputParameters>,
}

#[derive(Serialize)]
struct OutputParameters {
    binary_data_size: u64,
}

/// JSON in parts: text, and tensors whose numbers are not written yet.
#[derive(Default)]
struct JsonParts(Vec<JsonPart>);

enum JsonPart {
    Text(Vec<u8>),
    Numbers(EncodedTensor),
}

impl JsonParts {
    fn text(&mut self, text: impl Into<Vec<u8>>) {
        self.0.push(JsonPart::Text(text.into()));
    }

    /// Adds an output, with its numbers if they are sent as text.
    fn output(&mut self, output: &ResolvedOutput, tensor: &EncodedTensor) -> Result<(), ServingError> {
        let is_binary = output.form == TensorForm::Binary;
        let parameters = is_binary.then(|| OutputParameters { binary_data_size: output.reply_bytes() });
        let head = OutputHead { name: &output.name, datatype: "FP32", shape: &output.shape, parameters };
        if is_binary {
            self.text(serde_json::to_vec(&head).map_err(ServingError::internal)?);
            return Ok(());
        }
        self.text(open_object(&head, "data").map_err(ServingError::internal)?);
        self.0.push(JsonPart::Numbers(tensor.clone()));
        self.text("}");
        Ok(())
    }

    fn streamed(self) -> ReplyBody {
        self.0.into_iter().fold(ReplyBody::default(), |body, part| match part {
            JsonPart::Text(text) => body.bytes(text),
            JsonPart::Numbers(tensor) => body.tensor(tensor),
        })
    }

    fn whole(self) -> Vec<u8> {
        let mut json = Vec::new();
        for part in self.0 {
            match part {
                JsonPart::Text(text) => json.extend(text),
                JsonPart::Numbers(tensor) => (0..tensor.pieces()).for_each(|piece| json.extend(tensor.piece(piece))),
            }
        }
        json
    }
}

/// One output of all images, as one tensor.
struct OutputTensor {
    /// `[N, …]`.
    shape: Vec<usize>,
    /// Values of each image.
    images: Vec<Vec<f32>>,
}

impl Tensor for OutputTensor {
    fn shape(&self) -> Vec<usize> {
        self.shape.clone()
    }

    fn unit(&self) -> usize {
        1
    }

    fn append(&self, range: Range<usize>, values: &mut Vec<f32>) {
        let mut start = 0;
        for image in &self.images {
            let end = start + image.len();
            let from = range.start.clamp(start, end) - start;
            let to = range.end.clamp(start, end) - start;
            values.extend_from_slice(&image[from..to]);
            start = end;
        }
    }
}
