//! Requests of the command line: files instead of bodies, and the same parameters, work and replies.

use std::time::Instant;

use axum::body::{Bytes, to_bytes};
use axum::http::{HeaderMap, header};

use super::observe::RequestContext;
use super::problem::ToProblem as _;
use super::request::{Parameters, RequestError, Upload};
use super::state::AppState;
use super::{Problem, correspondence, features};

/// Images of a request to `/correspondence`, each as the bytes of a file.
pub struct CorrespondenceFiles {
    /// The image whose points are searched for.
    pub source: Bytes,
    /// The images that are searched.
    pub targets: Vec<Bytes>,
    /// Labels of the source's pixels, which are carried over instead of points.
    pub mask: Option<Bytes>,
}

/// A reply.
pub struct OfflineReply {
    /// The body.
    pub body: Bytes,
    /// True if the body is text.
    pub is_text: bool,
}

/// Answers as `POST /features` does, for images and parameters by name.
///
/// # Errors
/// The [`Problem`] that the route would answer with.
pub async fn features(
    app: &AppState,
    images: Vec<Bytes>,
    parameters: &[(String, String)],
) -> Result<OfflineReply, Problem> {
    let answer = async {
        let (images, parameters) = (check_not_empty("image", images)?, parse_parameters(app, parameters)?);
        let response = features::answer(app, context(app), images, parameters, HeaderMap::new()).await?;
        read_reply(response).await
    };
    answer.await.map_err(|error: RequestError| error.problem())
}

/// Answers as `POST /correspondence` does, for files and parameters by name.
///
/// # Errors
/// The [`Problem`] that the route would answer with.
pub async fn correspondence(
    app: &AppState,
    files: CorrespondenceFiles,
    parameters: &[(String, String)],
) -> Result<OfflineReply, Problem> {
    let answer = async {
        let images = [
            check_not_empty("source", vec![files.source])?,
            check_not_empty("target", files.targets)?,
            check_not_empty("mask", files.mask.into_iter().collect())?,
        ];
        let upload = Upload { images, parameters: parse_parameters(app, parameters)? };
        let response = correspondence::answer(app, context(app), upload, HeaderMap::new()).await?;
        read_reply(response).await
    };
    answer.await.map_err(|error: RequestError| error.problem())
}

fn context(app: &AppState) -> RequestContext {
    RequestContext::unobserved(Instant::now() + app.service().limits().timeout)
}

fn parse_parameters(app: &AppState, pairs: &[(String, String)]) -> Result<Parameters, RequestError> {
    let mut parameters = Parameters::new(app.service().limits().max_points);
    pairs.iter().try_for_each(|(name, value)| parameters.push(name.clone(), value.clone()))?;
    Ok(parameters)
}

fn check_not_empty(name: &str, files: Vec<Bytes>) -> Result<Vec<Bytes>, RequestError> {
    if files.iter().any(Bytes::is_empty) {
        return Err(RequestError::EmptyPart { name: name.to_owned() });
    }
    Ok(files)
}

async fn read_reply(response: axum::response::Response) -> Result<OfflineReply, RequestError> {
    let content_type = response.headers().get(header::CONTENT_TYPE);
    let is_text = content_type.is_some_and(|value| value.as_bytes().ends_with(b"json"));
    let body = to_bytes(response.into_body(), usize::MAX).await.map_err(RequestError::internal)?;
    Ok(OfflineReply { body, is_text })
}
