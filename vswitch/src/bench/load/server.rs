//! The serving end.

use std::io::{self, BufRead, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;

use parking_lot::Mutex;

use super::datagrams::{self, Arrived};
use super::requests::{self, Counts};
use super::{DATAGRAMS, Question, REQUESTS, REQUESTS_OF_SERVICE, STREAMS, Served, settle, streams, tell};
use crate::clock;

/// So long nothing may come before what is on its way counts as lost.
const SILENCE: Duration = Duration::from_millis(100);
const STEP: Duration = Duration::from_millis(5);

/// Serves, and tells what it has counted as often as it is asked, until there is nobody to ask.
///
/// # Errors
/// When a port cannot be had, it is asked nonsense, or nobody listens any more.
pub(crate) fn serve(input: impl BufRead, mut out: impl Write) -> io::Result<()> {
    settle();
    let at = |port| SocketAddr::from((Ipv4Addr::UNSPECIFIED, port));
    let listener = TcpListener::bind(at(STREAMS))?;
    thread::spawn(move || streams::count_all(&listener));
    let (counts, arrived) = (Arc::new(Counts::default()), Arc::new(Mutex::new(Arrived::default())));
    answer([TcpListener::bind(at(REQUESTS))?, TcpListener::bind(at(REQUESTS_OF_SERVICE))?], &counts)?;
    let (socket, there) = (datagrams::receiver(at(DATAGRAMS))?, Arc::clone(&arrived));
    thread::spawn(move || datagrams::count_all(&socket, &there));
    tell(&mut out, &())?;
    for line in input.lines() {
        if serde_json::from_str::<Question>(&line?)? == Question::CountsAtRest {
            wait_for_silence(&arrived);
        }
        tell(&mut out, &take(&counts, &arrived))?;
    }
    Ok(())
}

/// Answers requests on one thread of its own.
fn answer(listeners: [TcpListener; 2], counts: &Arc<Counts>) -> io::Result<()> {
    let executor = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    let context = executor.enter();
    for listener in listeners {
        listener.set_nonblocking(true)?;
        let listener = tokio::net::TcpListener::from_std(listener)?;
        executor.spawn(requests::answer_all(listener, Arc::clone(counts)));
    }
    drop(context);
    thread::spawn(move || executor.block_on(std::future::pending::<()>()));
    Ok(())
}

fn wait_for_silence(arrived: &Mutex<Arrived>) {
    let asked = clock::now();
    while arrived.lock().last.unwrap_or(asked).max(asked).elapsed() < SILENCE {
        thread::sleep(STEP);
    }
}

/// What was counted; then it begins at nothing.
fn take(counts: &Counts, arrived: &Mutex<Arrived>) -> Served {
    let Arrived { datagrams, twice, changed, first, last, .. } = arrived.lock().take();
    let seconds = first.zip(last).map_or(0.0, |(first, last)| last.duration_since(first).as_secs_f64());
    Served {
        connections: counts.connections.swap(0, Ordering::SeqCst),
        answered: counts.answered.swap(0, Ordering::SeqCst),
        broken: counts.broken.swap(0, Ordering::SeqCst),
        datagrams,
        twice,
        changed,
        seconds,
    }
}
