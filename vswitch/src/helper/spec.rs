//! What a namespace is asked to look like, and what it turned out to be.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Component, Path, PathBuf};

use ipnet::IpNet;
use netstack::addr::MacAddr;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::exec::NamespaceRef;

/// The largest MTU of a TAP device: 65535 less the Ethernet header (`drivers/net/tun.c`).
pub const MAX_MTU: u16 = 65521;
/// Every IPv4 host takes packets of this size (RFC 791 section 3.2); the kernel refuses less on Ethernet.
pub const MIN_MTU: u16 = 68;
/// The least MTU of a link that carries IPv6 (RFC 8200 section 5); the kernel removes IPv6 from a smaller one.
pub const MIN_IPV6_MTU: u16 = 1280;
/// A queue this long holds the window of one fast TCP stream; the kernel's default of 1000 frames does not.
pub const DEFAULT_TX_QUEUE_LENGTH: u32 = 10_000;

/// Whether the TAP device passes checksum and segmentation work on.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Offload {
    /// With `IFF_VNET_HDR` if the kernel has it.
    #[default]
    Auto,
    /// Plain frames.
    Off,
}

/// A file that a pod sees in place of the host's.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct PodFile {
    /// Absolute path; the host must have a file there, which the pod's is laid over.
    pub path: PathBuf,
    /// What the pod reads.
    pub content: String,
}

/// A network namespace that somebody else made and keeps.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Existing {
    /// By an absolute path, such as one that a container runtime mounted it at.
    Path(PathBuf),
    /// The one that this process lives in, by the host's numbering.
    Pid(u32),
    /// By its name under `/run/netns`. Without root that directory is the helper's own.
    Name(String),
}

impl Existing {
    pub(crate) fn validate(&self) -> Result<(), String> {
        match self {
            Self::Path(path) if !path.is_absolute() => {
                Err(format!("existing namespace {}: must be an absolute path", path.display()))
            }
            Self::Pid(0) => Err("existing namespace of process 0: there is no such process".to_owned()),
            Self::Name(name) => validate_name(name).map_err(|why| format!("existing namespace: {why}")),
            Self::Path(_) | Self::Pid(_) => Ok(()),
        }
    }

    /// Where the kernel has it.
    pub(super) fn location(&self) -> PathBuf {
        match self {
            Self::Path(path) => path.clone(),
            Self::Pid(pid) => PathBuf::from(format!("/proc/{pid}/ns/net")),
            Self::Name(name) => Path::new(super::NETNS_DIRECTORY).join(name),
        }
    }
}

impl std::fmt::Display for Existing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Path(_) => f.write_str("the existing network namespace"),
            Self::Pid(pid) => write!(f, "the network namespace of process {pid}"),
            Self::Name(name) => write!(f, "the network namespace named {name:?}"),
        }
    }
}

/// One pod: a network namespace with `lo` and one TAP interface, and a PID namespace as its kill domain.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct NamespaceSpec {
    /// Name under `/run/netns`: letters, digits, `-`, `_` and `.`, at most 200 octets, beginning with a letter or
    /// a digit.
    pub name: String,
    /// Name that `gethostname(2)` returns in the pod, at most 64 octets; the host's if absent.
    pub hostname: Option<String>,
    /// Name of the interface, at most 15 octets.
    pub interface: String,
    /// Its hardware address, unicast.
    pub mac: MacAddr,
    /// Its addresses with their prefix lengths. IPv6 addresses skip duplicate address detection.
    pub addresses: Vec<IpNet>,
    /// Where the IPv4 default route points. If no prefix in `addresses` covers it, it gets a host route of its own.
    pub gateway_v4: Option<Ipv4Addr>,
    /// The same for IPv6. A link-local gateway needs no covering prefix.
    pub gateway_v6: Option<Ipv6Addr>,
    /// The largest IP packet, in octets.
    pub mtu: u16,
    /// Whether the TAP carries offload headers.
    pub offload: Offload,
    /// Frames the kernel queues towards the switch before it drops.
    pub tx_queue_length: u32,
    /// Files laid over the host's, such as `/etc/resolv.conf`.
    pub files: Vec<PodFile>,
    /// A network namespace to use instead of making one. Then the pod's interface with its addresses and routes is all
    /// that is put there, and all that is removed in the end: `lo` and the namespace's own settings stay as they are,
    /// it gets no further name, and no process in it is touched. The pod's own processes have their PID, mount and
    /// host-name namespaces as usual.
    pub existing: Option<Existing>,
    /// What the owner wants to know again when it finds the namespace later: at most 64 octets.
    pub tag: String,
}

impl NamespaceSpec {
    /// A pod named `name` with interface `eth0`, MTU 1500, offload if possible, and no address.
    pub fn new(name: impl Into<String>, mac: MacAddr) -> Self {
        Self {
            name: name.into(),
            hostname: None,
            interface: "eth0".to_owned(),
            mac,
            addresses: Vec::new(),
            gateway_v4: None,
            gateway_v6: None,
            mtu: 1500,
            offload: Offload::Auto,
            tx_queue_length: DEFAULT_TX_QUEUE_LENGTH,
            files: Vec::new(),
            existing: None,
            tag: String::new(),
        }
    }

    /// Checks everything that can be known before anything is made.
    ///
    /// # Errors
    /// A sentence that names the field and what it must be.
    pub fn validate(&self) -> Result<(), String> {
        validate_name(&self.name)?;
        if let Some(hostname) = &self.hostname {
            let good = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'.';
            if hostname.is_empty() || hostname.len() > 64 || !hostname.bytes().all(good) {
                return Err(format!(
                    "hostname {hostname:?}: 1 to 64 letters, digits, `-` and `.` are allowed"
                ));
            }
        }
        // IFNAMSIZ, and what dev_valid_name() of the kernel refuses.
        let bad_octet = |b: u8| !b.is_ascii_graphic() || b == b'/' || b == b':' || b == b'%';
        if self.interface.is_empty()
            || self.interface.len() > 15
            || matches!(self.interface.as_str(), "." | ".." | "lo" | "all" | "default")
            || self.interface.bytes().any(bad_octet)
        {
            return Err(format!(
                "interface {:?} is not a possible name of a network interface",
                self.interface
            ));
        }
        if self.tag.len() > 64 {
            return Err("tag: 64 octets are the most".to_owned());
        }
        if !self.mac.is_valid_source() {
            return Err(format!("mac {}: must be a unicast address", self.mac));
        }
        if !(MIN_MTU..=MAX_MTU).contains(&self.mtu) {
            return Err(format!("mtu {}: must be from {MIN_MTU} to {MAX_MTU}", self.mtu));
        }
        self.validate_addresses()?;
        self.existing.as_ref().map_or(Ok(()), Existing::validate)?;
        for file in &self.files {
            let plain =
                file.path.components().all(|c| matches!(c, Component::RootDir | Component::Normal(_)));
            if !file.path.is_absolute() || !plain {
                return Err(format!("file {}: must be an absolute path without `..`", file.path.display()));
            }
        }
        Ok(())
    }

    fn validate_addresses(&self) -> Result<(), String> {
        let mut seen = Vec::with_capacity(self.addresses.len());
        for network in &self.addresses {
            let address = network.addr();
            if address.is_unspecified() || address.is_multicast() || address.is_loopback() {
                return Err(format!("address {address} cannot belong to an interface"));
            }
            if seen.contains(&address) {
                return Err(format!("address {address} appears twice"));
            }
            seen.push(address);
        }
        let has_v4 = seen.iter().any(IpAddr::is_ipv4);
        let has_v6 = seen.iter().any(IpAddr::is_ipv6);
        if self.gateway_v4.is_some() && !has_v4 {
            return Err("gateway_v4 needs an IPv4 address on the interface".to_owned());
        }
        if self.gateway_v6.is_some() && !has_v6 {
            return Err("gateway_v6 needs an IPv6 address on the interface".to_owned());
        }
        if has_v6 && self.mtu < MIN_IPV6_MTU {
            return Err(format!(
                "mtu {} is too small for IPv6 addresses: RFC 8200 asks for {MIN_IPV6_MTU}",
                self.mtu
            ));
        }
        let gateways = [self.gateway_v4.map(IpAddr::V4), self.gateway_v6.map(IpAddr::V6)];
        for gateway in gateways.into_iter().flatten() {
            if gateway.is_unspecified() || gateway.is_multicast() || gateway.is_loopback() {
                return Err(format!("gateway {gateway} is not a unicast address"));
            }
            if seen.contains(&gateway) {
                return Err(format!("gateway {gateway} is the interface's own address"));
            }
        }
        Ok(())
    }

    /// Whether the kernel reaches `gateway` without a host route, by a prefix of `addresses` or as link-local.
    pub(super) fn covers(&self, gateway: IpAddr) -> bool {
        let link_local = matches!(gateway, IpAddr::V6(address) if address.is_unicast_link_local());
        link_local || self.addresses.iter().any(|network| network.contains(&gateway))
    }
}

/// By what it was made of something is known again: 32 hexadecimal digits, equal for what is equal.
pub(crate) fn made_of(what: &impl Serialize) -> String {
    let text = serde_json::to_vec(what).unwrap_or_default();
    Sha256::digest(text).iter().take(16).map(|octet| format!("{octet:02x}")).collect()
}

/// Checks a name for `/run/netns`, which also becomes a file name in the state directory.
///
/// # Errors
/// A sentence that says what is allowed.
pub fn validate_name(name: &str) -> Result<(), String> {
    let good = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    let first = name.bytes().next();
    if name.len() > 200 || !name.bytes().all(good) || !first.is_some_and(|b| b.is_ascii_alphanumeric()) {
        return Err(format!(
            "name {name:?}: 1 to 200 letters, digits, `-`, `_` and `.`, beginning with a letter or a digit"
        ));
    }
    Ok(())
}

/// A namespace that exists.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Namespace {
    /// Its name under `/run/netns`: on the host for root, in the helper's own mount namespace otherwise. One that
    /// existed before has no name from us.
    pub name: String,
    /// The process that holds it, by the host's numbering.
    pub pause_pid: u32,
    /// The inode of its network namespace, which no other living namespace has.
    pub netns_inode: u64,
    /// Name of its interface.
    pub interface: String,
    /// MTU of its interface, in octets.
    pub mtu: u16,
    /// Whether every frame on the TAP begins with a `virtio_net_hdr`.
    pub vnet_hdr: bool,
    /// Whether the holding process lives. If not, nothing can be started in the namespace any more and every
    /// process in it is gone.
    pub alive: bool,
    /// What its owner gave it to be known by.
    #[serde(default)]
    pub tag: String,
    /// What is not quite as asked although the namespace works, in sentences.
    pub warnings: Vec<String>,
}

impl Namespace {
    /// What is needed to run programs in it.
    pub fn target(&self) -> NamespaceRef {
        NamespaceRef { pause_pid: self.pause_pid, netns_inode: self.netns_inode }
    }

    /// Where `ip netns exec` looks for it.
    pub fn path(&self) -> PathBuf {
        Path::new(super::NETNS_DIRECTORY).join(&self.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec() -> NamespaceSpec {
        let mut spec = NamespaceSpec::new("pod-a", MacAddr::local(1));
        spec.addresses = vec!["10.244.0.2/24".parse().unwrap(), "fd00::2/64".parse().unwrap()];
        spec.gateway_v4 = Some(Ipv4Addr::new(10, 244, 0, 1));
        spec.gateway_v6 = Some("fd00::1".parse().unwrap());
        spec
    }

    #[test]
    fn names_that_could_leave_their_directory_are_refused() {
        for bad in ["", ".", "..", "../x", "a/b", ".hidden", "-option", "a b", "ä", "a\0b", &"x".repeat(201)]
        {
            assert!(validate_name(bad).is_err(), "{bad:?}");
        }
        for good in ["a", "default_web-0.x", "0", &"x".repeat(200)] {
            assert!(validate_name(good).is_ok(), "{good:?}");
        }
    }

    #[test]
    fn a_sound_specification_passes_and_survives_json() {
        let spec = spec();
        spec.validate().unwrap();
        let text = serde_json::to_string(&spec).unwrap();
        assert_eq!(serde_json::from_str::<NamespaceSpec>(&text).unwrap(), spec);
    }

    #[test]
    fn each_field_that_the_kernel_would_refuse_is_refused_first() {
        type Change = fn(&mut NamespaceSpec);
        let changes: [(&str, Change); 16] = [
            ("hostname", |s| s.hostname = Some("a_b".to_owned())),
            ("interface", |s| s.interface = "sixteen-octets-x".to_owned()),
            ("interface", |s| s.interface = "lo".to_owned()),
            ("interface", |s| s.interface = "eth%d".to_owned()),
            ("mac", |s| s.mac = MacAddr::BROADCAST),
            ("mtu", |s| s.mtu = 65522),
            ("mtu", |s| s.mtu = 1279),
            ("address", |s| s.addresses.push("224.0.0.1/4".parse().unwrap())),
            ("twice", |s| s.addresses.push("10.244.0.2/32".parse().unwrap())),
            ("gateway_v6", |s| s.addresses.retain(|a| a.addr().is_ipv4())),
            ("gateway", |s| s.gateway_v4 = Some(Ipv4Addr::new(224, 0, 0, 1))),
            ("own", |s| s.gateway_v4 = Some(Ipv4Addr::new(10, 244, 0, 2))),
            ("absolute", |s| s.existing = Some(Existing::Path("x".into()))),
            ("process 0", |s| s.existing = Some(Existing::Pid(0))),
            ("name", |s| s.existing = Some(Existing::Name("../x".to_owned()))),
            ("file", |s| s.files.push(PodFile { path: "/etc/../x".into(), content: String::new() })),
        ];
        for (word, change) in changes {
            let mut spec = spec();
            change(&mut spec);
            let error = spec.validate().unwrap_err();
            assert!(error.contains(word), "{word}: {error}");
        }
    }

    #[test]
    fn a_gateway_outside_every_prefix_needs_a_route_of_its_own() {
        let mut spec = spec();
        assert!(spec.covers("10.244.0.1".parse().unwrap()));
        spec.addresses = vec!["10.20.30.4/32".parse().unwrap(), "fd00::4/128".parse().unwrap()];
        assert!(!spec.covers("169.254.1.1".parse().unwrap()));
        assert!(!spec.covers("fd00::1".parse().unwrap()));
        assert!(spec.covers("fe80::1".parse().unwrap()));
    }
}
