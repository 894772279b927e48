//! Panics of a run, turned into errors that fail its batch alone.

use std::any::Any;
use std::future::Future;
use std::panic::{self, AssertUnwindSafe};
use std::sync::Arc;
use std::thread;

use futures_util::FutureExt;

use super::BatchError;
use crate::backend::BackendError;

/// Turns a panic of a future into an error.
pub(super) async fn catch_panic<T>(work: impl Future<Output = Result<T, BackendError>>) -> Result<T, BatchError> {
    into_result(AssertUnwindSafe(work).catch_unwind().await)
}

/// Turns a panic of a function into an error.
pub(super) fn catch_panic_of<T>(work: impl FnOnce() -> Result<T, BackendError>) -> Result<T, BatchError> {
    into_result(panic::catch_unwind(AssertUnwindSafe(work)))
}

fn into_result<T>(caught: thread::Result<Result<T, BackendError>>) -> Result<T, BatchError> {
    match caught {
        Ok(result) => result.map_err(|error| BatchError::Backend(Arc::new(error))),
        Err(panic) => Err(BatchError::Panicked(panic_message(&*panic).into())),
    }
}

fn panic_message(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("no message")
}
