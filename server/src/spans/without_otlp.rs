//! Stand-ins for a program without the feature `otlp`: no value of these types can exist.

use std::convert::Infallible;

use super::{CollectorUrl, ExportError, RequestEnd, RequestStart, StageSpan};

/// Exporter of spans, which cannot be made.
#[derive(Clone, Debug)]
pub struct SpanExport(Infallible);

/// Span of a running request, which cannot be made.
#[derive(Debug)]
pub struct RequestSpan(Infallible);

impl SpanExport {
    /// Never called: without the feature no [`CollectorUrl`] can be made.
    ///
    /// # Errors
    /// Always.
    pub fn start(_collector: &CollectorUrl) -> Result<Self, ExportError> {
        Err(ExportError("this program was built without the feature `otlp`".into()))
    }

    /// Starts the span of a request.
    pub fn begin(&self, _arrival: &RequestStart<'_>) -> RequestSpan {
        match self.0 {}
    }

    /// Sends the remaining spans.
    pub fn shut_down(&self) {
        match self.0 {}
    }
}

impl RequestSpan {
    /// Trace of the span.
    pub fn trace_id(&self) -> u128 {
        match self.0 {}
    }

    /// Ends the span, with a child span for each stage.
    pub fn end(self, _outcome: &RequestEnd<'_>, _stages: &[StageSpan]) {
        match self.0 {}
    }
}
