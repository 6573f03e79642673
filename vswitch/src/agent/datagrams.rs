//! Relaying UDP: a socket of its own for each client, by which the answers find their way back.

use std::collections::HashMap;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use nix::sys::socket::SockType;
use tokio::net::UdpSocket;
use tokio::sync::OwnedSemaphorePermit;
use tokio::task::JoinHandle;

use super::relay::{Room, Targets, open};
use crate::container::image::bind_to;

/// A client that was silent both ways for one whole interval is forgotten at its end.
const INTERVAL: Duration = Duration::from_secs(30);
/// The longest datagram.
const DATAGRAM: usize = 65_535;

/// One client.
struct Session {
    to: SocketAddr,
    far: Arc<UdpSocket>,
    used: Arc<AtomicBool>,
    answers: JoinHandle<()>,
    _permit: OwnedSemaphorePermit,
}

impl Drop for Session {
    fn drop(&mut self) {
        self.answers.abort();
    }
}

/// Relays the datagrams of one port, until it is aborted.
pub(super) async fn listen(at: SocketAddr, mut targets: Targets, room: Arc<Room>) {
    let bind = || UdpSocket::from_std(bind_to(SockType::Datagram, at)?.into());
    while let Some(near) = open(at, &mut targets, bind).await {
        if serve(Arc::new(near), &mut targets, &room).await.is_none() {
            return;
        }
    }
}

/// Until it leads nowhere; `None` when it is to end.
async fn serve(near: Arc<UdpSocket>, targets: &mut Targets, room: &Room) -> Option<()> {
    let mut sessions: HashMap<SocketAddr, Session> = HashMap::new();
    let mut interval = tokio::time::interval(INTERVAL);
    let mut datagram = vec![0; DATAGRAM];
    loop {
        tokio::select! {
            changed = targets.changed() => {
                changed.ok()?;
                let to = targets.borrow_and_update();
                // Who spoke to somebody who is gone speaks to somebody else from now on.
                sessions.retain(|_, session| to.contains(&session.to));
                if to.is_empty() {
                    return Some(());
                }
            }
            _ = interval.tick() => {
                sessions.retain(|_, session| {
                    !session.answers.is_finished() && session.used.swap(false, Ordering::Relaxed)
                });
            }
            received = near.recv_from(&mut datagram) => {
                // An ICMP error about an earlier answer concerns nobody any more.
                let Ok((length, client)) = received else { continue };
                if sessions.get(&client).is_none_or(|session| session.answers.is_finished()) {
                    let to = room.in_turn(&targets.borrow());
                    let made = to.first().and_then(|to| session(&near, client, *to, room));
                    let Some(made) = made else { continue };
                    sessions.insert(client, made);
                }
                let Some(session) = sessions.get(&client) else { continue };
                session.used.store(true, Ordering::Relaxed);
                // That an earlier one was refused shows here; whoever sent it is not told.
                let _ = session.far.send(datagram.get(..length).unwrap_or_default()).await;
            }
        }
    }
}

/// Begins with a client; `None` if there is no room, or no way to the target.
fn session(near: &Arc<UdpSocket>, client: SocketAddr, to: SocketAddr, room: &Room) -> Option<Session> {
    let permit = Arc::clone(&room.sessions).try_acquire_owned().ok()?;
    let far = Arc::new(connected(to).ok()?);
    let used = Arc::new(AtomicBool::new(true));
    let (near, from, seen) = (Arc::clone(near), Arc::clone(&far), Arc::clone(&used));
    let answers = tokio::spawn(async move {
        let mut datagram = vec![0; DATAGRAM];
        // It ends when the target refuses; the client's next datagram begins anew.
        while let Ok(length) = from.recv(&mut datagram).await {
            seen.store(true, Ordering::Relaxed);
            let _ = near.send_to(datagram.get(..length).unwrap_or_default(), client).await;
        }
    });
    Some(Session { to, far, used, answers, _permit: permit })
}

/// A socket whose peer is set: it hears nobody else, and is told of refusals.
fn connected(to: SocketAddr) -> io::Result<UdpSocket> {
    let any = if to.is_ipv4() {
        SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0))
    } else {
        SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0))
    };
    let socket = std::net::UdpSocket::from(bind_to(SockType::Datagram, any)?);
    socket.connect(to)?;
    UdpSocket::from_std(socket)
}
