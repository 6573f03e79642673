//! An in-process pod: a [`Host`] with two small applications, for machines where no namespace can be made. They speak
//! what [`crate::probe`] speaks.

mod client;
mod conversation;

pub use client::Exchange;

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use netstack::addr::PortId;
use netstack::driver::Engine;
use netstack::event::Event;
use netstack::frame::{FrameBatch, FramePool};
use netstack::host::{Host, HostConfig, HostEvent, TcpHandle, TcpListener, UdpHandle};
use netstack::seed::Seed;

use self::client::Client;
use self::conversation::Conversation;
use crate::cluster::Endpoint;
use crate::probe::{PORT, Report};

/// A host and its applications, as an engine of the driver.
pub(super) struct Station {
    host: Host,
    listeners: Vec<TcpListener>,
    echoes: Vec<UdpHandle>,
    served: Vec<(TcpHandle, Conversation)>,
    client: Option<Client>,
    pool: FramePool,
    datagram: Vec<u8>,
}

impl Station {
    /// A host with the endpoint's addresses, its server listening.
    pub(super) fn new(endpoint: &Endpoint, seed: &Seed) -> Result<Self, String> {
        let mut config = HostConfig::new(endpoint.mac, endpoint.addresses.clone());
        config.gateway_v4 = endpoint.gateway_v4;
        config.gateway_v6 = endpoint.gateway_v6;
        config.mtu = usize::from(endpoint.mtu);
        let mut own = *seed;
        own.0[..8].copy_from_slice(&seed.derive(&endpoint.place.to_string()).to_le_bytes());
        let mut host = Host::new(config, own).map_err(|e| e.to_string())?;
        let any = [
            SocketAddr::from((Ipv4Addr::UNSPECIFIED, PORT)),
            SocketAddr::from((Ipv6Addr::UNSPECIFIED, PORT)),
        ];
        let (mut listeners, mut echoes) = (Vec::new(), Vec::new());
        for address in any {
            listeners.push(host.tcp_listen(address).map_err(|e| e.to_string())?);
            echoes.push(host.udp_bind(address).map_err(|e| e.to_string())?);
        }
        Ok(Self {
            host,
            listeners,
            echoes,
            served: Vec::new(),
            client: None,
            pool: FramePool::new(),
            datagram: vec![0; 65_536],
        })
    }

    /// Starts a client; one at a time.
    pub(super) fn begin(&mut self, now: Duration, exchange: Exchange) {
        self.client = Some(Client::start(&mut self.host, now, exchange));
    }

    /// What came of the client, once.
    pub(super) fn outcome(&mut self) -> Option<Result<Report, String>> {
        self.client.as_mut()?.take_result()
    }

    /// Lets the applications do what has become possible.
    fn pump(&mut self, now: Duration) {
        for &listener in &self.listeners {
            while let Some(handle) = self.host.tcp_accept(listener) {
                self.served.push((handle, Conversation::server()));
            }
        }
        let host = &mut self.host;
        self.served.retain_mut(|(handle, conversation)| match conversation.advance(host, now, *handle) {
            Ok(false) => true,
            Ok(true) => {
                host.tcp_release(now, *handle);
                false
            }
            Err(_) => {
                host.tcp_abort(now, *handle);
                false
            }
        });
        for &socket in &self.echoes {
            while let Ok(datagram) = host.udp_recv_from(socket, &mut self.datagram) {
                // A reply that cannot be sent is for the client to notice.
                let _ = host.udp_send_to(now, socket, &self.datagram[..datagram.len], datagram.from);
            }
        }
        while let Some(event) = host.poll_event() {
            if let (HostEvent::EchoReply { sequence, payload, .. }, Some(client)) = (&event, &mut self.client)
            {
                client.echo_reply(now, *sequence, payload);
            }
        }
        if let Some(client) = &mut self.client {
            client.advance(host, now, &mut self.datagram);
        }
    }
}

impl Engine for Station {
    fn handle_frames(&mut self, now: Duration, _port: PortId, batch: &mut FrameBatch) {
        self.host.handle_frames(now, batch);
        self.pump(now);
    }

    fn handle_timeout(&mut self, now: Duration) {
        self.host.handle_timeout(now);
        self.pump(now);
    }

    fn poll_transmit(&mut self, batch: &mut FrameBatch) -> Option<PortId> {
        self.host.poll_transmit(batch).then_some(PortId(0))
    }

    fn poll_timeout(&self) -> Option<Duration> {
        let own = self.client.as_ref().and_then(Client::deadline);
        [self.host.poll_timeout(), own].into_iter().flatten().min()
    }

    fn poll_event(&mut self) -> Option<Event> {
        None
    }

    fn pool(&mut self) -> &mut FramePool {
        &mut self.pool
    }
}
