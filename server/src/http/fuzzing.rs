//! Access to private parsers for the fuzz targets; not part of the crate's interface.

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
use super::request::{Expected, ImageCount, ImageField, MalformedBody, Upload};
use crate::config::RequestLimits;
use crate::serving::CpuPool;

/// Image fields with every kind of count that a route uses.
const EXPECTED: Expected<3> = Expected {
    images: [
        ImageField { part: "image", json: "images", count: ImageCount::AtLeastOne },
        ImageField { part: "source", json: "source", count: ImageCount::AtMostOne },
        ImageField { part: "target", json: "target", count: ImageCount::Any },
    ],
    raw: true,
    parameters: Vec::new,
};

/// The images and parameters of a body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReadBody {
    /// The images of each field: `image`, `source` and `target`.
    pub images: [Vec<Bytes>; 3],
    /// Names and values of the parameters.
    pub parameters: Vec<(String, String)>,
}

/// Reads a request's body, which arrives in `pieces`, as the routes do.
///
/// # Errors
/// The error that the sender would be answered with.
pub async fn read_body(
    limits: &RequestLimits,
    content_type: &[u8],
    pieces: Vec<Bytes>,
) -> Result<ReadBody, RequestError> {
    static CPU: OnceLock<CpuPool> = OnceLock::new();
    let cpu = CPU.get_or_init(|| CpuPool::new(1).expect("there is room for one thread"));
    let body = Body::from_stream(stream::iter(pieces.into_iter().map(Ok::<_, std::io::Error>)));
    let request = Request::post("/features").header(header::CONTENT_TYPE, content_type).body(body);
    // hyper refuses such a request before it reaches a handler.
    let mut request = request.map_err(|_| MalformedBody::Header { name: header::CONTENT_TYPE.to_string() })?;
    DefaultBodyLimit::apply(DefaultBodyLimit::max(limits.max_body_bytes as usize), &mut request);
    let Upload { images, parameters } = Upload::read(limits, cpu, request, EXPECTED).await?;
    Ok(ReadBody { images, parameters: parameters.as_slice().to_vec() })
}
