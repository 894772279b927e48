//! Bodies whose bytes are counted as they pass.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use axum::body::{Body, Bytes, HttpBody};
use http_body::{Frame, SizeHint};

/// What counts.
pub(super) trait Count: Send + Unpin + 'static {
    /// So many more bytes have passed.
    fn add(&mut self, bytes: u64);

    /// All bytes have passed.
    fn end(&mut self) {}
}

/// A body, and what counts its bytes; both are dropped together.
pub(super) struct CountedBody<C> {
    body: Body,
    counter: C,
}

impl<C: Count> CountedBody<C> {
    pub(super) fn new(body: Body, mut counter: C) -> Self {
        // Nobody polls a body without bytes.
        if body.is_end_stream() {
            counter.end();
        }
        Self { body, counter }
    }
}

impl<C: Count> HttpBody for CountedBody<C> {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(context));
        if let Some(Ok(frame)) = &frame {
            self.counter.add(frame.data_ref().map_or(0, Bytes::len) as u64);
        }
        // A caller that knows the length does not poll again after the last byte.
        if frame.is_none() || (matches!(frame, Some(Ok(_))) && self.body.is_end_stream()) {
            self.counter.end();
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use http_body_util::{BodyExt, StreamBody};

    use super::*;

    #[derive(Clone, Default)]
    struct Seen(Arc<Mutex<(u64, bool)>>);

    impl Count for Seen {
        fn add(&mut self, bytes: u64) {
            self.0.lock().unwrap().0 += bytes;
        }

        fn end(&mut self) {
            self.0.lock().unwrap().1 = true;
        }
    }

    fn streamed() -> Body {
        let pieces = ["ab", "cde"].map(|piece| Ok::<_, axum::Error>(Frame::data(Bytes::from(piece))));
        Body::new(StreamBody::new(futures_util::stream::iter(pieces)))
    }

    #[tokio::test]
    async fn counts_all_of_a_body_of_known_or_unknown_length() {
        for (body, bytes) in [(Body::from("abcde"), 5), (streamed(), 5), (Body::empty(), 0)] {
            let seen = Seen::default();
            let counted = CountedBody::new(body, seen.clone());
            assert_eq!(counted.collect().await.unwrap().to_bytes().len() as u64, bytes);
            assert_eq!(*seen.0.lock().unwrap(), (bytes, true));
        }
    }

    #[tokio::test]
    async fn a_body_that_is_dropped_early_did_not_end() {
        let seen = Seen::default();
        let mut counted = CountedBody::new(streamed(), seen.clone());
        counted.frame().await.unwrap().unwrap();
        drop(counted);
        assert_eq!(*seen.0.lock().unwrap(), (2, false));
    }
}
