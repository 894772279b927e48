//! Bodies of replies that are computed while they are sent.
//!
//! A piece is computed on the CPU pool when the connection has taken the ones before it, and a few at a time so that
//! all processors and the connection are busy at once. A slow client thus holds a few pieces in memory and no thread;
//! when it goes, what was not begun never is. Where the values lie in memory a piece is quicker made than handed to
//! another thread, and is made where it is sent.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use axum::BoxError;
use axum::body::{Body, Bytes, HttpBody};
use http_body::{Frame, SizeHint};
use tokio::task::JoinHandle;

use densecl_vision::features::EncodedTensor;

use crate::serving::{CpuPool, JobError};

/// Bodies up to this size are computed at once.
const MAX_WHOLE_BYTES: u64 = 1 << 20;
/// Pieces that are computed ahead of what the connection has taken.
const AHEAD: usize = 2;
/// About what a reply holds in pieces: those ahead, the one that is sent, and their parts as text.
pub(in crate::http) const PIECES_BYTES: u64 = 8 << 20;

/// A body as a sequence of segments.
#[derive(Default)]
pub(in crate::http) struct ReplyBody(Vec<Segment>);

enum Segment {
    Bytes(Bytes),
    Tensor(EncodedTensor),
}

impl ReplyBody {
    /// A body that is there already.
    pub(in crate::http) fn from_bytes(bytes: impl Into<Bytes>) -> Self {
        Self::default().bytes(bytes)
    }

    /// Adds bytes.
    pub(in crate::http) fn bytes(mut self, bytes: impl Into<Bytes>) -> Self {
        self.0.push(Segment::Bytes(bytes.into()));
        self
    }

    /// Adds a tensor.
    pub(in crate::http) fn tensor(mut self, tensor: EncodedTensor) -> Self {
        self.0.push(Segment::Tensor(tensor));
        self
    }

    /// How many bytes there are, where that is known before they are computed.
    fn length(&self) -> Option<u64> {
        let lengths = self.0.iter().map(|segment| match segment {
            Segment::Bytes(bytes) => Some(bytes.len() as u64),
            Segment::Tensor(tensor) => tensor.bytes(),
        });
        lengths.sum()
    }

    fn pieces(&self) -> impl Iterator<Item = (usize, usize)> {
        let counts = self.0.iter().map(|segment| match segment {
            Segment::Bytes(_) => 1,
            Segment::Tensor(tensor) => tensor.pieces(),
        });
        counts.enumerate().flat_map(|(segment, count)| (0..count).map(move |piece| (segment, piece)))
    }

    fn piece(&self, (segment, piece): (usize, usize)) -> Bytes {
        match &self.0[segment] {
            Segment::Bytes(bytes) => bytes.clone(),
            Segment::Tensor(tensor) => tensor.piece(piece),
        }
    }

    /// Whether a piece is quicker made than handed to another thread.
    fn is_quick(&self, (segment, _): (usize, usize)) -> bool {
        match &self.0[segment] {
            Segment::Bytes(_) => true,
            Segment::Tensor(tensor) => tensor.is_quick(),
        }
    }

    /// The body itself. A small one is computed now, on the caller's thread; a large one while it is sent, on `cpu`.
    pub(in crate::http) fn into_body(self, cpu: CpuPool) -> Body {
        if self.length().is_some_and(|length| length <= MAX_WHOLE_BYTES) {
            let pieces: Vec<Bytes> = self.pieces().map(|piece| self.piece(piece)).collect();
            return Body::from(pieces.concat());
        }
        let (remaining, pieces) = (self.length(), self.pieces().collect::<VecDeque<_>>());
        Body::new(StreamedBody {
            reply: Arc::new(self),
            pieces,
            remaining,
            cpu,
            ahead: VecDeque::with_capacity(AHEAD),
            rested: true,
        })
    }
}

struct StreamedBody {
    reply: Arc<ReplyBody>,
    /// Not yet begun.
    pieces: VecDeque<(usize, usize)>,
    /// Bytes that are still to come.
    remaining: Option<u64>,
    cpu: CpuPool,
    /// Begun, in order. Tasks of their own: a job that waits for its turn on the pool must not wait for the connection
    /// to take it.
    ahead: VecDeque<JoinHandle<Result<Bytes, JobError>>>,
    /// Whether the task that sends has let others run since the last piece.
    rested: bool,
}

impl StreamedBody {
    fn compute_ahead(&mut self) {
        while self.ahead.len() < AHEAD {
            let is_next = |piece: &mut (usize, usize)| !self.reply.is_quick(*piece);
            let Some(piece) = self.pieces.pop_front_if(is_next) else { return };
            let (reply, cpu) = (Arc::clone(&self.reply), self.cpu.clone());
            self.ahead.push_back(tokio::spawn(async move { cpu.run(move || reply.piece(piece)).await }));
        }
    }
}

impl HttpBody for StreamedBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        self.compute_ahead();
        if !self.rested {
            // To compress a piece takes milliseconds; a hundred in a row would keep other requests waiting.
            self.rested = true;
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        let result = match self.ahead.front_mut() {
            Some(next) => {
                let result = ready!(Pin::new(next).poll(context));
                self.ahead.pop_front();
                result
            }
            // What is left begins with a quick one.
            None => match self.pieces.pop_front() {
                Some(piece) => Ok(Ok(self.reply.piece(piece))),
                None => return Poll::Ready(None),
            },
        };
        self.compute_ahead();
        match result {
            Ok(Ok(bytes)) => {
                self.rested = false;
                self.remaining = self.remaining.map(|remaining| remaining.saturating_sub(bytes.len() as u64));
                Poll::Ready(Some(Ok(Frame::data(bytes))))
            }
            Ok(Err(error)) => {
                // The status was sent long ago: all that is left is to break the reply off.
                tracing::error!(%error, "reply broken off");
                Poll::Ready(Some(Err(error.into())))
            }
            Err(error) => Poll::Ready(Some(Err(error.into()))),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.ahead.is_empty() && self.pieces.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        self.remaining.map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}

impl Drop for StreamedBody {
    fn drop(&mut self) {
        for task in &self.ahead {
            task.abort();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::ops::Range;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;

    use http_body_util::BodyExt;

    use super::*;
    use densecl_vision::features::{Dtype, NumberForm, Tensor};

    /// A megabyte a piece, and how many values were computed.
    struct Counting(Arc<AtomicUsize>);

    const VALUES: usize = 20 << 18;

    impl Tensor for Counting {
        fn shape(&self) -> Vec<usize> {
            vec![VALUES]
        }

        fn unit(&self) -> usize {
            1
        }

        fn append(&self, range: Range<usize>, values: &mut Vec<f32>) {
            self.0.fetch_add(range.len(), Ordering::Relaxed);
            values.extend(range.map(|index| index as f32));
        }
    }

    fn body() -> (Body, Arc<AtomicUsize>) {
        let computed = Arc::new(AtomicUsize::new(0));
        let tensor = EncodedTensor::new(Arc::new(Counting(computed.clone())), NumberForm::Binary(Dtype::Float32));
        let reply = ReplyBody::from_bytes("head").tensor(tensor).bytes("tail");
        (reply.into_body(CpuPool::new(2).unwrap()), computed)
    }

    #[tokio::test]
    async fn a_streamed_body_is_whole_in_order_and_of_known_length() {
        let (body, _) = body();
        assert_eq!(body.size_hint().exact(), Some(4 * VALUES as u64 + 8));
        let bytes = body.collect().await.unwrap().to_bytes();
        let expected: Vec<u8> = (0..VALUES).flat_map(|index| (index as f32).to_le_bytes()).collect();
        let (head, rest) = bytes.split_at(4);
        let (numbers, tail) = rest.split_at(rest.len() - 4);
        assert!(head == b"head" && tail == b"tail" && numbers == expected);
    }

    /// Values that lie in memory.
    struct Kept(Arc<Vec<f32>>);

    impl Tensor for Kept {
        fn shape(&self) -> Vec<usize> {
            vec![self.0.len()]
        }

        fn unit(&self) -> usize {
            1
        }

        fn append(&self, _: Range<usize>, _: &mut Vec<f32>) {
            panic!("what lies in memory is taken from there");
        }

        fn whole(&self) -> Option<Arc<Vec<f32>>> {
            Some(Arc::clone(&self.0))
        }
    }

    #[tokio::test]
    async fn quick_pieces_keep_their_place_among_computed_ones() {
        let kept: Vec<f32> = (0..700_000).map(|index| index as f32 * 0.5).collect();
        let encoded = |tensor: Arc<dyn Tensor>| EncodedTensor::new(tensor, NumberForm::Binary(Dtype::Float32));
        let computed = || encoded(Arc::new(Counting(Arc::default())));
        let reply =
            ReplyBody::from_bytes("head").tensor(computed()).tensor(encoded(Arc::new(Kept(Arc::new(kept.clone())))));
        let body = reply.bytes("middle").tensor(computed()).into_body(CpuPool::new(2).unwrap());
        let found = body.collect().await.unwrap().to_bytes();
        let bytes = |values: &[f32]| values.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<u8>>();
        let counted = bytes(&(0..VALUES).map(|index| index as f32).collect::<Vec<_>>());
        assert!(found == [b"head", &counted[..], &bytes(&kept), b"middle", &counted].concat());
    }

    #[tokio::test]
    async fn nothing_is_computed_for_a_client_that_takes_nothing() {
        let (mut body, computed) = body();
        assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap(), "head");
        // What was begun comes to its end, and nothing else is begun.
        let ahead = AHEAD * ((1 << 18) + 3);
        until("the pieces ahead", || computed.load(Ordering::Relaxed) >= 1 << 18).await;
        tokio::time::sleep(Duration::from_millis(50)).await;
        drop(body);
        tokio::time::sleep(Duration::from_millis(50)).await;
        assert!(computed.load(Ordering::Relaxed) <= ahead, "{}", computed.load(Ordering::Relaxed));
    }

    async fn until(what: &str, condition: impl Fn() -> bool) {
        let poll = async {
            while !condition() {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        assert!(tokio::time::timeout(Duration::from_secs(10), poll).await.is_ok(), "waited for {what} in vain");
    }
}
