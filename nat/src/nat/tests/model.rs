//! Random histories against a plain model: a list of flows, and of ports that wait.

use proptest::prelude::*;

use super::*;

/// The ports of the pool.
const PORTS: core::ops::RangeInclusive<u16> = 2000..=2004;
const ADDRESSES: u16 = 2;
const IDLE: u64 = 300;
const HOLD: u64 = 120;

#[derive(Clone, Copy, Debug)]
enum Step {
    /// An inside host, its port, and whom it sends to.
    Out(u16, u16, u16),
    /// Somebody outside, an external address and a port, by their places.
    In(u16, u16, u16),
    Wait(u64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0..4u16, 0..4u16, 0..4u16).prop_map(|(host, port, to)| Step::Out(host, port, to)),
        4 => (0..6u16, 0..ADDRESSES, 0..5u16).prop_map(|(from, address, port)| Step::In(from, address, port)),
        2 => (1..200u64).prop_map(Step::Wait),
    ]
}

#[derive(Clone, Copy, Debug)]
struct Flow<A> {
    inside: Endpoint<A>,
    remote: Endpoint<A>,
    seen: Endpoint<A>,
    until: u64,
}

struct Model<A> {
    filtering: Filtering,
    flows: Vec<Flow<A>>,
    /// External endpoints that wait, and until when.
    waiting: Vec<(Endpoint<A>, u64)>,
    now: u64,
}

/// Two remote hosts with two ports each for those that are sent to, and one more host.
fn remote<A: Address>(number: u16) -> Endpoint<A> {
    outside(number / 2, 53 + number % 2)
}

impl<A: Address> Model<A> {
    fn wait(&mut self, time: u64) {
        self.now += time;
        let now = self.now;
        let (over, going): (Vec<_>, Vec<_>) = self.flows.iter().partition(|flow| flow.until <= now);
        self.flows = going;
        // A port waits from when its last flow has ended.
        for flow in over.iter().rev() {
            let last = over.iter().filter(|other| other.seen == flow.seen).map(|other| other.until).max();
            let held = self.flows.iter().any(|other| other.seen == flow.seen);
            if !held && !self.waiting.iter().any(|(seen, _)| *seen == flow.seen) {
                self.waiting.push((flow.seen, last.unwrap_or(0) + HOLD));
            }
        }
        self.waiting.retain(|(_, until)| *until >= now);
    }

    fn owner(&self, seen: Endpoint<A>) -> Option<Endpoint<A>> {
        self.flows.iter().find(|flow| flow.seen == seen).map(|flow| flow.inside)
    }

    /// Where the inside endpoint must be seen, if that is certain.
    fn mapping(&self, inside: Endpoint<A>) -> Option<Endpoint<A>> {
        self.flows.iter().find(|flow| flow.inside == inside).map(|flow| flow.seen)
    }

    fn sent(&mut self, inside: Endpoint<A>, remote: Endpoint<A>, fate: Fate) -> Result<(), TestCaseError> {
        let until = self.now + IDLE;
        let same = |flow: &&mut Flow<A>| flow.inside == inside && flow.remote == remote;
        if let Some(flow) = self.flows.iter_mut().find(same) {
            flow.until = until;
            let seen = flow.seen;
            prop_assert_eq!(ends::<A>(&fate.by(OUTSIDE)), [seen, remote]);
            return Ok(());
        }
        let home = self
            .flows
            .iter()
            .find(|flow| flow.inside.address == inside.address)
            .map(|flow| flow.seen.address);
        let Fate::Left(_, bytes) = fate else {
            prop_assert_eq!(fate, Fate::Refused(Refusal::Ports(Refused::Exhausted)));
            prop_assert_eq!(self.mapping(inside), None);
            for address in (0..ADDRESSES).map(|host| external::<A>(host, 0).address) {
                let may = home.is_none_or(|home| home == address);
                for port in PORTS.filter(|_| may) {
                    let seen = Endpoint { address, port };
                    let waits = self.waiting.iter().any(|(waiting, _)| *waiting == seen);
                    prop_assert!(self.owner(seen).is_some() || waits, "{seen:?} is free");
                }
            }
            return Ok(());
        };
        let [seen, to] = ends::<A>(&bytes);
        prop_assert_eq!(to, remote);
        match self.mapping(inside) {
            Some(mapping) => prop_assert_eq!(seen, mapping),
            None => {
                prop_assert!(PORTS.contains(&seen.port) && self.owner(seen).is_none());
                prop_assert!(home.is_none_or(|home| home == seen.address));
                // In the very second that it ends, a wait may be over or not.
                let now = self.now;
                prop_assert!(!self.waiting.iter().any(|(waiting, until)| *waiting == seen && *until > now));
                self.waiting.retain(|(waiting, _)| *waiting != seen);
            }
        }
        self.flows.push(Flow { inside, remote, seen, until });
        Ok(())
    }

    fn came(&mut self, remote: Endpoint<A>, seen: Endpoint<A>, fate: Fate) -> Result<(), TestCaseError> {
        let until = self.now + IDLE;
        if let Some(flow) = self.flows.iter().find(|flow| flow.seen == seen && flow.remote == remote) {
            // It does not prolong the flow: only the inside does.
            prop_assert_eq!(ends::<A>(&fate.by(INSIDE)), [remote, flow.inside]);
            return Ok(());
        }
        let mut mapping = self.flows.iter().filter(|flow| flow.seen == seen);
        let may = match self.filtering {
            Filtering::EndpointIndependent => mapping.next().is_some(),
            Filtering::AddressDependent => mapping.any(|flow| flow.remote.address == remote.address),
            Filtering::AddressAndPortDependent => false,
        };
        let Some(inside) = self.owner(seen).filter(|_| may) else {
            prop_assert_eq!(fate, Fate::Local);
            return Ok(());
        };
        prop_assert_eq!(ends::<A>(&fate.by(INSIDE)), [remote, inside]);
        self.flows.push(Flow { inside, remote, seen, until });
        Ok(())
    }
}

fn history<A: Address>(steps: &[Step], filtering: Filtering) -> Result<(), TestCaseError> {
    let keep = Keep { port: true, parity: false, class: false };
    let mut config = config::<A>(Behaviour { filtering, keep, ..Behaviour::strict() }, ADDRESSES, 1000);
    config.pools[0].ports = PortSet::range(PORTS);
    let mut router = Router::new(config);
    let mut model = Model { filtering, flows: Vec::new(), waiting: Vec::new(), now: 0 };
    for &step in steps {
        match step {
            Step::Out(host, port, to) => {
                let (inside, remote) = (inside(host, 1999 + port), remote(to));
                let fate = router.take(INSIDE, udp::<A>(inside, remote));
                model.sent(inside, remote, fate)?;
            }
            Step::In(from, address, port) => {
                let (remote, seen) = (remote(from), external(address, PORTS.start() + port));
                let fate = router.take(OUTSIDE, udp::<A>(remote, seen));
                model.came(remote, seen, fate)?;
            }
            Step::Wait(time) => {
                router.wait(seconds(time));
                model.wait(time);
            }
        }
        prop_assert_eq!(router.nat.len(), model.flows.len());
        // Every tuple, and every port, belongs to one.
        for flow in &model.flows {
            let inside = router.nat.connections().filter(|(_, connection)| {
                connection.outside().source == flow.seen && connection.inside().source != flow.inside
            });
            prop_assert_eq!(inside.count(), 0);
        }
    }
    router.wait(seconds(IDLE + HOLD + 1));
    prop_assert!(router.nat.is_empty());
    for host in 0..ADDRESSES {
        let free = router.nat.pool(0).unwrap().free(external::<A>(host, 0).address, ports::Protocol::Udp);
        prop_assert_eq!(free, 5);
    }
    Ok(())
}

proptest! {
    #[test]
    fn a_list_of_flows_agrees(
        steps in proptest::collection::vec(step(), 0..120),
        filtering in prop_oneof![
            Just(Filtering::EndpointIndependent),
            Just(Filtering::AddressDependent),
            Just(Filtering::AddressAndPortDependent),
        ],
    ) {
        history::<Ipv4Addr>(&steps, filtering)?;
        history::<Ipv6Addr>(&steps, filtering)?;
    }
}
