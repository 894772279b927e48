//! A program that exports no spans: none of these values exist.

use std::convert::Infallible;

use super::{Arrival, CollectorUrl, ExportError, Outcome, StageSpan};

/// The way to a collector, which there is not.
#[derive(Clone, Debug)]
pub struct SpanExport(Infallible);

/// A span under way, which there is not.
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

    /// Begins the span of a request.
    pub fn begin(&self, _arrival: &Arrival<'_>) -> RequestSpan {
        match self.0 {}
    }

    /// Sends what has not been sent.
    pub fn shut_down(&self) {
        match self.0 {}
    }
}

impl RequestSpan {
    /// The trace that the span is a part of.
    pub fn trace_id(&self) -> u128 {
        match self.0 {}
    }

    /// Ends the span, with one below it for each stage.
    pub fn end(self, _outcome: &Outcome<'_>, _stages: &[StageSpan]) {
        match self.0 {}
    }
}
