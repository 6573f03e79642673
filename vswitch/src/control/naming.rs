//! Keeping names in step with Services and pods.
//!
//! # Theory of operation
//! Whoever changes a Service or a pod says so by its name, and only that one's records are made again: what a change costs
//! is what has changed. Records are made of what switches balance, so a name stands for an endpoint exactly as long as
//! the endpoint is asked for anything else.

use std::collections::BTreeSet;
use std::sync::Arc;

use dns::kubernetes::{self, Shape, pod_records};
use dns::{Data, DomainName, Registrar, Zone};

use crate::cluster::Protocol;
use crate::names::{NAME, NAMESPACE, PORT};
use crate::service::{Controller, Endpoint, Kind, Meaning, Names, Planned, PodFacts, PortEndpoints};

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Naming {
    frame: Names,
    registrar: Option<Registrar>,
    /// What the zone was when it was taken last.
    taken: Option<u32>,
}

impl Naming {
    /// Takes in what all names have in common; whether every Service and pod has to be told again.
    pub(super) fn frame(&mut self, frame: &Names) -> bool {
        if self.frame == *frame {
            return false;
        }
        self.frame.clone_from(frame);
        self.taken = None;
        let domain = DomainName::parse(&frame.domain);
        let registrar =
            domain.and_then(|domain| Registrar::new(domain, &[NAME, NAMESPACE, "svc"], &frame.prefixes));
        // What cannot be a domain was refused before.
        self.registrar = registrar.ok();
        self.set("name server", own_service(frame));
        if let Some(registrar) = &mut self.registrar {
            registrar.set(&"records".into(), given(frame));
        }
        true
    }

    /// Takes in a Service, `NAMESPACE/NAME`, as the controller knows it.
    pub(super) fn service(&mut self, controller: &Controller, name: &str) {
        let known = controller.service(name);
        let service = known.and_then(|(planned, served)| service(controller, planned, &served));
        self.set(&format!("service {name}"), service);
    }

    /// Takes in a pod, `NAMESPACE/NAME`.
    pub(super) fn pod(&mut self, name: &str, pod: Option<&PodFacts>) {
        let Some(registrar) = &mut self.registrar else { return };
        let domain = registrar.zone().domain().clone();
        let stands = pod.filter(|pod| !pod.ended);
        let records = stands.map(|pod| pod_records(&pod.namespace, &pod.addresses, &domain));
        registrar.set(&format!("pod {name}").into(), records.unwrap_or_default());
    }

    fn set(&mut self, owner: &str, service: Option<kubernetes::Service>) {
        let Some(registrar) = &mut self.registrar else { return };
        let domain = registrar.zone().domain().clone();
        let records = service.map(|service| service.records(&domain));
        registrar.set(&owner.into(), records.unwrap_or_default());
    }

    /// The zone, if it has changed since it was taken last.
    pub(super) fn take(&mut self) -> Option<Zone> {
        let zone = self.registrar.as_ref()?.zone();
        (self.taken.replace(zone.serial()) != Some(zone.serial())).then(|| zone.clone())
    }

    /// The zone.
    pub(super) fn zone(&self) -> Option<&Zone> {
        self.registrar.as_ref().map(Registrar::zone)
    }
}

/// Names that the user gives.
fn given(frame: &Names) -> Vec<(DomainName, Data)> {
    let data = |meaning: &Meaning| match meaning {
        Meaning::Address(address) => Some(Data::from(*address)),
        Meaning::Name(name) => DomainName::parse(name).ok().map(Data::Cname),
    };
    let records = frame.records.iter().filter_map(|(name, meanings)| {
        let name = DomainName::parse(name).ok()?;
        Some(meanings.iter().filter_map(data).map(move |data| (name.clone(), data)))
    });
    records.flatten().collect()
}

/// The name server itself, where there is one.
fn own_service(frame: &Names) -> Option<kubernetes::Service> {
    let port = |name: &str, protocol| kubernetes::Port {
        name: name.to_owned(),
        protocol,
        number: PORT,
        endpoints: Vec::new(),
    };
    (!frame.servers.is_empty()).then(|| kubernetes::Service {
        namespace: NAMESPACE.to_owned(),
        name: NAME.to_owned(),
        shape: Shape::Addresses(frame.servers.clone()),
        ports: vec![port("dns", "udp"), port("dns-tcp", "tcp")],
        endpoints: Vec::new(),
    })
}

/// A Service as far as its names go; none if it has none yet.
fn service(
    controller: &Controller,
    planned: &Planned,
    served: &[PortEndpoints<'_>],
) -> Option<kubernetes::Service> {
    let spec = &planned.spec;
    let shape = if spec.kind == Kind::ExternalName {
        Shape::External(DomainName::parse(&spec.external_name).ok()?)
    } else if spec.headless {
        Shape::Headless
    } else {
        Shape::Addresses(planned.allocation.cluster_ips.clone())
    };
    let mut endpoints: BTreeSet<kubernetes::Endpoint> =
        served.iter().flat_map(|served| ready(served.endpoints)).map(|(endpoint, _)| endpoint).collect();
    if spec.headless && spec.ports.is_empty() {
        for family in &planned.families {
            let all = controller.portless(spec, *family);
            endpoints.extend(ready(&all).map(|(endpoint, _)| endpoint));
        }
    }
    let port = |port: &crate::service::Port| {
        let mine = served.iter().filter(|served| served.port == port);
        kubernetes::Port {
            name: port.name.clone(),
            protocol: match port.protocol {
                Protocol::Tcp => "tcp",
                Protocol::Udp => "udp",
                Protocol::Sctp => "sctp",
            },
            number: port.port,
            endpoints: mine.flat_map(|served| ready(served.endpoints)).collect(),
        }
    };
    Some(kubernetes::Service {
        namespace: spec.namespace.clone(),
        name: spec.name.clone(),
        shape,
        ports: spec.ports.iter().map(port).collect(),
        endpoints: endpoints.into_iter().collect(),
    })
}

/// Those that take new connections, each with its port.
fn ready(all: &[Endpoint]) -> impl Iterator<Item = (kubernetes::Endpoint, u16)> {
    let ready = all.iter().filter(|endpoint| endpoint.condition.ready);
    ready.map(|endpoint| {
        let hostname = endpoint.hostname.as_ref().map(Arc::clone);
        (kubernetes::Endpoint { address: endpoint.address, hostname }, endpoint.port)
    })
}
