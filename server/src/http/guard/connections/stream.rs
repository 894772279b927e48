//! Byte stream of a connection: reports its activity, and closes without losing the last reply.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep, sleep};

use super::activity::Activity;

/// Time for which bytes are read and discarded after the last reply.
const LINGER: Duration = Duration::from_secs(10);
/// Time without bytes after which lingering ends early.
const LINGER_SILENT: Duration = Duration::from_secs(2);

/// A TCP stream that lingers when it is shut down.
///
/// If a connection is closed with unread bytes, the operating system resets it, and the client loses what it has not
/// read yet, such as the 413 to an upload that it is still sending. The write half is therefore closed first, and
/// incoming bytes are discarded until the client has finished.
pub(super) struct Stream {
    tcp: TcpStream,
    activity: Arc<Activity>,
    lingering: Option<Lingering>,
}

struct Lingering {
    end: Pin<Box<Sleep>>,
    silence: Pin<Box<Sleep>>,
}

impl Stream {
    pub(super) fn new(tcp: TcpStream, activity: Arc<Activity>) -> Self {
        Self { tcp, activity, lingering: None }
    }
}

impl AsyncRead for Stream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.tcp).poll_read(cx, buffer))?;
        if buffer.filled().len() > before {
            self.activity.received();
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Stream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.tcp).poll_write(cx, bytes))?;
        self.activity.wrote(written);
        Poll::Ready(Ok(written))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.tcp).poll_write_vectored(cx, slices))?;
        self.activity.wrote(written);
        Poll::Ready(Ok(written))
    }

    fn is_write_vectored(&self) -> bool {
        self.tcp.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Self { tcp, lingering, .. } = &mut *self;
        if lingering.is_none() {
            ready!(Pin::new(&mut *tcp).poll_shutdown(cx))?;
        }
        let Lingering { end, silence } = lingering
            .get_or_insert_with(|| Lingering { end: Box::pin(sleep(LINGER)), silence: Box::pin(sleep(LINGER_SILENT)) });
        if end.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Ok(()));
        }
        let mut scratch = [0; 16 << 10];
        loop {
            let mut buffer = ReadBuf::new(&mut scratch);
            match Pin::new(&mut *tcp).poll_read(cx, &mut buffer) {
                Poll::Ready(Ok(())) if !buffer.filled().is_empty() => {
                    silence.as_mut().reset(Instant::now() + LINGER_SILENT);
                }
                // The client has finished or disconnected.
                Poll::Ready(_) => return Poll::Ready(Ok(())),
                Poll::Pending => return silence.as_mut().poll(cx).map(Ok),
            }
        }
    }
}
