//! Bodies whose bytes are counted as they are polled.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use axum::body::{Body, Bytes, HttpBody};
use http_body::{Frame, SizeHint};

/// Receives the number of bytes of a body.
pub(super) trait ByteCounter: Send + Unpin + 'static {
    /// Called for each frame, with its number of bytes.
    fn add(&mut self, bytes: u64);

    /// Called once the body is complete.
    fn end(&mut self) {}
}

/// A body and the counter of its bytes, which are dropped together.
pub(super) struct CountedBody<C> {
    body: Body,
    counter: C,
}

impl<C: ByteCounter> CountedBody<C> {
    pub(super) fn new(body: Body, mut counter: C) -> Self {
        // An empty body is never polled.
        if body.is_end_stream() {
            counter.end();
        }
        Self { body, counter }
    }
}

impl<C: ByteCounter> HttpBody for CountedBody<C> {
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

    impl ByteCounter for Seen {
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
    async fn all_bytes_are_counted_whether_the_length_is_known_or_not() {
        for (body, bytes) in [(Body::from("abcde"), 5), (streamed(), 5), (Body::empty(), 0)] {
            let seen = Seen::default();
            let counted = CountedBody::new(body, seen.clone());
            assert_eq!(counted.collect().await.unwrap().to_bytes().len() as u64, bytes);
            assert_eq!(*seen.0.lock().unwrap(), (bytes, true));
        }
    }

    #[tokio::test]
    async fn a_body_that_is_dropped_early_is_not_complete() {
        let seen = Seen::default();
        let mut counted = CountedBody::new(streamed(), seen.clone());
        counted.frame().await.unwrap().unwrap();
        drop(counted);
        assert_eq!(*seen.0.lock().unwrap(), (2, false));
    }
}
