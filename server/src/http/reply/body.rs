//! Reply bodies that are computed while they are sent.
//!
//! A few pieces are computed on the CPU pool ahead of what the connection has taken, so that the processors and the
//! connection are busy at the same time. A slow client occupies a few pieces of memory and no thread; pieces that have
//! not begun when it disconnects are never computed. A piece whose values lie in memory takes less time to make than to
//! hand to another thread, and is made on the thread that sends it.

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

/// Bodies up to this size are computed before they are sent.
const MAX_WHOLE_BYTES: u64 = 1 << 20;
/// Pieces that are computed ahead of what the connection has taken.
const PIECES_AHEAD: usize = 2;
/// Approximate memory of a reply's pieces: those ahead, the one that is sent, and their parts as text.
pub(in crate::http) const PIECES_BYTES: u64 = 8 << 20;

/// A body as a sequence of segments.
#[derive(Default)]
pub(in crate::http) struct ReplyBody(Vec<Segment>);

enum Segment {
    Bytes(Bytes),
    Tensor(EncodedTensor),
}

impl ReplyBody {
    /// Creates a body of bytes.
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

    /// Length in bytes, if it is known before the body is computed.
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

    /// True if a piece takes less time to make than to hand to another thread.
    fn is_quick(&self, (segment, _): (usize, usize)) -> bool {
        match &self.0[segment] {
            Segment::Bytes(_) => true,
            Segment::Tensor(tensor) => tensor.is_quick(),
        }
    }

    /// Converts into an HTTP body. A small one is computed now, on the caller's thread; a large one while it is sent,
    /// on `cpu`.
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
            ahead: VecDeque::with_capacity(PIECES_AHEAD),
            has_yielded: true,
        })
    }
}

struct StreamedBody {
    reply: Arc<ReplyBody>,
    /// Pieces that have not begun, as segment and index.
    pieces: VecDeque<(usize, usize)>,
    /// Bytes that are not sent yet, if the length is known.
    remaining: Option<u64>,
    cpu: CpuPool,
    /// Pieces that have begun, in order. Each is a task of its own, so that a job advances in the pool's queue while
    /// the connection does not poll.
    ahead: VecDeque<JoinHandle<Result<Bytes, JobError>>>,
    /// True if the sending task has yielded since the last piece.
    has_yielded: bool,
}

impl StreamedBody {
    fn compute_ahead(&mut self) {
        while self.ahead.len() < PIECES_AHEAD {
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
        if !self.has_yielded {
            // Compressing a piece takes milliseconds; a hundred in a row would delay other requests.
            self.has_yielded = true;
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        let result = match self.ahead.front_mut() {
            Some(next) => {
                let result = ready!(Pin::new(next).poll(context));
                self.ahead.pop_front();
                result
            }
            // The next piece, if any, is a quick one.
            None => match self.pieces.pop_front() {
                Some(piece) => Ok(Ok(self.reply.piece(piece))),
                None => return Poll::Ready(None),
            },
        };
        self.compute_ahead();
        match result {
            Ok(Ok(bytes)) => {
                self.has_yielded = false;
                self.remaining = self.remaining.map(|remaining| remaining.saturating_sub(bytes.len() as u64));
                Poll::Ready(Some(Ok(Frame::data(bytes))))
            }
            Ok(Err(error)) => {
                // The status has been sent; the reply can only be broken off.
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

    use http_body_util::BodyExt;

    use super::*;
    use densecl_vision::features::{Dtype, NumberForm, Tensor};

    /// A tensor of a megabyte per piece that counts its computed values.
    struct CountingTensor(Arc<AtomicUsize>);

    const VALUES: usize = 20 << 18;

    impl Tensor for CountingTensor {
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

    fn body(cpu: CpuPool) -> (Body, Arc<AtomicUsize>) {
        let computed = Arc::new(AtomicUsize::new(0));
        let tensor = EncodedTensor::new(Arc::new(CountingTensor(computed.clone())), NumberForm::Binary(Dtype::Float32));
        let reply = ReplyBody::from_bytes("head").tensor(tensor).bytes("tail");
        (reply.into_body(cpu), computed)
    }

    /// Waits until a pool with one thread has run all jobs, and those that they start: it runs more jobs, one after the
    /// other, than a body has pieces.
    async fn wait_for_jobs(cpu: &CpuPool) {
        for _ in 0..100 {
            cpu.run(|| ()).await.unwrap();
        }
    }

    #[tokio::test]
    async fn a_streamed_body_is_complete_in_order_and_of_known_length() {
        let (body, _) = body(CpuPool::new(2).unwrap());
        assert_eq!(body.size_hint().exact(), Some(4 * VALUES as u64 + 8));
        let bytes = body.collect().await.unwrap().to_bytes();
        let expected: Vec<u8> = (0..VALUES).flat_map(|index| (index as f32).to_le_bytes()).collect();
        let (head, rest) = bytes.split_at(4);
        let (numbers, tail) = rest.split_at(rest.len() - 4);
        assert!(head == b"head" && tail == b"tail" && numbers == expected);
    }

    /// A tensor whose values lie in memory.
    struct StoredTensor(Arc<Vec<f32>>);

    impl Tensor for StoredTensor {
        fn shape(&self) -> Vec<usize> {
            vec![self.0.len()]
        }

        fn unit(&self) -> usize {
            1
        }

        fn append(&self, _: Range<usize>, _: &mut Vec<f32>) {
            panic!("stored values are not computed");
        }

        fn whole(&self) -> Option<Arc<Vec<f32>>> {
            Some(Arc::clone(&self.0))
        }
    }

    #[tokio::test]
    async fn quick_and_computed_pieces_keep_their_order() {
        let stored: Vec<f32> = (0..700_000).map(|index| index as f32 * 0.5).collect();
        let encoded = |tensor: Arc<dyn Tensor>| EncodedTensor::new(tensor, NumberForm::Binary(Dtype::Float32));
        let computed = || encoded(Arc::new(CountingTensor(Arc::default())));
        let reply = ReplyBody::from_bytes("head")
            .tensor(computed())
            .tensor(encoded(Arc::new(StoredTensor(Arc::new(stored.clone())))));
        let body = reply.bytes("middle").tensor(computed()).into_body(CpuPool::new(2).unwrap());
        let found = body.collect().await.unwrap().to_bytes();
        let bytes = |values: &[f32]| values.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<u8>>();
        let counted = bytes(&(0..VALUES).map(|index| index as f32).collect::<Vec<_>>());
        assert!(found == [b"head", &counted[..], &bytes(&stored), b"middle", &counted].concat());
    }

    #[tokio::test]
    async fn only_the_pieces_ahead_are_computed_for_a_client_that_does_not_read() {
        let cpu = CpuPool::new(1).unwrap();
        let (mut body, computed) = body(cpu.clone());
        assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap(), "head");
        let expected = PIECES_AHEAD << 18..=PIECES_AHEAD * ((1 << 18) + 3);
        for body in [Some(body), None] {
            wait_for_jobs(&cpu).await;
            let computed = computed.load(Ordering::Relaxed);
            assert!(expected.contains(&computed), "{computed} values, the body is dropped: {}", body.is_none());
        }
    }

    #[tokio::test]
    async fn pieces_that_have_not_begun_when_the_body_is_dropped_are_not_computed() {
        let cpu = CpuPool::new(1).unwrap();
        let (release, released) = std::sync::mpsc::channel::<()>();
        let occupying = tokio::spawn({
            let cpu = cpu.clone();
            async move { cpu.run(move || released.recv()).await }
        });
        // Its job takes the only thread before the pieces are queued.
        tokio::task::yield_now().await;
        let (mut body, computed) = body(cpu.clone());
        assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap(), "head");
        tokio::task::yield_now().await;
        drop(body);
        drop(release);
        occupying.await.unwrap().unwrap().unwrap_err();
        wait_for_jobs(&cpu).await;
        assert_eq!(computed.load(Ordering::Relaxed), 0);
    }
}
