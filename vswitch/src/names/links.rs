//! Services as variables of a program's environment, as the kubelet has them: for those that look for nothing else.

use std::net::{IpAddr, SocketAddr};

use crate::cluster::Protocol;
use crate::service::Planned;

/// Variables, each with its value.
pub(crate) type Variables = Vec<(String, String)>;

/// The variables that a Service is in the environment of its namespace's pods; none if it has no address.
pub(crate) fn variables(planned: &Planned) -> Variables {
    let (Some(&address), Some(first)) = (planned.allocation.cluster_ips.first(), planned.spec.ports.first())
    else {
        return Vec::new();
    };
    let name = word(&planned.spec.name);
    let mut all = vec![
        (format!("{name}_SERVICE_HOST"), address.to_string()),
        (format!("{name}_SERVICE_PORT"), first.port.to_string()),
    ];
    for port in planned.spec.ports.iter().filter(|port| !port.name.is_empty()) {
        all.push((format!("{name}_SERVICE_PORT_{}", word(&port.name)), port.port.to_string()));
    }
    all.push((format!("{name}_PORT"), place(first.protocol, address, first.port)));
    for port in &planned.spec.ports {
        let protocol = port.protocol.name();
        let link = format!("{name}_PORT_{}_{protocol}", port.port);
        all.push((link.clone(), place(port.protocol, address, port.port)));
        all.push((format!("{link}_PROTO"), protocol.to_lowercase()));
        all.push((format!("{link}_PORT"), port.port.to_string()));
        all.push((format!("{link}_ADDR"), address.to_string()));
    }
    all
}

/// What can be part of a variable's name.
fn word(name: &str) -> String {
    name.to_uppercase().replace('-', "_")
}

fn place(protocol: Protocol, address: IpAddr, port: u16) -> String {
    format!("{}://{}", protocol.name().to_lowercase(), SocketAddr::new(address, port))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::service::{Allocation, Port, Spec, Target};

    fn port(name: &str, protocol: Protocol, number: u16) -> Port {
        let target = Target::Number(number);
        Port { name: name.to_owned(), protocol, port: number, target, node_port: None }
    }

    #[test]
    fn a_service_has_the_variables_that_kubernetes_documents() {
        let spec = Spec {
            name: "redis-primary".into(),
            ports: vec![port("db", Protocol::Tcp, 6379), port("gossip-x", Protocol::Udp, 16_379)],
            ..Spec::default()
        };
        let cluster_ips = vec!["10.0.0.11".parse().unwrap()];
        let mut planned = Planned {
            spec,
            allocation: Allocation { cluster_ips, ..Allocation::default() },
            ..Planned::default()
        };
        let text: Vec<String> =
            variables(&planned).iter().map(|(name, value)| format!("{name}={value}")).collect();
        let expected = [
            "REDIS_PRIMARY_SERVICE_HOST=10.0.0.11",
            "REDIS_PRIMARY_SERVICE_PORT=6379",
            "REDIS_PRIMARY_SERVICE_PORT_DB=6379",
            "REDIS_PRIMARY_SERVICE_PORT_GOSSIP_X=16379",
            "REDIS_PRIMARY_PORT=tcp://10.0.0.11:6379",
            "REDIS_PRIMARY_PORT_6379_TCP=tcp://10.0.0.11:6379",
            "REDIS_PRIMARY_PORT_6379_TCP_PROTO=tcp",
            "REDIS_PRIMARY_PORT_6379_TCP_PORT=6379",
            "REDIS_PRIMARY_PORT_6379_TCP_ADDR=10.0.0.11",
            "REDIS_PRIMARY_PORT_16379_UDP=udp://10.0.0.11:16379",
            "REDIS_PRIMARY_PORT_16379_UDP_PROTO=udp",
            "REDIS_PRIMARY_PORT_16379_UDP_PORT=16379",
            "REDIS_PRIMARY_PORT_16379_UDP_ADDR=10.0.0.11",
        ];
        assert_eq!(text, expected);
        planned.allocation.cluster_ips = vec!["fd00::1".parse().unwrap()];
        let place = ("REDIS_PRIMARY_PORT".to_owned(), "tcp://[fd00::1]:6379".to_owned());
        assert!(variables(&planned).contains(&place));
        planned.allocation.cluster_ips.clear();
        assert!(variables(&planned).is_empty());
    }
}
