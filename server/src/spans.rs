//! Traces: the caller's span (`traceparent`), and spans of requests for a collector.
//!
//! Spans are exported by OTLP over HTTP, if the program was built with the feature `otlp`. The trace
//! of `traceparent` is named in the log with and without it.

#[cfg(feature = "otlp")]
mod otlp;
mod traceparent;
#[cfg(not(feature = "otlp"))]
mod without_otlp;

use std::net::IpAddr;
use std::str::FromStr;
use std::time::Instant;

#[cfg(feature = "otlp")]
pub use self::otlp::{RequestSpan, SpanExport};
pub use self::traceparent::TraceParent;
#[cfg(not(feature = "otlp"))]
pub use self::without_otlp::{RequestSpan, SpanExport};

/// True if this program can export spans.
pub const EXPORT_IS_BUILT_IN: bool = cfg!(feature = "otlp");

/// The export of spans cannot start.
#[derive(Debug, thiserror::Error)]
#[error("cannot export traces to the collector")]
pub struct ExportError(#[source] Box<dyn std::error::Error + Send + Sync>);

/// Base URL of a collector, to which `/v1/traces` is added.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CollectorUrl(String);

impl CollectorUrl {
    /// URL that spans are posted to.
    pub fn traces(&self) -> String {
        format!("{}/v1/traces", self.0)
    }
}

/// Text that is not a URL of a collector.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CollectorUrlError {
    /// The program was built without the export.
    #[error("this build of densecl-server exports no traces; build it with `--features otlp`")]
    NotBuiltIn,
    /// Not a URL of this kind.
    #[error("`{0}` is not the URL of a collector: use http://host:port, such as http://127.0.0.1:4318")]
    Malformed(String),
    /// TLS is not supported.
    #[error("collectors are reached by http:// alone; run one beside the server that passes spans on by https")]
    Https,
}

impl FromStr for CollectorUrl {
    type Err = CollectorUrlError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if !EXPORT_IS_BUILT_IN {
            return Err(CollectorUrlError::NotBuiltIn);
        }
        if text.starts_with("https://") {
            return Err(CollectorUrlError::Https);
        }
        let rest = text.strip_prefix("http://").filter(|rest| rest.chars().all(|c| c.is_ascii_graphic()));
        let host = rest.and_then(|rest| rest.split(['/', '?', '#']).next());
        if host.is_none_or(str::is_empty) || text.contains(['?', '#', '@']) {
            return Err(CollectorUrlError::Malformed(text.to_owned()));
        }
        Ok(Self(text.trim_end_matches('/').to_owned()))
    }
}

/// Properties of a request that are known when it starts.
#[derive(Clone, Copy, Debug)]
pub struct RequestStart<'a> {
    /// The method, one of the usual ones or `other`.
    pub method: &'static str,
    /// Template of the route; empty if none matched.
    pub route: &'a str,
    /// The request's id.
    pub request_id: &'a str,
    /// Span of the caller.
    pub parent: Option<TraceParent>,
    /// Address of the client, by `X-Forwarded-For` where that is trusted.
    pub client: Option<IpAddr>,
    /// End of the request's head.
    pub begun: Instant,
}

/// Properties of a request that are known when it is over.
#[derive(Clone, Copy, Debug)]
pub struct RequestEnd<'a> {
    /// The status code, if there was an answer.
    pub status: Option<u16>,
    /// `name/version` of the model, if the request used one.
    pub model: Option<&'a str>,
    /// Layers of the request, joined by `+`.
    pub layer: Option<&'a str>,
    /// Bytes of the request's and the reply's bodies.
    pub bytes: (u64, u64),
}

/// One stage of a request.
#[derive(Clone, Copy, Debug)]
pub struct StageSpan {
    /// Name of the stage.
    pub name: &'static str,
    /// When it began.
    pub begun: Instant,
    /// When it ended.
    pub ended: Instant,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(feature = "otlp")]
    fn reads_collectors() {
        let traces = |text: &str| text.parse::<CollectorUrl>().map(|url| url.traces());
        assert_eq!(traces("http://127.0.0.1:4318").as_deref(), Ok("http://127.0.0.1:4318/v1/traces"));
        assert_eq!(traces("http://collector/otel/").as_deref(), Ok("http://collector/otel/v1/traces"));
        assert_eq!(traces("https://collector"), Err(CollectorUrlError::Https));
        for wrong in ["", "collector:4318", "http://", "http:///v1", "http://user@host", "http://a b", "http://a?b"] {
            assert_eq!(traces(wrong), Err(CollectorUrlError::Malformed(wrong.to_owned())), "{wrong}");
        }
    }

    #[test]
    #[cfg(not(feature = "otlp"))]
    fn without_the_feature_a_collector_is_refused() {
        assert_eq!("http://127.0.0.1:4318".parse::<CollectorUrl>(), Err(CollectorUrlError::NotBuiltIn));
    }
}
