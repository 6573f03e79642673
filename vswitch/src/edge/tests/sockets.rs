//! The sockets of this machine, without an edge.

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::thread;
use std::time::Duration;

use crate::edge::outside::{Farewell, Outside as _, Peeked, SocketId};
use crate::edge::sockets::Sockets;

const ALL: usize = 50_000;

/// What is there for a socket, once it is as much as that.
fn peek(sockets: &mut Sockets, socket: SocketId, length: usize) -> Vec<u8> {
    let mut into = vec![0; ALL + 1];
    for _ in 0..1000 {
        if sockets.peek(socket, 0, &mut into).unwrap() == Peeked::Octets(length) {
            into.truncate(length);
            return into;
        }
        thread::sleep(Duration::from_millis(5));
    }
    panic!("{length} octets never came");
}

#[test]
fn what_is_discarded_is_put_off_no_longer_than_until_it_matters() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut sockets = Sockets::new().unwrap();
    let (one, other) = (SocketId(0), SocketId(1));
    let all: Vec<u8> = (0u8..=250).cycle().take(ALL).collect();
    let mut servers = [one, other].map(|socket| {
        sockets.connect(socket, listener.local_addr().unwrap()).unwrap();
        listener.accept().unwrap().0
    });
    for (server, socket) in servers.iter_mut().zip([one, other]) {
        server.write_all(&all).unwrap();
        assert_eq!(peek(&mut sockets, socket, ALL), all);
    }
    // By the next look at the same socket, by what another one discards, and by the end of the batch.
    sockets.discard(one, 20_000);
    sockets.discard(one, 300);
    assert_eq!(peek(&mut sockets, one, ALL - 20_300), all[20_300..]);
    sockets.discard(one, 7);
    sockets.discard(other, 30_000);
    sockets.settle();
    assert_eq!(peek(&mut sockets, one, ALL - 20_307), all[20_307..]);
    assert_eq!(peek(&mut sockets, other, ALL - 30_000), all[30_000..]);
    // What is closed has nothing left in it: it would be a reset.
    sockets.discard(one, ALL - 20_307);
    sockets.close(one, Farewell::Gentle);
    assert_eq!(servers[0].read(&mut [0; 1]).unwrap(), 0);
    sockets.close(other, Farewell::Gentle);
    assert!(servers[1].read(&mut [0; 1]).is_err(), "what nobody took is told");
}
