//! Panics of handlers, counted and answered.

use std::any::Any;

use axum::body::Body;
use axum::http::Response;
use tower_http::catch_panic::ResponseForPanic;

use crate::http::problem;
use crate::http::state::AppState;
use crate::serving::ServingError;

/// Makes a panic of a handler a 500; its message goes to the log.
#[derive(Clone)]
pub(in crate::http) struct PanicReply(pub(in crate::http) AppState);

impl ResponseForPanic for PanicReply {
    type ResponseBody = Body;

    fn response_for_panic(&mut self, panic: Box<dyn Any + Send>) -> Response<Body> {
        self.0.metrics().http.panicked();
        let message = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
        let message = message.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_default();
        let error = ServingError::internal(anyhow::anyhow!("a handler panicked: {message}"));
        problem::response(&error, error.cause())
    }
}
