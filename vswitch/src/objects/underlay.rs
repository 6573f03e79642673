//! The Cluster object: prefixes, segments, plain machines.

use std::net::IpAddr;

use manifest::{ClusterSpec, HostSpec, Located, Object, PortsSpec, SegmentSpec};
use netstack::addr::IpNet;
use netstack::config::StormControl;

use super::allocations::{gateway, same_family};
use super::compile::{Compiler, LABEL, is_label};
use crate::cluster::{Host, PortGuards, RouterServices, UnderlaySegment};
use crate::helper::MIN_IPV6_MTU;
use crate::service::{Frame, Range};

pub(super) const DEFAULT_MTU: u16 = 1500;
/// The smallest that every IPv4 host must take in one piece (RFC 791), and the largest that a TAP carries.
const MTUS: std::ops::RangeInclusive<u16> = 576..=65520;
/// Where nodes' pods get their addresses from, as `kind` has it.
const POD_CIDRS: [&str; 2] = ["10.244.0.0/16", "fd00:10:244::/56"];
/// Where Services' addresses come from, as `kind` has it.
const SERVICE_CIDRS: [&str; 2] = ["10.96.0.0/12", "fd00:10:96::/112"];
/// The segment that nodes are on when nobody describes one.
const SEGMENT: (&str, [&str; 2]) = ("underlay", ["192.168.10.0/24", "fd00:192:168:10::/64"]);

impl Compiler<'_> {
    /// Reads the one Cluster object, or the defaults.
    pub(super) fn underlay(&mut self) {
        let mut clusters = self
            .store
            .of(|object| if let Object::Cluster(cluster) = object { Some(&**cluster) } else { None });
        let first = clusters.next();
        let others: Vec<&Located> = clusters.map(|(at, _)| at).collect();
        for at in others {
            self.fault(at, "", "there is another Cluster already; one is the most");
        }
        let Some((at, cluster)) = first else {
            self.default_underlay();
            self.egress(None);
            return self.names(None);
        };
        if let Some(name) = &cluster.metadata.name {
            if !is_label(name) {
                self.fault(at, "metadata.name", format!("a cluster's name must be {LABEL}"));
            }
            self.cluster.name.clone_from(name);
        }
        self.frame(at, &cluster.spec);
        self.names(Some((at, &cluster.spec)));
        self.egress(Some((at, &cluster.spec)));
        self.cluster.pod_ports = self.guards(at, "spec.podSegments", &cluster.spec.pod_segments);
        match &cluster.spec.segments {
            Some(segments) if segments.is_empty() => {
                self.fault(
                    at,
                    "spec.segments",
                    "one segment at least is needed; without `segments` there is a default",
                );
            }
            Some(segments) => {
                for (index, segment) in segments.iter().enumerate() {
                    self.segment(at, &format!("spec.segments[{index}]"), segment);
                }
            }
            None => self.default_segment(),
        }
        for (index, host) in cluster.spec.hosts.iter().flatten().enumerate() {
            self.host(at, &format!("spec.hosts[{index}]"), host);
        }
    }

    fn default_underlay(&mut self) {
        self.pod_cidrs = prefixes(&POD_CIDRS);
        self.cluster.services.cidrs = prefixes(&SERVICE_CIDRS);
        self.cluster.kept_towards = [prefixes(&POD_CIDRS), prefixes(&SERVICE_CIDRS)].concat();
        self.default_segment();
    }

    fn default_segment(&mut self) {
        let (name, cidrs) = SEGMENT;
        let kept = prefixes(&cidrs).into_iter().filter(|cidr| self.carried(*cidr));
        let kept: Vec<IpNet> = kept.collect();
        self.prefixes.extend(kept.iter().map(|cidr| (*cidr, format!("the segment {name}"))));
        let gateways = kept.into_iter().filter_map(gateway).collect();
        self.cluster.segments.push(UnderlaySegment {
            name: name.to_owned(),
            gateways,
            external: false,
            ports: PortGuards::default(),
            loop_guard: true,
            services: RouterServices::default(),
        });
    }

    /// Whether links are large enough for this family.
    pub(super) fn carried(&self, prefix: IpNet) -> bool {
        self.cluster.mtu >= MIN_IPV6_MTU || prefix.addr().is_ipv4()
    }

    /// MTU, pod prefixes, images.
    fn frame(&mut self, at: &Located, spec: &ClusterSpec) {
        if let Some(mtu) = spec.mtu {
            if !MTUS.contains(&mtu) {
                let message = format!("{mtu} is not between {} and {}", MTUS.start(), MTUS.end());
                self.fault(at, "spec.mtu", message);
            }
            self.cluster.mtu = mtu;
        }
        self.pod_cidrs = match &spec.pod_cidrs {
            Some(cidrs) => self.one_of_each_family(at, "spec.podCIDRs", cidrs),
            None => prefixes(&POD_CIDRS),
        };
        let services = match &spec.service_cidrs {
            Some(cidrs) => self.one_of_each_family(at, "spec.serviceCIDRs", cidrs),
            None => prefixes(&SERVICE_CIDRS),
        };
        self.services(at, spec, &services);
        let named = spec.non_masquerade_cidrs.clone().unwrap_or_default();
        for (index, cidr) in named.iter().enumerate().filter(|(_, cidr)| cidr.trunc() != **cidr) {
            let message = format!("{cidr} has bits behind its length; did you mean {}?", cidr.trunc());
            self.fault(at, &format!("spec.nonMasqueradeCIDRs[{index}]"), message);
        }
        self.cluster.kept_towards = [self.pod_cidrs.clone(), services, named].concat();
        let mtu = self.cluster.mtu;
        self.pod_cidrs.retain(|cidr| mtu >= MIN_IPV6_MTU || cidr.addr().is_ipv4());
        for (image, command) in spec.images.iter().flatten() {
            if command.is_empty() {
                self.fault(at, "spec.images", format!("the command for {image:?} is empty"));
            }
            self.cluster.images.insert(image.clone(), command.clone());
        }
    }

    /// What Services have in common.
    fn services(&mut self, at: &Located, spec: &ClusterSpec, cidrs: &[IpNet]) {
        let mtu = self.cluster.mtu;
        let carried = cidrs.iter().copied().filter(|cidr| mtu >= MIN_IPV6_MTU || cidr.addr().is_ipv4());
        self.cluster.services = Frame {
            cidrs: carried.collect(),
            node_ports: Range::default(),
            masquerade_all: spec.masquerade_all,
            mode: spec.proxy_mode.unwrap_or_default(),
            ..Frame::default()
        };
        let Some(text) = &spec.node_port_range else { return };
        let range = text.split_once('-').and_then(|(first, last)| {
            Some(Range { first: first.trim().parse().ok()?, last: last.trim().parse().ok()? })
        });
        match range {
            Some(range) if range.first > 0 && range.first <= range.last => {
                self.cluster.services.node_ports = range;
            }
            Some(_) | None => {
                let message = format!("{text:?} is no range of ports; write it as 30000-32767");
                self.fault(at, "spec.nodePortRange", message);
            }
        }
    }

    fn one_of_each_family(&mut self, at: &Located, field: &str, cidrs: &[IpNet]) -> Vec<IpNet> {
        let mut kept: Vec<IpNet> = Vec::new();
        for (index, cidr) in cidrs.iter().enumerate() {
            let path = format!("{field}[{index}]");
            if kept.iter().any(|other| same_family(other.addr(), cidr.addr())) {
                self.fault(at, &path, "there is one of this family already");
            } else if self.sound(at, &path, *cidr) {
                kept.push(*cidr);
            }
        }
        kept
    }

    fn segment(&mut self, at: &Located, path: &str, segment: &SegmentSpec) {
        let name = &segment.name;
        if !is_label(name) {
            self.fault(at, &format!("{path}.name"), format!("a segment's name must be {LABEL}"));
        }
        if self.cluster.segments.iter().any(|other| other.name == *name) {
            self.fault(at, &format!("{path}.name"), format!("there is a segment {name} already"));
        }
        if segment.cidrs.is_empty() {
            self.fault(at, &format!("{path}.cidrs"), "one prefix at least is needed");
        }
        let mut gateways = Vec::new();
        for (index, cidr) in segment.cidrs.iter().enumerate() {
            let path = format!("{path}.cidrs[{index}]");
            if !self.sound(at, &path, *cidr) {
                continue;
            }
            if !self.carried(*cidr) {
                let message = format!(
                    "an MTU of {} is too small for IPv6, which needs {MIN_IPV6_MTU}",
                    self.cluster.mtu
                );
                self.fault(at, &path, message);
            }
            self.claim_prefix(at, &path, *cidr, format!("the segment {name}"));
            gateways.extend(gateway(*cidr));
        }
        let services = RouterServices {
            advertises: segment.router_advertisements,
            proxies: segment.proxy_neighbors,
            probes: segment.duplicate_address_detection,
        };
        if services.advertises && segment.cidrs.iter().all(|cidr| cidr.addr().is_ipv4()) {
            let message = "there is no IPv6 prefix to advertise; add one to `cidrs`";
            self.fault(at, &format!("{path}.routerAdvertisements"), message);
        }
        let ports = self.guards(at, path, &segment.ports);
        self.cluster.segments.push(UnderlaySegment {
            name: name.clone(),
            gateways,
            external: segment.external,
            ports,
            loop_guard: segment.loop_guard.unwrap_or(true),
            services,
        });
    }

    fn guards(&mut self, at: &Located, path: &str, ports: &PortsSpec) -> PortGuards {
        let mut guards = PortGuards { isolated: ports.isolated, ..PortGuards::default() };
        let Some(control) = &ports.storm_control else { return guards };
        guards.storm = StormControl { rate: control.rate, burst: control.burst.unwrap_or(control.rate) };
        let fields = [("rate", Some(control.rate)), ("burst", control.burst)];
        for (field, _) in fields.iter().filter(|(_, value)| *value == Some(0)) {
            let message = "0 would stop ARP and neighbour discovery as well; at least 1 is needed";
            self.fault(at, &format!("{path}.stormControl.{field}"), message);
        }
        guards
    }

    fn host(&mut self, at: &Located, path: &str, host: &HostSpec) {
        let name = &host.name;
        if !is_label(name) {
            self.fault(at, &format!("{path}.name"), format!("a host's name must be {LABEL}"));
        }
        if self.cluster.hosts.iter().any(|other| other.name == *name) {
            self.fault(at, &format!("{path}.name"), format!("there is a host {name} already"));
        }
        if host.addresses.is_empty() {
            self.fault(at, &format!("{path}.addresses"), "one address at least is needed");
        }
        let mut segment = host.segment.clone();
        if let Some(wanted) = &segment
            && !self.cluster.segments.iter().any(|s| s.name == *wanted)
        {
            let known: Vec<&str> = self.cluster.segments.iter().map(|s| s.name.as_str()).collect();
            let message = format!("there is no segment {wanted:?}; there are {}", known.join(", "));
            return self.fault(at, &format!("{path}.segment"), message);
        }
        for (index, address) in host.addresses.iter().enumerate() {
            let path = format!("{path}.addresses[{index}]");
            self.on_segment(at, &path, *address, &mut segment);
            self.claim(at, &path, *address, &format!("the host {name}"));
        }
        let Some(segment) = segment else { return };
        self.cluster.hosts.push(Host { name: name.clone(), segment, addresses: host.addresses.clone() });
    }

    /// Whether an address belongs to `segment`; if that is not known yet, it is from here on.
    pub(super) fn on_segment(
        &mut self,
        at: &Located,
        path: &str,
        address: IpAddr,
        segment: &mut Option<String>,
    ) {
        let contains = |s: &&UnderlaySegment| s.gateways.iter().any(|gateway| gateway.contains(&address));
        let Some(found) = self.cluster.segments.iter().find(contains).map(|s| s.name.clone()) else {
            return self.fault(at, path, format!("{address} belongs to no segment of the underlay"));
        };
        match segment {
            Some(other) if *other != found => {
                let message = format!("{address} belongs to the segment {found}, not to {other}");
                self.fault(at, path, message);
            }
            _ => *segment = Some(found),
        }
    }
}

fn prefixes(texts: &[&str]) -> Vec<IpNet> {
    texts.iter().filter_map(|text| text.parse().ok()).collect()
}
