//! What programs in a pod find out about names: `/etc/resolv.conf` and `/etc/hosts`, as the kubelet writes them.
//!
//! A pod keeps the files that it began with, whatever of the cluster changes: programs read them once.

use std::fmt::Write as _;
use std::net::IpAddr;

use k8s_openapi::api::core::v1::PodDNSConfig;

use crate::cluster::{Cluster, Pod};
use crate::helper::{MADE_BY, PodFile};

/// As many servers as resolvers look at, and as many domains as the API server lets a pod have.
const MOST_SERVERS: usize = 3;
const MOST_SEARCHES: usize = 32;
/// So many dots make a name be asked for as it stands first.
const NDOTS: (&str, Option<&str>) = ("ndots", Some("5"));

/// How a pod's names are found (`dnsPolicy`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Policy {
    /// By the cluster's name server.
    Cluster,
    /// As on its node: here, as on this machine.
    Machine,
    /// As `dnsConfig` says and not otherwise.
    None,
}

/// The words of `dnsPolicy`.
pub(crate) const POLICIES: [&str; 4] = ["ClusterFirst", "ClusterFirstWithHostNet", "Default", "None"];

fn policy(cluster: &Cluster, pod: &Pod) -> Policy {
    let clusters = if servers(cluster, pod).is_empty() { Policy::Machine } else { Policy::Cluster };
    match pod.spec.dns_policy.as_deref().unwrap_or("ClusterFirst") {
        "None" => Policy::None,
        "Default" => Policy::Machine,
        "ClusterFirst" if pod.host_network => Policy::Machine,
        _ => clusters,
    }
}

/// The name server's addresses of those families that the pod has.
fn servers(cluster: &Cluster, pod: &Pod) -> Vec<String> {
    let has = |server: &&IpAddr| pod.addresses.iter().any(|own| own.is_ipv4() == server.is_ipv4());
    let all = cluster.services.names.servers.iter().filter(|server| pod.host_network || has(server));
    all.map(ToString::to_string).collect()
}

/// What is laid over the machine's files in a pod. `machine` is what the machine's own file says of names.
pub(crate) fn files(cluster: &Cluster, pod: &Pod, machine: &str) -> Vec<PodFile> {
    let file = |path: &str, content: Option<String>| Some(PodFile { path: path.into(), content: content? });
    let all = [
        file("/etc/resolv.conf", resolv_conf(cluster, pod, machine)),
        file("/etc/hosts", hosts(cluster, pod)),
    ];
    all.into_iter().flatten().collect()
}

/// The resolver's configuration; none if the machine's is the pod's as well.
fn resolv_conf(cluster: &Cluster, pod: &Pod, machine: &str) -> Option<String> {
    let config = pod.spec.dns_config.clone().unwrap_or_default();
    let (mut servers, mut searches) = match policy(cluster, pod) {
        Policy::Cluster => {
            let domain = &cluster.services.names.domain;
            let mut searches =
                vec![format!("{}.svc.{domain}", pod.namespace), format!("svc.{domain}"), domain.clone()];
            searches.extend(dns::resolv_conf::searches(machine));
            (servers(cluster, pod), searches)
        }
        Policy::Machine => return None,
        Policy::None => (Vec::new(), Vec::new()),
    };
    let mut options: Vec<(String, Option<String>)> = Vec::new();
    if !servers.is_empty() {
        options.push((NDOTS.0.to_owned(), NDOTS.1.map(str::to_owned)));
    }
    servers.extend(config.nameservers.clone().unwrap_or_default());
    searches.extend(config.searches.clone().unwrap_or_default());
    for option in config.options.into_iter().flatten() {
        let Some(name) = option.name else { continue };
        options.retain(|(known, _)| *known != name);
        options.push((name, option.value));
    }
    unique(&mut servers, MOST_SERVERS);
    unique(&mut searches, MOST_SEARCHES);
    let mut text = format!("{MADE_BY}\n");
    if !searches.is_empty() {
        let _ = writeln!(text, "search {}", searches.join(" "));
    }
    for server in servers {
        let _ = writeln!(text, "nameserver {server}");
    }
    let options = options.into_iter().map(|(name, value)| match value {
        Some(value) => format!("{name}:{value}"),
        None => name,
    });
    let options: Vec<String> = options.collect();
    if !options.is_empty() {
        let _ = writeln!(text, "options {}", options.join(" "));
    }
    Some(text)
}

fn unique(all: &mut Vec<String>, most: usize) {
    let mut seen = std::collections::HashSet::new();
    all.retain(|one| seen.insert(one.clone()));
    all.truncate(most);
}

/// Names that need nobody to be asked; none if the machine's are the pod's as well.
fn hosts(cluster: &Cluster, pod: &Pod) -> Option<String> {
    if pod.host_network {
        return None;
    }
    let mut text = format!(
        "{MADE_BY}\n127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\nfe00::0\tip6-localnet\n\
         fe00::0\tip6-mcastprefix\nfe00::1\tip6-allnodes\nfe00::2\tip6-allrouters\n"
    );
    let hostname = pod.spec.hostname.as_deref().unwrap_or(&pod.name);
    let domain = &cluster.services.names.domain;
    let full =
        pod.spec.subdomain.as_ref().map(|of| format!("{hostname}.{of}.{}.svc.{domain}\t", pod.namespace));
    for address in &pod.addresses {
        let _ = writeln!(text, "{address}\t{}{hostname}", full.as_deref().unwrap_or_default());
    }
    for alias in pod.spec.host_aliases.iter().flatten() {
        let names = alias.hostnames.clone().unwrap_or_default();
        let _ = writeln!(text, "{}\t{}", alias.ip, names.join("\t"));
    }
    Some(text)
}

/// What is wrong with what a pod says of its names: field and sentence.
pub(crate) fn check(spec: &k8s_openapi::api::core::v1::PodSpec) -> Vec<(String, String)> {
    let mut faults = Vec::new();
    let mut fault = |path: &str, message: String| faults.push((path.to_owned(), message));
    let policy = spec.dns_policy.as_deref().unwrap_or(POLICIES[0]);
    if !POLICIES.contains(&policy) {
        fault("spec.dnsPolicy", format!("{policy:?} is none of {}", POLICIES.join(", ")));
    }
    let none = PodDNSConfig::default();
    let config = spec.dns_config.as_ref().unwrap_or(&none);
    let servers = config.nameservers.as_deref().unwrap_or_default();
    if policy == "None" && servers.is_empty() {
        fault("spec.dnsConfig", "one server at least is needed where dnsPolicy is None".to_owned());
    }
    if servers.len() > MOST_SERVERS {
        fault("spec.dnsConfig.nameservers", format!("are more than {MOST_SERVERS}"));
    }
    for (index, server) in servers.iter().enumerate().filter(|(_, server)| server.parse::<IpAddr>().is_err())
    {
        fault(&format!("spec.dnsConfig.nameservers[{index}]"), format!("{server:?} is no address"));
    }
    let searches = config.searches.as_deref().unwrap_or_default();
    if searches.len() > MOST_SEARCHES {
        fault("spec.dnsConfig.searches", format!("are more than {MOST_SEARCHES}"));
    }
    let is_word =
        |text: &str| !text.is_empty() && !text.contains(|c: char| c.is_whitespace() || c.is_control());
    for (index, search) in searches.iter().enumerate().filter(|(_, search)| !is_word(search)) {
        fault(&format!("spec.dnsConfig.searches[{index}]"), format!("{search:?} is no domain"));
    }
    for (index, option) in config.options.iter().flatten().enumerate() {
        let words = [option.name.as_deref().unwrap_or_default(), option.value.as_deref().unwrap_or("-")];
        if !words.into_iter().all(is_word) {
            fault(&format!("spec.dnsConfig.options[{index}]"), "needs a name, and no blanks".to_owned());
        }
    }
    for (index, alias) in spec.host_aliases.iter().flatten().enumerate() {
        let path = format!("spec.hostAliases[{index}]");
        if alias.ip.parse::<IpAddr>().is_err() {
            fault(&format!("{path}.ip"), format!("{:?} is no address", alias.ip));
        }
        let names = alias.hostnames.as_deref().unwrap_or_default();
        if let Some(name) = names.iter().find(|name| !is_word(name)) {
            fault(&format!("{path}.hostnames"), format!("{name:?} is no host name"));
        }
    }
    faults
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use k8s_openapi::api::core::v1::{HostAlias, PodDNSConfigOption, PodSpec};

    use super::*;
    use crate::objects::builtin;

    /// The files of the first pod of the built-in cluster, with this changed of it.
    fn of(change: impl FnOnce(&mut Pod, &mut PodSpec)) -> [Option<String>; 2] {
        let mut cluster = builtin("lab");
        let mut pod = cluster.pods.remove(0);
        let mut spec = PodSpec::clone(&pod.spec);
        change(&mut pod, &mut spec);
        assert_eq!(check(&spec), []);
        pod.spec = Arc::new(spec);
        let all = files(&cluster, &pod, "nameserver 192.0.2.9\nsearch corp.example\n");
        ["/etc/resolv.conf", "/etc/hosts"]
            .map(|path| all.iter().find(|file| file.path.to_str() == Some(path)).map(|f| f.content.clone()))
    }

    fn lines(text: &Option<String>) -> Vec<&str> {
        text.as_deref().unwrap_or_default().lines().skip(1).collect()
    }

    #[test]
    fn a_pod_asks_the_clusters_name_server_unless_it_says_otherwise() {
        let usual = [
            "search default.svc.cluster.local svc.cluster.local cluster.local corp.example",
            "nameserver 10.96.0.10",
            "nameserver fd00:10:96::a",
            "options ndots:5",
        ];
        assert_eq!(lines(&of(|_, _| {})[0]), usual);
        assert_eq!(of(|_, spec| spec.dns_policy = Some("Default".into()))[0], None);
        assert_eq!(of(|pod, _| pod.host_network = true), [None, None]);
        let with = of(|pod, spec| {
            pod.host_network = true;
            spec.dns_policy = Some("ClusterFirstWithHostNet".into());
        });
        assert_eq!(lines(&with[0]), usual);
        assert_eq!(
            lines(&of(|pod, _| pod.addresses.truncate(1))[0])[1..],
            ["nameserver 10.96.0.10", "options ndots:5"]
        );
    }

    #[test]
    fn what_a_pod_says_itself_is_added_or_is_all() {
        let option = |name: &str, value: Option<&str>| PodDNSConfigOption {
            name: Some(name.into()),
            value: value.map(str::to_owned),
        };
        let config = PodDNSConfig {
            nameservers: Some(vec!["192.0.2.1".into(), "192.0.2.2".into()]),
            searches: Some(vec!["example.com".into(), "cluster.local".into()]),
            options: Some(vec![option("ndots", Some("2")), option("edns0", None)]),
        };
        let added = of(|_, spec| spec.dns_config = Some(config.clone()));
        let expected = [
            "search default.svc.cluster.local svc.cluster.local cluster.local corp.example example.com",
            "nameserver 10.96.0.10",
            "nameserver fd00:10:96::a",
            "nameserver 192.0.2.1",
            "options ndots:2 edns0",
        ];
        assert_eq!(lines(&added[0]), expected);
        let alone =
            of(|_, spec| (spec.dns_policy, spec.dns_config) = (Some("None".into()), Some(config.clone())));
        let expected = [
            "search example.com cluster.local",
            "nameserver 192.0.2.1",
            "nameserver 192.0.2.2",
            "options ndots:2 edns0",
        ];
        assert_eq!(lines(&alone[0]), expected);
    }

    #[test]
    fn a_pod_knows_its_own_name_and_those_it_is_given() {
        assert_eq!(lines(&of(|_, _| {})[1])[6..], ["10.244.0.2\talpha", "fd00:10:244::2\talpha"]);
        let named = of(|_, spec| {
            (spec.hostname, spec.subdomain) = (Some("first".into()), Some("db".into()));
            let names = Some(vec!["foo.example".into(), "foo".into()]);
            spec.host_aliases = Some(vec![HostAlias { ip: "192.0.2.7".into(), hostnames: names }]);
        });
        let full = "first.db.default.svc.cluster.local";
        let expected = [
            format!("10.244.0.2\t{full}\tfirst"),
            format!("fd00:10:244::2\t{full}\tfirst"),
            "192.0.2.7\tfoo.example\tfoo".to_owned(),
        ];
        assert_eq!(lines(&named[1])[6..], expected);
    }

    #[test]
    fn what_would_spoil_a_file_is_refused() {
        let mut spec = PodSpec { dns_policy: Some("Mine".into()), ..PodSpec::default() };
        let option = PodDNSConfigOption { name: Some("a b".into()), value: None };
        spec.dns_config = Some(PodDNSConfig {
            nameservers: Some(["x", "192.0.2.1", "192.0.2.2", "192.0.2.3"].map(str::to_owned).to_vec()),
            searches: Some(vec!["a\nnameserver 192.0.2.9".into()]),
            options: Some(vec![option]),
        });
        let names = Some(vec!["a b".to_owned()]);
        spec.host_aliases = Some(vec![HostAlias { ip: "nowhere".into(), hostnames: names }]);
        let fields: Vec<String> = check(&spec).into_iter().map(|(path, _)| path).collect();
        let expected = [
            "spec.dnsPolicy",
            "spec.dnsConfig.nameservers",
            "spec.dnsConfig.nameservers[0]",
            "spec.dnsConfig.searches[0]",
            "spec.dnsConfig.options[0]",
            "spec.hostAliases[0].ip",
            "spec.hostAliases[0].hostnames",
        ];
        assert_eq!(fields, expected);
        let none = PodSpec { dns_policy: Some("None".into()), ..PodSpec::default() };
        assert_eq!(check(&none)[0].0, "spec.dnsConfig");
    }
}
