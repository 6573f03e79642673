//! A network that falls into two parts in the middle of a transfer, and is made whole again.

use std::net::SocketAddr;
use std::time::Duration;

use netstack::addr::{MacAddr, PortId};
use netstack::host::{HostConfig, TcpHandle, TcpListener};
use netstack::seed::Seed;
use netstack::sim::{HostId, Lab, LinkProfile, Side};

const LENGTH: usize = 2_000_000;
const DELAY: Duration = Duration::from_millis(5);

/// What is sent: no two parts of it are alike.
fn octet(at: usize) -> u8 {
    u8::try_from(at * 31 % 251).unwrap()
}

struct Transfer {
    from: HostId,
    to: HostId,
    client: TcpHandle,
    listener: TcpListener,
    server: Option<TcpHandle>,
    sent: usize,
    received: usize,
}

impl Transfer {
    fn begin(lab: &mut Lab, from: HostId, to: HostId, address: &str) -> Self {
        let (now, address): (Duration, SocketAddr) = (lab.now(), address.parse().unwrap());
        let listener = lab.host_mut(to).tcp_listen(address).unwrap();
        let client = lab.host_mut(from).tcp_connect(now, address).unwrap();
        Self { from, to, client, listener, server: None, sent: 0, received: 0 }
    }

    fn turn(&mut self, lab: &mut Lab) {
        let now = lab.now();
        while self.sent < LENGTH {
            let end = LENGTH.min(self.sent + 1000);
            let data: Vec<u8> = (self.sent..end).map(octet).collect();
            match lab.host_mut(self.from).tcp_send(now, self.client, &data) {
                Ok(0) | Err(_) => break,
                Ok(count) => self.sent += count,
            }
        }
        let host = lab.host_mut(self.to);
        self.server = self.server.or_else(|| host.tcp_accept(self.listener));
        let Some(server) = self.server else { return };
        let mut buffer = [0; 2000];
        while let Ok(count) = host.tcp_recv(now, server, &mut buffer)
            && count > 0
        {
            let begin = self.received;
            let expected: Vec<u8> = (begin..begin + count).map(octet).collect();
            assert!(buffer[..count] == expected, "something else arrived from {begin} on");
            self.received += count;
        }
    }
}

#[test]
fn transfers_go_on_when_a_partition_heals() {
    let mut lab = Lab::new(Seed::from_u64(8));
    let halves = ["left", "right"].map(|name| lab.add_bridge(name, 2).unwrap());
    let hosts = [1, 2].map(|id| {
        let addresses = [format!("10.0.0.{id}/24"), format!("fd00::{id}/64")];
        let addresses = addresses.map(|text| text.parse().unwrap()).to_vec();
        lab.add_host(&format!("host-{id}"), HostConfig::new(MacAddr::local(id), addresses)).unwrap()
    });
    let cable = LinkProfile::delayed(DELAY);
    for (host, half) in hosts.into_iter().zip(halves) {
        lab.connect(host, (half, PortId(0)), cable).unwrap();
    }
    let trunk = lab.connect((halves[0], PortId(1)), (halves[1], PortId(1)), cable).unwrap();
    let set = |lab: &mut Lab, profile| {
        [Side::First, Side::Second].into_iter().for_each(|side| lab.set_profile(trunk, side, profile));
    };
    let mut transfers =
        ["10.0.0.2:80", "[fd00::2]:80"].map(|address| Transfer::begin(&mut lab, hosts[0], hosts[1], address));
    let mut run = |lab: &mut Lab, deadline: Duration, enough: usize| {
        let done = lab.run_until(deadline, |lab| {
            transfers.iter_mut().for_each(|transfer| transfer.turn(lab));
            transfers.iter().all(|transfer| transfer.received >= enough)
        });
        (done.unwrap(), transfers.each_ref().map(|transfer| transfer.received))
    };
    let minute = Duration::from_secs(60);
    let (begun, _) = run(&mut lab, minute, LENGTH / 4);
    assert!(begun);

    set(&mut lab, LinkProfile::DEAD);
    // What had crossed the trunk still arrives.
    let now = lab.now();
    let (_, before) = run(&mut lab, now + 2 * DELAY, LENGTH);
    let (done, during) = run(&mut lab, now + minute / 2, LENGTH);
    assert!(!done && during == before && before.iter().all(|&received| received < LENGTH), "{during:?}");

    set(&mut lab, cable);
    let now = lab.now();
    let (done, after) = run(&mut lab, now + 10 * minute, LENGTH);
    assert!(done && after == [LENGTH; 2], "{after:?}");
}
