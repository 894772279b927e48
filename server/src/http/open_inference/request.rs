//! Body of an inference request: JSON, followed in Triton's binary form by the bytes of the tensors.
//!
//! [`parse`] is a function of bytes. A request that it returns is consistent: the number of pixels matches the shape.
//! The model and the server's limits are not checked here.

use std::fmt;
use std::marker::PhantomData;

use axum::body::Bytes;
use serde::de::{Error as _, IgnoredAny, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};

use super::pixels::Pixels;

/// Name of the only input of every model.
pub(super) const INPUT: &str = "images";
/// Type of the input.
pub(super) const INPUT_TYPE: &str = "UINT8";
const CHANNELS: u64 = 3;
const MAX_ID_BYTES: usize = 1024;
const MAX_TENSORS: usize = 256;
const MAX_AXES: usize = 16;

/// A well-formed request.
#[derive(Debug)]
pub struct InferenceRequest {
    /// Repeated in the reply.
    pub id: Option<String>,
    /// Input of the model.
    pub images: Images,
    /// Requested outputs, each once; all outputs of the model if `None`.
    pub outputs: Option<Vec<RequestedOutput>>,
    /// Form of the outputs that do not name one.
    pub form: TensorForm,
}

/// Images of one size.
#[derive(Debug)]
pub struct Images {
    /// Number of images, at least 1.
    pub count: u64,
    /// Height in pixels, at least 1.
    pub height: u64,
    /// Width in pixels, at least 1.
    pub width: u64,
    /// RGB bytes, `[N, H, W, 3]`.
    pub pixels: Bytes,
}

/// A requested output.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestedOutput {
    /// Its name.
    pub name: String,
    /// Form of its values, if the request names one.
    pub form: Option<TensorForm>,
}

/// Form of the values of an output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TensorForm {
    /// Numbers in the JSON.
    Json,
    /// Bytes after the JSON.
    Binary,
}

impl TensorForm {
    fn from_binary_flag(is_binary: bool) -> Self {
        if is_binary { Self::Binary } else { Self::Json }
    }
}

/// A malformed request.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MalformedInference {
    /// `Inference-Header-Content-Length` is larger than the body.
    #[error("Inference-Header-Content-Length is {header}, and the body has {body} bytes")]
    HeaderLength {
        /// Bytes of JSON by the header.
        header: usize,
        /// Bytes of the body.
        body: usize,
    },
    /// The body has no JSON.
    #[error("Inference-Header-Content-Length is 0: the shape of the images has to be said in a JSON header")]
    NoHeader,
    /// The JSON is not a request of the protocol.
    #[error("the JSON of the request cannot be read: {0}")]
    Json(String),
    /// The input does not have the format of the model's input.
    #[error("input `{INPUT}`: {0}")]
    Input(String),
    /// The request does not have exactly one input.
    #[error("there must be one input, `{INPUT}`, and not: {0}")]
    Inputs(String),
    /// An output is requested twice.
    #[error("output `{0}` is asked for more than once")]
    RepeatedOutput(String),
    /// No output is requested.
    #[error("`outputs` is empty: leave it out for all outputs")]
    NoOutput,
    /// A part of the protocol that this server does not support.
    #[error("{0} is not supported here: leave it out")]
    Unsupported(&'static str),
    /// The id is too long to be repeated in the reply.
    #[error("`id` has {0} bytes; at most {MAX_ID_BYTES} are taken")]
    LongId(usize),
}

/// Parses a body. `header_length` is the value of `Inference-Header-Content-Length`; without it the whole body is JSON.
///
/// # Errors
/// If the body is not a request of the protocol, contradicts itself, or uses an unsupported part of the protocol.
pub fn parse(body: &Bytes, header_length: Option<usize>) -> Result<InferenceRequest, MalformedInference> {
    if header_length == Some(0) {
        return Err(MalformedInference::NoHeader);
    }
    let length = header_length.unwrap_or(body.len());
    let too_long = MalformedInference::HeaderLength { header: length, body: body.len() };
    let json = body.get(..length).ok_or(too_long)?;
    let header = read_header(json).map_err(MalformedInference::Json)?;
    header.parameters.check()?;
    let binary = header_length.map(|length| body.slice(length..));
    Ok(InferenceRequest {
        id: header.id.map(checked_id).transpose()?,
        images: images(header.inputs, binary)?,
        outputs: header.outputs.map(outputs).transpose()?,
        form: TensorForm::from_binary_flag(header.parameters.binary_data_output.unwrap_or(false)),
    })
}

/// Parses the JSON. An error names the path of the wrong member.
fn read_header(json: &[u8]) -> Result<Header, String> {
    let mut reader = serde_json::Deserializer::from_slice(json);
    let header = serde_path_to_error::deserialize(&mut reader).map_err(|error| error.to_string())?;
    reader.end().map_err(|error| error.to_string())?;
    Ok(header)
}

/// The JSON of a request. Unknown parameters are ignored, as the protocol requires.
#[derive(Deserialize)]
struct Header {
    id: Option<String>,
    #[serde(default)]
    parameters: Parameters,
    #[serde(deserialize_with = "bounded_list::<MAX_TENSORS, _, _>")]
    inputs: Vec<Input>,
    #[serde(default, deserialize_with = "optional_bounded_list::<MAX_TENSORS, _, _>")]
    outputs: Option<Vec<Output>>,
}

#[derive(Deserialize)]
struct Input {
    name: String,
    datatype: String,
    #[serde(deserialize_with = "bounded_list::<MAX_AXES, _, _>")]
    shape: Vec<u64>,
    #[serde(default)]
    parameters: Parameters,
    data: Option<Pixels>,
}

#[derive(Deserialize)]
struct Output {
    name: String,
    #[serde(default)]
    parameters: Parameters,
}

#[derive(Default, Deserialize)]
struct Parameters {
    binary_data_size: Option<u64>,
    binary_data: Option<bool>,
    binary_data_output: Option<bool>,
    classification: Option<IgnoredAny>,
    shared_memory_region: Option<IgnoredAny>,
    sequence_id: Option<IgnoredAny>,
}

impl Parameters {
    fn check(&self) -> Result<(), MalformedInference> {
        let unsupported = [
            (&self.classification, "`classification`"),
            (&self.shared_memory_region, "shared memory"),
            (&self.sequence_id, "a sequence of requests (`sequence_id`)"),
        ];
        let found = unsupported.into_iter().find(|(parameter, _)| parameter.is_some());
        found.map_or(Ok(()), |(_, name)| Err(MalformedInference::Unsupported(name)))
    }
}

fn checked_id(id: String) -> Result<String, MalformedInference> {
    if id.len() > MAX_ID_BYTES { Err(MalformedInference::LongId(id.len())) } else { Ok(id) }
}

/// The images, from the JSON or from `binary`, the bytes behind it.
fn images(inputs: Vec<Input>, binary: Option<Bytes>) -> Result<Images, MalformedInference> {
    let wrong = |reason: String| Err(MalformedInference::Input(reason));
    let [input] = <[Input; 1]>::try_from(inputs).map_err(|inputs| {
        let names: Vec<String> = inputs.iter().map(|input| format!("`{}`", input.name)).collect();
        MalformedInference::Inputs(if names.is_empty() { "none".to_owned() } else { names.join(", ") })
    })?;
    if input.name != INPUT {
        return Err(MalformedInference::Inputs(format!("`{}`", input.name)));
    }
    input.parameters.check()?;
    if input.datatype != INPUT_TYPE {
        return wrong(format!("its datatype is {INPUT_TYPE}, not `{}`", input.datatype));
    }
    let shape = input.shape;
    let [count, height, width, CHANNELS] = shape[..] else {
        return wrong(format!("its shape is [N, height, width, 3], not {shape:?}"));
    };
    if count == 0 || height == 0 || width == 0 {
        return wrong(format!("its shape {shape:?} has no pixels"));
    }
    let expected = [count, height, width, CHANNELS].into_iter().try_fold(1_u64, u64::checked_mul);
    let Some(expected) = expected else { return wrong(format!("its shape {shape:?} is larger than any memory")) };
    let behind = binary.as_ref().map_or(0, Bytes::len) as u64;
    let pixels = match (input.data, input.parameters.binary_data_size, binary) {
        (Some(_), Some(_), _) => return wrong("it has both `data` and `binary_data_size`".to_owned()),
        (None, None, _) => return wrong("it has neither `data` nor `binary_data_size`".to_owned()),
        (None, Some(_), None) => {
            return wrong("it has `binary_data_size`, and the request no Inference-Header-Content-Length".to_owned());
        }
        (None, Some(size), Some(_)) if size != behind => {
            return wrong(format!("its `binary_data_size` is {size}, and {behind} bytes follow the JSON"));
        }
        (None, Some(_), Some(bytes)) => bytes,
        (Some(_), None, _) if behind > 0 => {
            return wrong(format!("it has `data`, and {behind} bytes follow the JSON"));
        }
        (Some(data), None, _) if !data.is_nested_as(&shape) => {
            return wrong(format!("its `data` is neither one flat list nor nested as its shape {shape:?} is"));
        }
        (Some(data), None, _) => data.bytes.into(),
    };
    if pixels.len() as u64 != expected {
        return wrong(format!("its shape {shape:?} is {expected} values, and there are {}", pixels.len()));
    }
    Ok(Images { count, height, width, pixels })
}

fn outputs(requested: Vec<Output>) -> Result<Vec<RequestedOutput>, MalformedInference> {
    let mut outputs: Vec<RequestedOutput> = Vec::new();
    for Output { name, parameters } in requested {
        parameters.check()?;
        if outputs.iter().any(|output| output.name == name) {
            return Err(MalformedInference::RepeatedOutput(name));
        }
        outputs.push(RequestedOutput { name, form: parameters.binary_data.map(TensorForm::from_binary_flag) });
    }
    if outputs.is_empty() { Err(MalformedInference::NoOutput) } else { Ok(outputs) }
}

/// Reads a list of at most `MAX` elements, and fails at the first one beyond.
fn bounded_list<'de, const MAX: usize, T: Deserialize<'de>, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Vec<T>, D::Error> {
    deserializer.deserialize_seq(Bounded::<MAX, T>(PhantomData))
}

fn optional_bounded_list<'de, const MAX: usize, T: Deserialize<'de>, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<Vec<T>>, D::Error> {
    bounded_list::<MAX, T, D>(deserializer).map(Some)
}

struct Bounded<const MAX: usize, T>(PhantomData<T>);

impl<'de, const MAX: usize, T: Deserialize<'de>> Visitor<'de> for Bounded<MAX, T> {
    type Value = Vec<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a list of at most {MAX} elements")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<Vec<T>, A::Error> {
        let mut found = Vec::new();
        while let Some(element) = elements.next_element()? {
            if found.len() == MAX {
                return Err(A::Error::invalid_length(MAX + 1, &self));
            }
            found.push(element);
        }
        Ok(found)
    }
}

#[cfg(test)]
#[path = "request_tests.rs"]
mod tests;
