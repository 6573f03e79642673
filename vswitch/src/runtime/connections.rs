//! Connections of a running cluster: which are wanted, and what there is.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use netstack::addr::IpNet;
use netstack::parse::protocol::{ICMP, ICMPV6, SCTP, TCP, UDP};
use netstack::switch::{ConnectionEntry, PortUse, Switch};

use super::{Runtime, RuntimeError};
use crate::cluster::Place;
use crate::control::api::{ConnectionQuery, ConnectionView, ConnectionsView, TupleView};

/// Rows of one answer. What else there is is counted.
const MOST: usize = 4096;
/// Slots of connections that are looked at in one question to the data path: some tens of microseconds.
const AT_ONCE: usize = 2048;

/// Protocols by the names that are shown and understood.
const PROTOCOLS: [(&str, u8); 5] =
    [("tcp", TCP), ("udp", UDP), ("sctp", SCTP), ("icmp", ICMP), ("icmpv6", ICMPV6)];

/// What can be said of a connection beside the state of its protocol.
const STATUSES: [&str; 2] = ["ASSURED", "UNREPLIED"];

/// The states that TCP and SCTP have.
const STATES: [&str; 16] = [
    "SYN_SENT",
    "SYN_RECV",
    "ESTABLISHED",
    "FIN_WAIT",
    "CLOSE_WAIT",
    "LAST_ACK",
    "TIME_WAIT",
    "CLOSE",
    "SYN_SENT2",
    "CLOSED",
    "COOKIE_WAIT",
    "COOKIE_ECHOED",
    "SHUTDOWN_SENT",
    "SHUTDOWN_RECD",
    "SHUTDOWN_ACK_SENT",
    "HEARTBEAT_SENT",
];

/// Which connections are wanted: those for which everything holds that is said.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct ConnectionFilter {
    node: Option<String>,
    protocol: Option<u8>,
    source: Option<IpNet>,
    destination: Option<IpNet>,
    source_port: Option<u16>,
    destination_port: Option<u16>,
    state: Option<&'static str>,
}

/// The question is not understood.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {text:?} is {wanted}")]
pub struct FilterError {
    field: &'static str,
    text: String,
    wanted: String,
}

impl TryFrom<ConnectionQuery> for ConnectionFilter {
    type Error = FilterError;

    fn try_from(query: ConnectionQuery) -> Result<Self, FilterError> {
        let net = |field: &'static str, text: Option<String>| {
            text.map(|text| {
                let net = text.parse().or_else(|_| text.parse::<IpAddr>().map(IpNet::from));
                let wanted = || "neither an address nor a prefix such as 10.244.0.0/16".to_owned();
                net.map_err(|_| FilterError { field, wanted: wanted(), text })
            })
            .transpose()
        };
        Ok(Self {
            node: query.node,
            protocol: query.protocol.map(protocol).transpose()?,
            source: net("source", query.source)?,
            destination: net("destination", query.destination)?,
            source_port: query.sport,
            destination_port: query.dport,
            state: query.state.map(state).transpose()?,
        })
    }
}

fn protocol(text: String) -> Result<u8, FilterError> {
    let named =
        PROTOCOLS.iter().find(|(name, _)| name.eq_ignore_ascii_case(&text)).map(|(_, number)| *number);
    named.or_else(|| text.parse().ok()).ok_or_else(|| {
        let names = PROTOCOLS.map(|(name, _)| name).join(", ");
        FilterError { field: "protocol", wanted: format!("none of {names}, and no number"), text }
    })
}

fn state(text: String) -> Result<&'static str, FilterError> {
    let mut known = STATUSES.iter().chain(&STATES);
    known.find(|name| name.eq_ignore_ascii_case(&text)).copied().ok_or_else(|| {
        let wanted = format!("none of {}, {}", STATUSES.join(", "), STATES.join(", "));
        FilterError { field: "state", wanted, text }
    })
}

impl ConnectionFilter {
    /// A source is meant as its own or as it is seen by whom it talks to, a destination as it was asked for or as it is.
    fn holds(&self, entry: &ConnectionEntry) -> bool {
        let ([source, destination], [answerer, answered]) = (entry.original, entry.reply);
        let (sources, destinations) = ([source, answered], [destination, answerer]);
        let within = |net: &Option<IpNet>, ends: &[SocketAddr; 2]| {
            net.is_none_or(|net| ends.iter().any(|end| net.contains(&end.ip())))
        };
        let at = |port: Option<u16>, ends: &[SocketAddr; 2]| {
            port.is_none_or(|port| has_ports(entry.protocol) && ends.iter().any(|end| end.port() == port))
        };
        self.protocol.is_none_or(|protocol| protocol == entry.protocol)
            && within(&self.source, &sources)
            && within(&self.destination, &destinations)
            && at(self.source_port, &sources)
            && at(self.destination_port, &destinations)
            && self
                .state
                .is_none_or(|state| entry.state == Some(state) || statuses(entry).contains(&Some(state)))
    }
}

const fn has_ports(protocol: u8) -> bool {
    matches!(protocol, TCP | UDP | SCTP)
}

fn statuses(entry: &ConnectionEntry) -> [Option<&'static str>; 2] {
    [entry.is_assured.then_some(STATUSES[0]), (!entry.is_answered).then_some(STATUSES[1])]
}

/// How many connections a switch has of one family, and what it has counted.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct ConnectionCounts {
    pub(crate) switch: String,
    /// `ipv4` or `ipv6`.
    pub(crate) family: &'static str,
    pub(crate) connections: u64,
    pub(crate) opened: u64,
    pub(crate) expired: u64,
    pub(crate) displaced: u64,
    pub(crate) invalid: u64,
    /// Why connections were refused, and how many.
    pub(crate) refused: [(&'static str, u64); 3],
}

impl Runtime {
    /// The connections that `filter` wants, of all nodes that it wants.
    ///
    /// # Errors
    /// When the data path has stopped, or there is no such node.
    pub fn connections(&self, filter: &ConnectionFilter) -> Result<ConnectionsView, RuntimeError> {
        let nodes: Vec<String> = self.cluster().nodes.iter().map(|node| node.name.clone()).collect();
        let wanted = |name: &&String| filter.node.as_ref().is_none_or(|node| node == *name);
        if let Some(node) = filter.node.as_ref().filter(|node| !nodes.contains(node)) {
            return Err(RuntimeError::UnknownPlace(Place::Node(node.clone())));
        }
        let mut view = ConnectionsView { connections: Vec::new(), omitted: 0 };
        for node in nodes.iter().filter(wanted) {
            let (filter, room) = (filter.clone(), MOST - view.connections.len());
            let look = move |(entries, omitted): &mut (Vec<ConnectionEntry>, u64), _: &Switch, entry| {
                if filter.holds(&entry) {
                    match entries.len() < room {
                        true => entries.push(entry),
                        false => *omitted += 1,
                    }
                }
            };
            let (entries, omitted) = self.each_connection(node, look)?.unwrap_or_default();
            view.connections.extend(entries.iter().map(|entry| connection_view(node, entry)));
            view.omitted += omitted;
        }
        view.connections.sort_by(|a, b| {
            let key =
                |view: &ConnectionView| (view.original.source, view.original.source_port, view.original.id);
            (&a.node, &a.protocol, key(a)).cmp(&(&b.node, &b.protocol, key(b)))
        });
        Ok(view)
    }

    /// Has `look` see each connection of a switch and add to what is returned; none if there is no such switch. Some are seen
    /// at a time, so that frames wait for those alone. Who comes or goes meanwhile is seen or not.
    pub(super) fn each_connection<T: Default + Send + 'static>(
        &self,
        switch: &str,
        look: impl Fn(&mut T, &Switch, ConnectionEntry) + Send + Sync + 'static,
    ) -> Result<Option<T>, RuntimeError> {
        let (look, now) = (Arc::new(look), self.now());
        let (mut seen, mut from) = (T::default(), 0);
        loop {
            let look = Arc::clone(&look);
            let looked = self.with_switch(switch, move |switch| {
                let some = switch.connection_entries_in(now, from..from + AT_ONCE);
                some.for_each(|entry| look(&mut seen, switch, entry));
                (seen, switch.connection_slots() > from + AT_ONCE)
            })?;
            match looked {
                Some((more, true)) => (seen, from) = (more, from + AT_ONCE),
                Some((all, false)) => return Ok(Some(all)),
                None => return Ok(None),
            }
        }
    }

    /// How many connections each switch that tracks them has.
    pub(crate) fn connection_counts(&self) -> Result<Vec<ConnectionCounts>, RuntimeError> {
        self.each_switch(|name, switch, _| {
            let Some((v4, v6)) = switch.connections() else { return Vec::new() };
            let families = [("ipv4", v4.len(), v4.counters()), ("ipv6", v6.len(), v6.counters())];
            let counts = families.map(|(family, connections, counters)| ConnectionCounts {
                switch: name.to_owned(),
                family,
                connections: connections as u64,
                opened: counters.opened,
                expired: counters.expired,
                displaced: counters.displaced,
                invalid: counters.invalid,
                refused: [
                    ("table_full", counters.refused_full),
                    ("ports", counters.refused_ports),
                    ("clash", counters.refused_clash),
                ],
            });
            counts.to_vec()
        })
    }

    /// How many ports of its addresses each switch has given out.
    pub(crate) fn port_uses(&self) -> Result<Vec<(String, PortUse)>, RuntimeError> {
        self.each_switch(|name, switch, _| {
            switch.port_uses().into_iter().map(|port_use| (name.to_owned(), port_use)).collect()
        })
    }
}

/// The first `room` of those that the filter wants, and how many there are beyond.
fn connection_view(node: &str, entry: &ConnectionEntry) -> ConnectionView {
    let named = PROTOCOLS.iter().find(|(_, number)| *number == entry.protocol);
    let [source, destination] = entry.original;
    let [answerer, answered] = entry.reply;
    ConnectionView {
        node: node.to_owned(),
        protocol: named.map_or_else(|| entry.protocol.to_string(), |(name, _)| (*name).to_owned()),
        state: entry.state.map(str::to_owned),
        status: statuses(entry).into_iter().flatten().map(str::to_owned).collect(),
        timeout_seconds: entry.remaining.as_secs(),
        original: tuple_view(entry.protocol, [source, destination], source),
        reply: tuple_view(entry.protocol, [answerer, answered], answered),
    }
}

/// `asker` is the end that an identifier belongs to.
fn tuple_view(protocol: u8, [source, destination]: [SocketAddr; 2], asker: SocketAddr) -> TupleView {
    let port = |end: SocketAddr| has_ports(protocol).then(|| end.port());
    TupleView {
        source: source.ip(),
        source_port: port(source),
        destination: destination.ip(),
        destination_port: port(destination),
        id: matches!(protocol, ICMP | ICMPV6).then(|| asker.port()),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn entry() -> ConnectionEntry {
        let at = |text: &str| text.parse().unwrap();
        ConnectionEntry {
            protocol: TCP,
            state: Some("ESTABLISHED"),
            is_answered: true,
            is_assured: true,
            remaining: Duration::from_secs(7),
            original: [at("10.244.0.2:40000"), at("192.0.2.1:80")],
            reply: [at("10.9.9.9:8080"), at("10.20.30.11:1024")],
            mark: None,
        }
    }

    fn filter(words: &[(&str, &str)]) -> Result<ConnectionFilter, String> {
        let query: serde_json::Map<String, serde_json::Value> = words
            .iter()
            .map(|(name, value)| {
                let number = value.parse::<u16>().ok().filter(|_| name.ends_with("port"));
                ((*name).to_owned(), number.map_or_else(|| (*value).into(), Into::into))
            })
            .collect();
        let query: ConnectionQuery = serde_json::from_value(query.into()).unwrap();
        ConnectionFilter::try_from(query).map_err(|error| error.to_string())
    }

    #[test]
    fn either_side_of_a_translation_is_found() {
        let holds = |words: &[(&str, &str)]| filter(words).unwrap().holds(&entry());
        for words in [
            &[][..],
            &[("source", "10.244.0.0/16")],
            &[("source", "10.20.30.11")],
            &[("destination", "192.0.2.1")],
            &[("destination", "10.9.9.0/24"), ("dport", "8080")],
            &[("sport", "40000"), ("sport", "1024"), ("dport", "80")],
            &[("protocol", "TCP"), ("state", "established")],
            &[("protocol", "6"), ("state", "assured")],
        ] {
            assert!(holds(words), "{words:?}");
        }
        for words in [
            &[("source", "192.0.2.1")][..],
            &[("destination", "10.244.0.2")],
            &[("source", "::/0")],
            &[("sport", "80")],
            &[("protocol", "udp")],
            &[("state", "UNREPLIED")],
            &[("state", "TIME_WAIT")],
            &[("source", "10.244.0.2"), ("dport", "81")],
        ] {
            assert!(!holds(words), "{words:?}");
        }
    }

    #[test]
    fn what_is_not_understood_is_told() {
        let told = |name, value| filter(&[(name, value)]).unwrap_err();
        assert_eq!(
            told("source", "10.1/8"),
            "source: \"10.1/8\" is neither an address nor a prefix such as 10.244.0.0/16"
        );
        assert!(told("protocol", "tcpp").starts_with("protocol: \"tcpp\" is none of tcp, udp, "));
        assert!(
            told("state", "OPEN").starts_with("state: \"OPEN\" is none of ASSURED, UNREPLIED, SYN_SENT, ")
        );
    }

    #[test]
    fn an_identifier_belongs_to_who_asked() {
        let at = |text: &str| text.parse().unwrap();
        let query = ConnectionEntry {
            protocol: ICMP,
            state: None,
            is_answered: false,
            is_assured: false,
            original: [at("10.244.0.2:7"), at("192.0.2.1:8")],
            reply: [at("192.0.2.1:8"), at("10.20.30.11:9")],
            ..entry()
        };
        let view = connection_view("n", &query);
        assert_eq!((view.original.id, view.reply.id, view.original.source_port), (Some(7), Some(9), None));
        assert_eq!((view.protocol.as_str(), &view.status[..]), ("icmp", &["UNREPLIED".to_owned()][..]));
    }
}
