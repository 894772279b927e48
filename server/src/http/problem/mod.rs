//! Failures as problem documents of RFC 9457.
//!
//! Each error enum implements [`ToProblem`] by an exhaustive match, so that a new variant must choose its status. The
//! cause of an internal failure is logged once, where the reply is made, and never sent.

pub(super) mod responses;
mod serving;
mod vision;

use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderValue, Response, StatusCode, header};
use axum::response::IntoResponse;
use serde::Serialize;
use utoipa::ToSchema;

/// Shortest time after which a client should retry an overloaded server.
pub(super) const RETRY_AFTER: Duration = Duration::from_secs(1);
const PROBLEM_JSON: HeaderValue = HeaderValue::from_static("application/problem+json");

/// An error reply by RFC 9457.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub struct Problem {
    /// Stable name of the kind of problem, for programs.
    #[serde(rename = "type")]
    #[schema(example = "/problems/point-outside")]
    pub kind: String,
    /// The kind in words.
    pub title: &'static str,
    /// The status code of the reply.
    pub status: u16,
    /// Description of this occurrence.
    pub detail: String,
    /// The limit that was exceeded, in the unit that `detail` names.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<u64>,
    /// Advice for the client.
    pub hint: &'static str,
    /// Time after which the request may be repeated.
    #[serde(skip)]
    pub retry_after: Option<Duration>,
}

/// The part of a [`Problem`] that all problems of a kind share.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProblemKind {
    /// The status code of the reply.
    pub status: u16,
    /// Last part of the problem's type.
    pub slug: &'static str,
    /// The kind in words.
    pub title: &'static str,
    /// Advice for the client.
    pub hint: &'static str,
}

impl ProblemKind {
    pub(super) const fn new(status: u16, slug: &'static str, title: &'static str, hint: &'static str) -> Self {
        Self { status, slug, title, hint }
    }
}

/// An error that clients read as a [`Problem`].
pub trait ToProblem: std::error::Error {
    /// The kind of problem.
    fn kind(&self) -> ProblemKind;

    /// The limit that was exceeded, in the unit that the message names.
    fn limit(&self) -> Option<u64>;

    /// Time after which the same request may succeed.
    fn retry_after(&self) -> Option<Duration> {
        (self.kind().status == 503).then_some(RETRY_AFTER)
    }

    /// Creates the document for the client.
    fn problem(&self) -> Problem {
        let ProblemKind { status, slug, title, hint } = self.kind();
        Problem {
            kind: format!("/problems/{slug}"),
            title,
            status,
            detail: shortened(self.to_string()),
            limit: self.limit(),
            hint,
            retry_after: self.retry_after(),
        }
    }
}

/// The slug of a reply's problem, for the metrics.
#[derive(Clone, Copy, Debug)]
pub(super) struct ProblemSlug(pub(super) &'static str);

/// Creates the reply to a request that failed with `error`, and logs its `cause`.
pub(super) fn response(error: &dyn ToProblem, cause: Option<&anyhow::Error>) -> Response<Body> {
    if let Some(cause) = cause {
        tracing::error!(cause = format!("{cause:#}"), "request failed");
    }
    let problem = error.problem();
    let status = StatusCode::from_u16(problem.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    // Serialising a struct of strings and numbers cannot fail.
    let body = serde_json::to_vec(&problem).unwrap_or_default();
    let mut response = (status, [(header::CONTENT_TYPE, PROBLEM_JSON)], body).into_response();
    response.extensions_mut().insert(ProblemSlug(error.kind().slug));
    if status == StatusCode::UNAUTHORIZED {
        response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    }
    if let Some(wait) = problem.retry_after {
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(whole_seconds(wait)));
    }
    // For `open_inference`, which adds a member.
    response.extensions_mut().insert(problem);
    response
}

/// Rounds up to whole seconds, at least one, so that a client does not retry too early.
fn whole_seconds(wait: Duration) -> u64 {
    let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
    seconds.max(1)
}

/// Truncates a message that quotes the request, which may be megabytes.
fn shortened(mut detail: String) -> String {
    const MAX_BYTES: usize = 1000;
    if detail.len() > MAX_BYTES {
        let end = detail.floor_char_boundary(MAX_BYTES);
        detail.truncate(end);
        detail.push('…');
    }
    detail
}
