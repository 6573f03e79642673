//! A stream whose reader must go on reading.
//!
//! # Theory of operation
//! What is written waits for room when its reader does not take it. A clock runs from the first write that finds no room
//! to the next one that finds some; when it reaches the limit, writing fails, and with it ends whatever the connection
//! holds: its task, the answer that is left, the capture behind it. A connection on which nothing is to be written waits as
//! long as it likes.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep};

/// The stream `S`, on which no write waits for longer than a limit.
#[derive(Debug)]
pub(super) struct Impatient<S> {
    stream: S,
    limit: Duration,
    /// Runs while there is no room.
    patience: Option<Pin<Box<Sleep>>>,
    /// Counts those whose limit was reached.
    stalled: Arc<AtomicU64>,
}

impl<S: Unpin> Impatient<S> {
    pub(super) fn new(stream: S, limit: Duration, stalled: Arc<AtomicU64>) -> Self {
        Self { stream, limit, patience: None, stalled }
    }

    fn judge<T>(&mut self, context: &mut Context<'_>, written: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.patience = None;
            return written;
        }
        let limit = self.limit;
        let patience = self.patience.get_or_insert_with(|| Box::pin(sleep(limit)));
        ready!(patience.as_mut().poll(context));
        self.patience = None;
        self.stalled.fetch_add(1, Ordering::Relaxed);
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Impatient<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Impatient<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        octets: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(context, octets);
        self.judge(context, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(context, parts);
        self.judge(context, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.stream).poll_flush(context);
        self.judge(context, flushed)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use tokio::net::UnixStream;

    use super::*;

    /// Writes so many octets, or as many as it can, and says how that ended and how many have stalled.
    fn write(limit: Duration, octets: usize, read: impl AsyncFnOnce(UnixStream)) -> (io::Result<usize>, u64) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let stalled = Arc::new(AtomicU64::new(0));
        let counter = Arc::clone(&stalled);
        let result = runtime.block_on(async {
            let (ours, theirs) = UnixStream::pair().unwrap();
            let mut stream = Impatient::new(ours, limit, counter);
            let write = async move {
                let mut left = octets;
                while left > 0 {
                    let octets = vec![0; left.min(10_000)];
                    left -= poll_fn(|context| Pin::new(&mut stream).poll_write(context, &octets)).await?;
                }
                Ok(octets)
            };
            tokio::join!(write, read(theirs)).0
        });
        (result, stalled.load(Ordering::Relaxed))
    }

    #[test]
    fn whoever_does_not_read_is_given_up_and_counted() {
        let limit = Duration::from_millis(100);
        let (result, stalled) = write(limit, 1 << 30, async |_unread| sleep(20 * limit).await);
        assert_eq!((result.unwrap_err().kind(), stalled), (io::ErrorKind::TimedOut, 1));
    }

    #[test]
    fn whoever_reads_now_and_then_is_waited_for() {
        const ALL: usize = 4 << 20;
        let limit = Duration::from_secs(1);
        let read = async |stream: UnixStream| {
            let mut octets = vec![0; ALL];
            let mut read = 0;
            // Together this takes longer than the limit, as no socket holds a tenth of it, and each step much less.
            while read < ALL {
                sleep(limit / 5).await;
                while read < ALL
                    && let Ok(more) = stream.try_read(&mut octets)
                {
                    read += more;
                }
            }
        };
        let (result, stalled) = write(limit, ALL, read);
        assert_eq!((result.unwrap(), stalled), (ALL, 0));
    }
}
