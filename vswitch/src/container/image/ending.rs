//! How a server ends: it goes on as long as somebody is connected, and lets everybody know that it is time to go.
//!
//! A server that is told to end may still get connections that were on their way, and requests on those that it has. All
//! of them are answered. It ends when no connection is left and none has come for a moment; whoever started it puts an end
//! to waiting for longer.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{Semaphore, watch};

/// TCP connections at once; further ones wait to be accepted.
const MAX_CONNECTIONS: usize = 1024;
/// How long there is no connection before the server ends: those on their way have come by then.
const QUIET: Duration = Duration::from_millis(200);

/// The end of a server, and who is connected to it.
#[derive(Debug)]
pub(super) struct Ending {
    told: watch::Sender<bool>,
    room: Arc<Semaphore>,
}

/// What one connection knows of it. As long as it is there the server is.
#[derive(Clone, Debug)]
pub(super) struct Told(watch::Receiver<bool>);

impl Told {
    /// Whether the server is to end.
    pub(super) fn is_told(&self) -> bool {
        *self.0.borrow()
    }

    /// Waits until it is.
    pub(super) async fn told(&mut self) {
        // An error says that the server is gone.
        let _ = self.0.wait_for(|told| *told).await;
    }
}

impl Ending {
    pub(super) fn new() -> Self {
        Self { told: watch::channel(false).0, room: Arc::new(Semaphore::new(MAX_CONNECTIONS)) }
    }

    /// Serves every connection in a task of its own, for ever.
    pub(super) async fn accept<F>(
        &self,
        listener: &TcpListener,
        serve: impl Fn(TcpStream, SocketAddr, Told) -> F,
    ) -> io::Result<()>
    where
        F: Future<Output = ()> + Send + 'static,
    {
        loop {
            let permit = Arc::clone(&self.room).acquire_owned().await.map_err(io::Error::other)?;
            // A connection that was broken off before it was accepted is no reason to end.
            let Ok((stream, peer)) = listener.accept().await else { continue };
            let serving = serve(stream, peer, Told(self.told.subscribe()));
            tokio::spawn(async move {
                serving.await;
                drop(permit);
            });
        }
    }

    /// Waits for SIGTERM, and then until nobody is connected any more.
    pub(super) async fn end(&self) -> io::Result<()> {
        let mut term = signal(SignalKind::terminate())?;
        term.recv().await;
        self.told.send_replace(true);
        loop {
            self.told.closed().await;
            tokio::time::sleep(QUIET).await;
            if self.told.receiver_count() == 0 {
                return Ok(());
            }
        }
    }
}
