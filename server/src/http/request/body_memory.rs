//! Request bodies whose memory is reserved as they arrive.

use std::pin::Pin;
use std::task::{Context, Poll};

use axum::body::{Body, Bytes, HttpBody};
use axum::extract::Request;

use crate::serving::admission::BodyMemory;

/// Wraps the body of `request`, so that it reserves memory as it arrives and fails if there is none.
pub(in crate::http) fn metered(request: Request, memory: &BodyMemory) -> Request {
    request.map(|body| Body::new(MeteredBody { body, memory: memory.clone() }))
}

/// A body that reserves memory for each frame.
struct MeteredBody {
    body: Body,
    memory: BodyMemory,
}

impl HttpBody for MeteredBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<http_body::Frame<Bytes>, axum::Error>>> {
        let frame = std::task::ready!(Pin::new(&mut self.body).poll_frame(context));
        let reserved = frame.map(|frame| {
            let frame = frame?;
            self.memory.take(frame.data_ref().map_or(0, Bytes::len) as u64).map_err(axum::Error::new)?;
            Ok(frame)
        });
        Poll::Ready(reserved)
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
    use super::*;
    use crate::serving::admission::tests::admission;

    #[tokio::test]
    async fn bodies_reserve_memory_as_they_arrive() {
        let admission = admission(9, 100);
        let read = async |memory: &BodyMemory, text: &'static str| {
            axum::body::to_bytes(metered(Request::new(Body::from(text)), memory).into_body(), 99).await
        };
        let (one, other) = (admission.body(), admission.body());
        assert_eq!(read(&one, "six by").await.unwrap(), "six by");
        assert!(read(&other, "six by").await.is_err());
        assert!(other.was_refused() && !one.was_refused());
        drop(one);
        assert!(read(&admission.body(), "six by").await.is_ok());
    }
}
