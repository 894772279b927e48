//! Outputs as replies: all in one JSON document, or its numbers as bytes behind it.

use std::ops::Range;
use std::sync::Arc;

use axum::http::{HeaderMap, HeaderName, HeaderValue, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use super::request::TensorForm;
use super::wanted::{WantedOutput, WantedOutputs};
use crate::http::reply::{ReplyBody, open_object};
use crate::serving::{CpuPool, ServingError};
use densecl_inference::batch::LayerOutput;
use densecl_inference::registry::ServedModel;
use densecl_vision::features::{EncodedTensor, Tensor};

/// How many bytes of a body are JSON; the rest are tensors.
pub(super) const HEADER_LENGTH: HeaderName = HeaderName::from_static("inference-header-content-length");

/// What the reply to a request says.
pub(super) struct Reply {
    pub(super) model: ServedModel,
    pub(super) id: Option<String>,
    pub(super) wanted: WantedOutputs,
}

impl Reply {
    /// Writes it, from the layers of each image, which are in the order of [`WantedOutputs::layers`].
    pub(super) fn write(self, images: Vec<Vec<LayerOutput>>, cpu: CpuPool) -> Result<Response, ServingError> {
        let tensors = self.tensors(images);
        let mut json = Parts::default();
        json.text(self.head()?);
        for (index, (output, tensor)) in self.wanted.outputs.iter().zip(&tensors).enumerate() {
            if index > 0 {
                json.text(",");
            }
            json.output(output, tensor)?;
        }
        json.text("]}");
        if !self.wanted.is_binary() {
            let content_type = HeaderValue::from_static("application/json");
            return Ok(([(header::CONTENT_TYPE, content_type)], json.streamed().into_body(cpu)).into_response());
        }
        // How long the JSON is has to be said before the first byte of it.
        let json = json.whole();
        let headers = HeaderMap::from_iter([
            (header::CONTENT_TYPE, HeaderValue::from_static("application/octet-stream")),
            (HEADER_LENGTH, HeaderValue::from(json.len())),
        ]);
        let binary = self.wanted.outputs.iter().zip(tensors).filter(|(output, _)| output.form == TensorForm::Binary);
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
    fn tensors(&self, images: Vec<Vec<LayerOutput>>) -> Vec<EncodedTensor> {
        let mut by_layer: Vec<Vec<Vec<f32>>> = self.wanted.layers.names().iter().map(|_| Vec::new()).collect();
        for image in images {
            for (layer, output) in by_layer.iter_mut().zip(image) {
                layer.push(output.data);
            }
        }
        let tensor = |output: &WantedOutput| {
            let place = self.wanted.layers.names().iter().position(|name| *name == output.name);
            let images = place.map(|place| std::mem::take(&mut by_layer[place])).unwrap_or_default();
            let tensor = Outputs { shape: output.shape.clone(), images };
            EncodedTensor::new(Arc::new(tensor), output.number_form())
        };
        self.wanted.outputs.iter().map(tensor).collect()
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

/// JSON whose numbers are not written yet.
#[derive(Default)]
struct Parts(Vec<Part>);

enum Part {
    Text(Vec<u8>),
    Numbers(EncodedTensor),
}

impl Parts {
    fn text(&mut self, text: impl Into<Vec<u8>>) {
        self.0.push(Part::Text(text.into()));
    }

    /// Adds an output, with its numbers if they are sent as text.
    fn output(&mut self, output: &WantedOutput, tensor: &EncodedTensor) -> Result<(), ServingError> {
        let is_binary = output.form == TensorForm::Binary;
        let parameters = is_binary.then(|| OutputParameters { binary_data_size: output.reply_bytes() });
        let head = OutputHead { name: &output.name, datatype: "FP32", shape: &output.shape, parameters };
        if is_binary {
            self.text(serde_json::to_vec(&head).map_err(ServingError::internal)?);
            return Ok(());
        }
        self.text(open_object(&head, "data").map_err(ServingError::internal)?);
        self.0.push(Part::Numbers(tensor.clone()));
        self.text("}");
        Ok(())
    }

    fn streamed(self) -> ReplyBody {
        self.0.into_iter().fold(ReplyBody::default(), |body, part| match part {
            Part::Text(text) => body.bytes(text),
            Part::Numbers(tensor) => body.tensor(tensor),
        })
    }

    fn whole(self) -> Vec<u8> {
        let mut json = Vec::new();
        for part in self.0 {
            match part {
                Part::Text(text) => json.extend(text),
                Part::Numbers(tensor) => (0..tensor.pieces()).for_each(|piece| json.extend(tensor.piece(piece))),
            }
        }
        json
    }
}

/// One output of all images.
struct Outputs {
    /// `[N, …]`.
    shape: Vec<usize>,
    /// The values of each.
    images: Vec<Vec<f32>>,
}

impl Tensor for Outputs {
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
