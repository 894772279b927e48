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
use crate::http::request::{JsonError, json_text, parse_json};
use densecl_models::geometry::CELL_MULTIPLE_PX;
use densecl_vision::features::Pooling;
use densecl_vision::image::is_picture;

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
    /// Pooling of the layers that do not name one.
    pub pool: Option<Pooling>,
    /// True if vectors are scaled to length 1.
    pub normalize: bool,
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
    /// Pooling of its cells, if the request names one for this output.
    pub pool: Option<Pooling>,
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
    Json(#[from] JsonError),
    /// Bytes follow the JSON, and no header says where it ends.
    #[error(
        "bytes follow the JSON of the request, and the header Inference-Header-Content-Length, its length, is missing"
    )]
    NoHeaderLength,
    /// The body is an image file.
    #[error("the body is the file of an image, not a request of this protocol: POST /features takes image files")]
    ImageFile,
    /// The input does not have the format of the model's input.
    #[error("input `{INPUT}`: {0}")]
    Input(String),
    /// The input has another type or shape than the model's input.
    #[error(
        "input `{INPUT}`: {found}; it takes {INPUT_TYPE} [N, height, width, 3], RGB, with height and width multiples of {CELL_MULTIPLE_PX}. Image files of any size are taken by POST /features"
    )]
    Description {
        /// Description of the fault.
        found: String,
    },
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
    /// Pooling of what is a vector already.
    #[error("output `global` is one vector for each image already: leave out its parameter `pool`")]
    PooledVector,
    /// Length 1 for what is a map.
    #[error("`normalize` is for vectors: ask for `pool` as well, or for the output `global` alone")]
    NormalizedMap,
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
    let header = read_header(json, header_length.is_some())?;
    header.parameters.check()?;
    let binary = header_length.map(|length| body.slice(length..));
    Ok(InferenceRequest {
        id: header.id.map(checked_id).transpose()?,
        images: images(header.inputs, binary)?,
        outputs: header.outputs.map(outputs).transpose()?,
        form: TensorForm::from_binary_flag(header.parameters.binary_data_output.unwrap_or(false)),
        pool: header.parameters.pool,
        normalize: header.parameters.normalize == Some(Normalization::L2),
    })
}

/// Parses the JSON. If the data cannot be read, but the input they belong to is described as the model's is not, that is
/// the error.
fn read_header(json: &[u8], has_length: bool) -> Result<Header<Pixels>, MalformedInference> {
    parse_json(json).map_err(|error| {
        if is_picture(json) {
            return MalformedInference::ImageFile;
        }
        match parse_json::<Header<IgnoredAny>>(json) {
            Ok(outline) => match images_shape(&outline.inputs) {
                Ok(_) => error.into(),
                Err(description) => description,
            },
            Err(_) if !has_length && announces_bytes(json) => MalformedInference::NoHeaderLength,
            Err(_) => error.into(),
        }
    })
}

/// True if the JSON ends before the bytes do, and announces bytes behind it.
fn announces_bytes(json: &[u8]) -> bool {
    let Ok(text) = json_text(json) else { return false };
    let first = serde_json::Deserializer::from_slice(text).into_iter::<Header<IgnoredAny>>().next();
    let inputs = first.and_then(Result::ok).map(|header| header.inputs).unwrap_or_default();
    inputs.iter().any(|input| input.parameters.binary_data_size.is_some())
}

/// The JSON of a request. Unknown parameters are ignored, as the protocol requires.
#[derive(Deserialize)]
struct Header<D> {
    id: Option<String>,
    #[serde(default)]
    parameters: Parameters,
    #[serde(bound(deserialize = "D: Deserialize<'de>"), deserialize_with = "bounded_list::<MAX_TENSORS, _, _>")]
    inputs: Vec<Input<D>>,
    #[serde(default, deserialize_with = "optional_bounded_list::<MAX_TENSORS, _, _>")]
    outputs: Option<Vec<Output>>,
}

#[derive(Deserialize)]
struct Input<D> {
    name: String,
    datatype: String,
    #[serde(deserialize_with = "bounded_list::<MAX_AXES, _, _>")]
    shape: Vec<i64>,
    #[serde(default)]
    parameters: Parameters,
    data: Option<D>,
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
    #[serde(default, deserialize_with = "read_pooling")]
    pool: Option<Pooling>,
    normalize: Option<Normalization>,
    classification: Option<IgnoredAny>,
    shared_memory_region: Option<IgnoredAny>,
    sequence_id: Option<IgnoredAny>,
}

/// Length of vectors.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Normalization {
    L2,
    None,
}

fn read_pooling<'de, D: Deserializer<'de>>(value: D) -> Result<Option<Pooling>, D::Error> {
    let read = |text: String| text.parse().map_err(|error| D::Error::custom(format!("`{text}` is {error}")));
    Option::<String>::deserialize(value)?.map(read).transpose()
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

/// Checks the description of the inputs: there is one, of the model's name, type and number of axes. Returns its shape.
fn images_shape<D>(inputs: &[Input<D>]) -> Result<[u64; 4], MalformedInference> {
    let wrong = |found: String| Err(MalformedInference::Description { found });
    let [input] = inputs else {
        let names: Vec<String> = inputs.iter().map(|input| format!("`{}`", input.name)).collect();
        return Err(MalformedInference::Inputs(if names.is_empty() { "none".to_owned() } else { names.join(", ") }));
    };
    if input.name != INPUT {
        return Err(MalformedInference::Inputs(format!("`{}`", input.name)));
    }
    input.parameters.check()?;
    if input.datatype != INPUT_TYPE {
        return wrong(format!("its datatype is `{}`", input.datatype));
    }
    let shape = &input.shape;
    let sizes: Option<Vec<u64>> = shape.iter().map(|&size| u64::try_from(size).ok()).collect();
    match sizes.as_deref() {
        None => wrong(format!("its shape {shape:?} has a negative size, which only metadata have")),
        Some(&[count, height, width, CHANNELS]) => {
            if count == 0 || height == 0 || width == 0 {
                return wrong(format!("its shape {shape:?} has no pixels"));
            }
            Ok([count, height, width, CHANNELS])
        }
        Some(&[height, width, CHANNELS]) => {
            wrong(format!("its shape {shape:?} has no axis N: of one image it is [1, {height}, {width}, 3]"))
        }
        Some(&[_, CHANNELS, _, _]) => wrong(format!("its shape {shape:?} has the channels first")),
        Some(_) => wrong(format!("its shape is {shape:?}")),
    }
}

/// The images, from the JSON or from `binary`, the bytes behind it.
fn images(inputs: Vec<Input<Pixels>>, binary: Option<Bytes>) -> Result<Images, MalformedInference> {
    let wrong = |reason: String| Err(MalformedInference::Input(reason));
    let shape = images_shape(&inputs)?;
    let [count, height, width, _] = shape;
    let expected = shape.into_iter().try_fold(1_u64, u64::checked_mul);
    let Some(expected) = expected else { return wrong(format!("its shape {shape:?} is larger than any memory")) };
    let Some(input) = inputs.into_iter().next() else { return Err(MalformedInference::Inputs("none".to_owned())) };
    let behind = binary.as_ref().map_or(0, Bytes::len) as u64;
    let pixels = match (input.data, input.parameters.binary_data_size, binary) {
        (Some(_), Some(_), _) => return wrong("it has both `data` and `binary_data_size`".to_owned()),
        (None, None, _) => return wrong("it has neither `data` nor `binary_data_size`".to_owned()),
        (None, Some(_), None) => {
            return wrong(
                "it has `binary_data_size`, and the request no Inference-Header-Content-Length, the length of its JSON"
                    .to_owned(),
            );
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
        let form = parameters.binary_data.map(TensorForm::from_binary_flag);
        outputs.push(RequestedOutput { name, form, pool: parameters.pool });
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
