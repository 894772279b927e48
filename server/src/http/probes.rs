//! Probes and metrics, for orchestrators and monitoring: `/livez`, `/readyz`, `/metrics`.

use axum::extract::State;
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Response};

use super::problem::Problem;
use super::reply::{ReplyFormat, negotiate};
use super::request::RequestError;
use super::state::{AppState, Phase};
use crate::metrics::MetricsFormat;
use crate::serving::ServingError;

/// Liveness: answers as long as the process works and needs no restart.
#[utoipa::path(get, path = "/livez", tag = "operations", responses((status = 200, description = "The process works", body = String)))]
pub(super) async fn livez() -> &'static str {
    "ok\n"
}

/// Readiness: 503 while the server is loading, warming up or shutting down.
#[utoipa::path(
    get,
    path = "/readyz",
    tag = "operations",
    responses(
        (status = 200, description = "The server takes requests", body = String),
        (status = 503, description = "The server is loading, or shutting down", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(super) async fn readyz(State(app): State<AppState>) -> Result<&'static str, RequestError> {
    match app.phase() {
        Phase::Ready => Ok("ok\n"),
        Phase::Loading => Err(ServingError::Loading.into()),
        Phase::Draining => Err(ServingError::Draining.into()),
    }
}

impl ReplyFormat for MetricsFormat {
    const OFFERED: &'static [(Self, &'static str)] =
        &[(Self::Text, "text/plain"), (Self::OpenMetrics, "application/openmetrics-text")];
}

/// Metrics in the text format of Prometheus or, if `Accept` prefers it, as `OpenMetrics`.
#[utoipa::path(
    get,
    path = "/metrics",
    tag = "operations",
    responses((
        status = 200,
        description = "The metrics",
        content((String = "text/plain"), (String = "application/openmetrics-text")),
    ))
)]
pub(super) async fn get_metrics(State(app): State<AppState>, headers: HeaderMap) -> Result<Response, RequestError> {
    // A client that accepts neither gets what every client of metrics reads.
    let format = negotiate(None, &headers).unwrap_or(MetricsFormat::Text);
    let text = app.metrics().text(format).map_err(RequestError::internal)?;
    let content_type = match format {
        MetricsFormat::Text => "text/plain; version=0.0.4; charset=utf-8",
        MetricsFormat::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
    };
    Ok(([(header::CONTENT_TYPE, content_type), (header::VARY, "accept")], text).into_response())
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    #[test]
    fn the_format_is_the_one_that_is_preferred() {
        use MetricsFormat::{OpenMetrics, Text};
        for (accept, expected) in [
            ("text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8", Some(Text)),
            ("*/*", Some(Text)),
            ("text/plain;version=0.0.4", Some(Text)),
            ("application/openmetrics-text", Some(OpenMetrics)),
            ("application/openmetrics-text; version=1.0.0, text/plain;q=0.5", Some(OpenMetrics)),
            ("application/openmetrics-text;q=0.4, text/plain;version=0.0.4;q=0.5", Some(Text)),
            ("application/openmetrics-text;q=0, */*", Some(Text)),
            ("text/plain;q=0, */*;q=0.1", Some(OpenMetrics)),
            // Prometheus 2 and 3.
            (
                "application/openmetrics-text;version=1.0.0;q=0.5,application/openmetrics-text;version=0.0.1;q=0.4,text/plain;version=0.0.4;q=0.3,*/*;q=0.2",
                Some(OpenMetrics),
            ),
            (
                "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited;q=0.6,application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.5,text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,text/plain;version=0.0.4;q=0.3,*/*;q=0.2",
                Some(OpenMetrics),
            ),
            ("application/json", None),
        ] {
            let headers = HeaderMap::from_iter([(header::ACCEPT, HeaderValue::from_static(accept))]);
            assert_eq!(negotiate(None, &headers).ok(), expected, "{accept}");
        }
        assert_eq!(negotiate(None, &HeaderMap::new()).ok(), Some(Text));
    }
}
