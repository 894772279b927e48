//! Reply bodies split into pieces, to detect clients that do not read.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use axum::body::{Body, Bytes};
use http_body::{Frame, SizeHint};

use super::activity::{Protocol, RequestGuard, TAKEN_BYTES};

/// Bytes of a piece with HTTP/1, which the connection writes at once if it can. Smaller pieces mean more writes, and
/// each may wake the client, which takes longer than copying 64 KiB.
const PIECE: usize = 1 << 20;

/// A reply's body. The connection polls for the next piece when it has room; if the client does not read, the next
/// piece is not polled.
pub(super) struct WatchedReply {
    body: Body,
    /// The rest of a frame that is larger than a piece.
    rest: Bytes,
    guard: RequestGuard,
}

impl WatchedReply {
    pub(super) fn new(body: Body, guard: RequestGuard) -> Self {
        Self { body, rest: Bytes::new(), guard }
    }

    /// Bytes of the next piece. Written bytes are counted with HTTP/1; with HTTP/2 only whole pieces can be seen to
    /// leave. The last piece counts as taken once it is handed over, so it is always small.
    fn next_length(&self) -> usize {
        let left = self.rest.len();
        let is_end = left <= PIECE && http_body::Body::is_end_stream(&self.body);
        match self.guard.protocol() {
            Some(Protocol::Http2) => left.min(TAKEN_BYTES),
            _ if is_end && left > TAKEN_BYTES => left - TAKEN_BYTES,
            _ => left.min(PIECE),
        }
    }
}

impl http_body::Body for WatchedReply {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        self.guard.taken();
        if self.rest.is_empty() {
            match ready!(Pin::new(&mut self.body).poll_frame(cx)).transpose()?.map(Frame::into_data) {
                Some(Ok(data)) => self.rest = data,
                Some(Err(trailers)) => return Poll::Ready(Some(Ok(trailers))),
                None => return Poll::Ready(None),
            }
        }
        let length = self.next_length();
        let piece = self.rest.split_to(length);
        self.guard.offered();
        Poll::Ready(Some(Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let rest = self.rest.len() as u64;
        let body = self.body.size_hint();
        let mut hint = SizeHint::new();
        hint.set_lower(body.lower() + rest);
        if let Some(upper) = body.upper() {
            hint.set_upper(upper + rest);
        }
        hint
    }
}

#[cfg(test)]
mod tests {
    use http_body::Body as _;
    use http_body_util::BodyExt;

    use super::super::activity::{Activity, Protocol};
    use super::*;

    async fn pieces(protocol: Protocol) -> Vec<usize> {
        let activity = Activity::new();
        let bytes: Vec<u8> = (0..3_000_000_u32).map(|index| (index % 251) as u8).collect();
        let mut body = WatchedReply::new(Body::from(bytes.clone()), activity.begin_request(protocol));
        assert_eq!(body.size_hint().exact(), Some(3_000_000));
        let (mut received, mut pieces) = (Vec::new(), Vec::new());
        while let Some(frame) = body.frame().await {
            let piece = frame.unwrap().into_data().unwrap();
            pieces.push(piece.len());
            received.extend_from_slice(&piece);
            assert_eq!(body.size_hint().exact(), Some((3_000_000 - received.len()) as u64));
        }
        assert!(received == bytes && body.is_end_stream());
        assert!(activity.is_busy());
        drop(body);
        assert!(!activity.is_busy());
        pieces
    }

    #[tokio::test]
    async fn pieces_add_up_and_the_request_ends_with_the_body() {
        assert_eq!(pieces(Protocol::Http1).await, [PIECE, PIECE, 3_000_000 - 2 * PIECE - TAKEN_BYTES, TAKEN_BYTES]);
        assert!(pieces(Protocol::Http2).await.iter().all(|&length| length <= TAKEN_BYTES));
    }
}
