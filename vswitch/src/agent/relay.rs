//! Relaying TCP.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use nix::sys::socket::{SockType, setsockopt, sockopt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinHandle;

use super::role::say;
use crate::container::image::bind_to;

/// TCP connections of one agent; further ones wait to be accepted.
const MAX_CONNECTIONS: usize = 4096;
/// UDP clients of one agent; what further ones send is dropped.
const MAX_SESSIONS: usize = 4096;
/// How long one backend may take to accept a connection before the next is asked.
const CONNECT_LIMIT: Duration = Duration::from_secs(3);
/// Backends that are asked for one connection.
const TRIES: usize = 5;
/// How long to wait for a port that somebody else has.
pub(super) const PORT_TAKEN: Duration = Duration::from_secs(1);

/// What all relays of one agent share.
#[derive(Debug)]
pub(super) struct Room {
    connections: Arc<Semaphore>,
    pub(super) sessions: Arc<Semaphore>,
    /// Whose turn it is.
    turn: AtomicUsize,
}

impl Room {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self {
            connections: Arc::new(Semaphore::new(MAX_CONNECTIONS)),
            sessions: Arc::new(Semaphore::new(MAX_SESSIONS)),
            turn: AtomicUsize::new(0),
        })
    }

    /// The targets, beginning with the one whose turn it is.
    pub(super) fn in_turn(&self, to: &[SocketAddr]) -> Vec<SocketAddr> {
        let first = self.turn.fetch_add(1, Ordering::Relaxed).checked_rem(to.len()).unwrap_or(0);
        to.iter().cycle().skip(first).take(to.len().min(TRIES)).copied().collect()
    }
}

/// Where a port leads.
pub(super) type Targets = watch::Receiver<Vec<SocketAddr>>;

/// Ports that lead elsewhere, of one protocol.
pub(super) struct Relays {
    open: BTreeMap<SocketAddr, (watch::Sender<Vec<SocketAddr>>, JoinHandle<()>)>,
    listen: Box<dyn Fn(SocketAddr, Targets) -> JoinHandle<()> + Send>,
}

impl Relays {
    /// `listen` serves one port until it is aborted.
    pub(super) fn new<F>(listen: impl Fn(SocketAddr, Targets) -> F + Send + 'static) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        Self { open: BTreeMap::new(), listen: Box::new(move |at, to| tokio::spawn(listen(at, to))) }
    }

    pub(super) fn set(&mut self, at: SocketAddr, to: Option<Vec<SocketAddr>>) {
        match (to, self.open.get(&at)) {
            (Some(to), Some((sender, _))) => {
                sender.send_replace(to);
            }
            (Some(to), None) => {
                let (sender, targets) = watch::channel(to);
                let task = (self.listen)(at, targets);
                self.open.insert(at, (sender, task));
            }
            (None, _) => self.retain(|open| *open != at),
        }
    }

    pub(super) fn retain(&mut self, stays: impl Fn(&SocketAddr) -> bool) {
        self.open.retain(|at, (_, task)| {
            let stays = stays(at);
            if !stays {
                task.abort();
            }
            stays
        });
    }
}

/// Waits until the port leads somewhere, and takes it; the error is told once, and the port is tried again.
pub(super) async fn open<S>(
    at: SocketAddr,
    targets: &mut Targets,
    open: impl Fn() -> io::Result<S>,
) -> Option<S> {
    let mut told = false;
    loop {
        // An error says that it is to end.
        targets.wait_for(|to| !to.is_empty()).await.ok()?;
        match open() {
            Ok(socket) => return Some(socket),
            Err(error) => {
                if !told {
                    say(&format!("{at} is not relayed as long as it cannot be listened on: {error}"));
                }
                told = true;
                tokio::time::sleep(PORT_TAKEN).await;
            }
        }
    }
}

/// Relays the connections of one port, until it is aborted; those that are open then go on to their end.
pub(super) async fn listen(at: SocketAddr, mut targets: Targets, room: Arc<Room>) {
    let bind = || TcpListener::from_std(bind_to(SockType::Stream, at)?.into());
    while let Some(listener) = open(at, &mut targets, bind).await {
        // With nowhere to lead it is closed, so that the kernel refuses.
        while !targets.borrow_and_update().is_empty() {
            let accepted = async {
                let permit = Arc::clone(&room.connections).acquire_owned().await.ok()?;
                Some((listener.accept().await.ok()?.0, permit))
            };
            tokio::select! {
                changed = targets.changed() => if changed.is_err() { return },
                accepted = accepted => {
                    let Some((stream, permit)) = accepted else { continue };
                    let to = room.in_turn(&targets.borrow());
                    tokio::spawn(async move {
                        relay(stream, &to).await;
                        drop(permit);
                    });
                }
            }
        }
    }
}

/// Relays one connection to the first target that accepts it. Each direction ends by itself; what goes wrong at one end is
/// a reset at the other.
async fn relay(mut near: TcpStream, to: &[SocketAddr]) {
    for target in to {
        let Ok(Ok(mut far)) = tokio::time::timeout(CONNECT_LIMIT, TcpStream::connect(target)).await else {
            continue;
        };
        for stream in [&near, &far] {
            // Whoever has gone without a word is found out. Both fail only on sockets that are gone.
            let _ = setsockopt(stream, sockopt::KeepAlive, &true);
            let _ = stream.set_nodelay(true);
        }
        if tokio::io::copy_bidirectional(&mut near, &mut far).await.is_err() {
            reset(&near);
            reset(&far);
        }
        return;
    }
    reset(&near);
}

/// Has the connection end by a reset when it is dropped.
fn reset(stream: &TcpStream) {
    let now = libc::linger { l_onoff: 1, l_linger: 0 };
    let _ = setsockopt(stream, sockopt::Linger, &now);
}
