//! Replies that keep the request's admission until their last byte is sent.

use std::pin::Pin;
use std::task::{Context, Poll};

use axum::body::{Body, Bytes, HttpBody};
use axum::response::Response;

use crate::serving::admission::Admitted;

/// Keeps the request's slots and memory until the reply is sent or its client has disconnected.
pub(in crate::http) fn hold_until_sent(admitted: Admitted, response: Response) -> Response {
    response.map(|body| Body::new(HeldBody { body, _admitted: admitted }))
}

/// A body that holds an admission.
struct HeldBody {
    body: Body,
    _admitted: Admitted,
}

impl HttpBody for HeldBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<http_body::Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> http_body::SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::serving::admission::tests::{admission, admit};

    #[tokio::test]
    async fn a_reply_keeps_its_slot_until_it_is_sent() {
        let admission = admission(1, 100);
        let admitted = admit(&admission, 1, Duration::ZERO).unwrap();
        let response = hold_until_sent(admitted, Response::new(Body::from("text")));
        assert_eq!(response.body().size_hint().exact(), Some(4), "its length is still known");
        assert!(admit(&admission, 1, Duration::ZERO).is_err());
        assert_eq!(axum::body::to_bytes(response.into_body(), 9).await.unwrap(), "text");
        assert!(admit(&admission, 1, Duration::ZERO).is_ok());
    }
}
