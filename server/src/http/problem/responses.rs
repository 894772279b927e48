//! Error responses of the `OpenAPI` document: exactly the statuses that a route answers with.

use std::collections::BTreeMap;

use utoipa::IntoResponses;
use utoipa::openapi::header::{Header, HeaderBuilder};
use utoipa::openapi::schema::{ObjectBuilder, Type};
use utoipa::openapi::{ContentBuilder, Ref, RefOr, Response, ResponseBuilder};

/// Problems of the routes that compute.
pub(in crate::http) struct WorkProblems;

impl IntoResponses for WorkProblems {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        problems(&[
            (400, "The body or a parameter cannot be read"),
            (404, "There is no such model, version or layer"),
            (406, "This reply has none of the formats in `Accept`"),
            (408, "The body did not arrive in time"),
            (413, "The body, an image or the reply is larger than the limit"),
            (415, "The body, or an image in it, has a type that is not supported"),
            (422, "The request is well formed, but cannot be processed"),
            (429, "This client asks more often than it may"),
            (500, "Something went wrong inside the server"),
            (503, "The server is overloaded, loading or shutting down"),
            (504, "There was no answer in time"),
        ])
    }
}

/// Problems of the routes that look up all models.
pub(in crate::http) struct ListProblems;

impl IntoResponses for ListProblems {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        problems(&[(429, "This client asks more often than it may"), (503, "The models are still loading")])
    }
}

/// Problems of the routes that look up one model.
pub(in crate::http) struct LookupProblems;

impl IntoResponses for LookupProblems {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        let mut responses = ListProblems::responses();
        responses.extend(problems(&[(404, "There is no such model")]));
        responses
    }
}

/// Problems of the route that describes the server.
pub(in crate::http) struct RateProblems;

impl IntoResponses for RateProblems {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        problems(&[(429, "This client asks more often than it may")])
    }
}

/// Problems of inference.
pub(in crate::http) struct InferenceProblems;

impl IntoResponses for InferenceProblems {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        let mut responses = WorkProblems::responses();
        // The request names the form of the reply; `Accept` is not used.
        responses.remove("406");
        responses
    }
}

/// Problems of the index of the model repository.
pub(in crate::http) struct IndexProblems;

impl IntoResponses for IndexProblems {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        let mut responses = ListProblems::responses();
        responses.extend(problems(&[
            (400, "The body cannot be read"),
            (408, "The body did not arrive in time"),
            (413, "The body is larger than the limit"),
            (500, "Something went wrong inside the server"),
        ]));
        responses
    }
}

/// Problems of the routes that only administrators may use.
pub(in crate::http) struct AdministrationProblems;

impl IntoResponses for AdministrationProblems {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        problems(&[
            (400, "The body cannot be read, or asks for something that is not supported"),
            (403, "This is not an administrator"),
            (404, "There is no such model"),
            (408, "The body did not arrive in time"),
            (413, "The body is larger than the limit"),
            (422, "The model cannot be loaded"),
            (429, "This client asks more often than it may"),
            (500, "Something went wrong inside the server"),
            (503, "The models are still loading"),
            (504, "There was no answer in time"),
        ])
    }
}

/// The response to requests without a valid key.
pub(in crate::http) fn unauthorized() -> Response {
    problem(401, "The server asks for API keys, and this request has no valid one")
}

fn problems(statuses: &[(u16, &str)]) -> BTreeMap<String, RefOr<Response>> {
    statuses.iter().map(|&(status, description)| (status.to_string(), problem(status, description).into())).collect()
}

fn problem(status: u16, description: &str) -> Response {
    let body = ContentBuilder::new().schema(Some(Ref::from_schema_name("Problem"))).build();
    let response = ResponseBuilder::new().description(description).content("application/problem+json", body);
    match status {
        401 => response.header("WWW-Authenticate", HeaderBuilder::new().build()).build(),
        429 | 503 => response.header("Retry-After", retry_after()).build(),
        _ => response.build(),
    }
}

fn retry_after() -> Header {
    let seconds = ObjectBuilder::new().schema_type(Type::Integer).minimum(Some(1));
    HeaderBuilder::new().schema(Some(seconds)).description(Some("Seconds to wait before trying again")).build()
}
