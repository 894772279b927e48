//! Problems as replies.

use std::any::Any;
use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderValue, Response, StatusCode, header};
use axum::response::IntoResponse;
use tower_http::catch_panic::ResponseForPanic;

use super::cpu_pool::JobError;
use super::state::AppState;
use crate::error::ApiError;

/// Which problem a reply is, for whoever counts: the last part of its type.
#[derive(Clone, Copy, Debug)]
pub(super) struct ProblemKind(pub(super) &'static str);

const PROBLEM_JSON: HeaderValue = HeaderValue::from_static("application/problem+json");

impl IntoResponse for ApiError {
    fn into_response(self) -> Response<Body> {
        if let Some(cause) = self.cause() {
            tracing::error!(cause = format!("{cause:#}"), "request failed");
        }
        let problem = self.problem();
        let status = StatusCode::from_u16(problem.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        // A struct of strings and numbers is always written.
        let body = serde_json::to_vec(&problem).unwrap_or_default();
        let mut response = (status, [(header::CONTENT_TYPE, PROBLEM_JSON)], body).into_response();
        response.extensions_mut().insert(ProblemKind(self.kind()));
        if status == StatusCode::UNAUTHORIZED {
            response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        if let Some(wait) = problem.retry_after {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(whole_seconds(wait)));
        }
        // For those who have to say it in another form.
        response.extensions_mut().insert(problem);
        response
    }
}

/// Rounded up, so that whoever waits as long does not come too early.
fn whole_seconds(wait: Duration) -> u64 {
    let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
    seconds.max(1)
}

impl From<JobError> for ApiError {
    fn from(error: JobError) -> Self {
        Self::internal(error)
    }
}

/// Makes a panic of a handler a 500; its message goes to the log.
#[derive(Clone)]
pub(super) struct PanicReply(pub(super) AppState);

impl ResponseForPanic for PanicReply {
    type ResponseBody = Body;

    fn response_for_panic(&mut self, panic: Box<dyn Any + Send + 'static>) -> Response<Body> {
        self.0.metrics().http.panicked();
        let message = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
        let message = message.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_default();
        ApiError::internal(anyhow::anyhow!("a handler panicked: {message}")).into_response()
    }
}
