//! A way for fuzz targets to what is private here. Not a part of what the crate offers.

use std::sync::OnceLock;

use axum::body::{Body, Bytes};
use axum::extract::{DefaultBodyLimit, Request};
use axum::http::header;
use futures_util::stream;

pub use super::open_inference::{
    Images, InferenceRequest, MalformedInference, RequestedOutput, TensorForm, parse as parse_inference,
};
pub use super::problem::{Problem, ToProblem};
pub use super::request::RequestError;
use super::request::{Count, Expected, ImageField, Upload};
use crate::config::RequestLimits;
use crate::serving::CpuPool;

/// Fields as those of all routes together: one image or none, one or more, any number.
const EXPECTED: Expected<3> = Expected {
    images: [
        ImageField { part: "image", json: "images", count: Count::Several },
        ImageField { part: "source", json: "source", count: Count::OneOrNone },
        ImageField { part: "target", json: "target", count: Count::SeveralOrNone },
    ],
    raw: true,
};

/// What a body was read as.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReadBody {
    /// The images of each field: `image`, `source` and `target`.
    pub images: [Vec<Bytes>; 3],
    /// Names and values.
    pub parameters: Vec<(String, String)>,
}

/// Reads a request's body, which comes in `pieces`, as the routes do.
///
/// # Errors
/// What the sender would be told.
pub async fn read_body(
    limits: &RequestLimits,
    content_type: &[u8],
    pieces: Vec<Bytes>,
) -> Result<ReadBody, RequestError> {
    static CPU: OnceLock<CpuPool> = OnceLock::new();
    let cpu = CPU.get_or_init(|| CpuPool::new(1).expect("there is room for one thread"));
    let body = Body::from_stream(stream::iter(pieces.into_iter().map(Ok::<_, std::io::Error>)));
    let request = Request::post("/features").header(header::CONTENT_TYPE, content_type).body(body);
    // Such a request does not get as far as this server's own code.
    let mut request = request.map_err(|error| RequestError::MalformedBody(error.to_string()))?;
    DefaultBodyLimit::apply(DefaultBodyLimit::max(limits.max_body_bytes as usize), &mut request);
    let Upload { images, parameters } = Upload::read(limits, cpu, request, EXPECTED).await?;
    Ok(ReadBody { images, parameters: parameters.as_slice().to_vec() })
}
