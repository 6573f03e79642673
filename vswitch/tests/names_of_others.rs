//! Names that are not the cluster's, asked from inside pods, with `dnsmasq` as the machine's resolver.
#![allow(clippy::unwrap_used, reason = "all of this file is tests")]
#![allow(clippy::disallowed_methods, reason = "answers of real programs take real time")]

#[path = "common/mod.rs"]
mod common;

use std::fs;
use std::net::UdpSocket;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use common::{Cluster, ManifestFile, both, ready, success, until};

const SERVER: &str = "10.96.0.10";

/// Waits for a line of what `dig` asked to be shown by `logs`.
fn logged(cluster: &Cluster, wanted: &[&str]) -> bool {
    let lines = both(&cluster.verb(&["logs", "-n", "kube-system", "kube-dns"]));
    lines.lines().any(|line| wanted.iter().all(|part| line.contains(part)))
}

#[test]
fn what_is_asked_is_logged_while_it_is_wanted() {
    if !ready(&["dig", "dnsmasq"]) {
        return;
    }
    let file = ResolvConf::new("logged", &["127.0.61.1"]);
    let _machine = Dnsmasq::start("127.0.61.1", "192.0.2.80");
    let cluster = lab("logged", &file);
    let apply = |logs: bool| {
        let more = format!("spec:\n  dns: {{resolvConf: {}, logQueries: {logs}}}\n", file.0.display());
        let text = include_str!("../src/objects/builtin.yaml").replacen("spec:\n", &more, 1);
        let file = ManifestFile::new("logged", &text);
        success("apply", &cluster.verb(&["apply", "-f", file.path()]));
    };
    pod_dig(&cluster, &["before.example.test", "A"]);
    apply(true);
    pod_dig(&cluster, &["www.example.test", "A"]);
    pod_dig(&cluster, &["+tcp", "missing.default.svc.cluster.local", "AAAA"]);
    let of_others = ["10.244.0.2:", "\"A IN www.example.test. udp", "NOERROR qr,rd,ra"];
    until("a query for others is logged", || logged(&cluster, &of_others));
    let own = ["\"AAAA IN missing.default.svc.cluster.local. tcp", "NXDOMAIN qr,aa,rd,ra"];
    until("a query of the cluster's is logged", || logged(&cluster, &own));
    apply(false);
    pod_dig(&cluster, &["after.example.test", "A"]);
    for unlogged in ["before.", "after."] {
        assert!(!logged(&cluster, &[unlogged]), "{unlogged}");
    }
}

/// A file like `/etc/resolv.conf`.
struct ResolvConf(PathBuf);

impl ResolvConf {
    fn new(label: &str, servers: &[&str]) -> Self {
        let file = Self(std::env::temp_dir().join(format!("vst-{label}-{}.conf", std::process::id())));
        file.name(servers);
        file
    }

    /// Replaces it, as tools do.
    fn name(&self, servers: &[&str]) {
        let text: String = servers.iter().map(|server| format!("nameserver {server}\n")).collect();
        let new = self.0.with_extension("new");
        fs::write(&new, text).unwrap();
        fs::rename(&new, &self.0).unwrap();
    }
}

impl Drop for ResolvConf {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

/// A resolver of this machine.
struct Dnsmasq(Child);

impl Dnsmasq {
    fn start(address: &str, web: &str) -> Self {
        let long = "x".repeat(250);
        let texts = [&*long; 8].join(",");
        let arguments = [
            "--keep-in-foreground".to_owned(),
            "--conf-file=/dev/null".to_owned(),
            "--no-resolv".to_owned(),
            "--no-hosts".to_owned(),
            "--bind-interfaces".to_owned(),
            "--user=root".to_owned(),
            "--pid-file=".to_owned(),
            "--local-ttl=60".to_owned(),
            format!("--listen-address={address}"),
            "--local=/example.test/".to_owned(),
            format!("--host-record=www.example.test,{web},2001:db8::80"),
            "--cname=alias.example.test,www.example.test".to_owned(),
            "--mx-host=example.test,mail.example.test,10".to_owned(),
            "--srv-host=_sip._udp.example.test,www.example.test,5060,1,2".to_owned(),
            "--txt-record=short.example.test,some text".to_owned(),
            format!("--txt-record=long.example.test,{texts}"),
            "--ptr-record=80.2.0.192.in-addr.arpa,www.example.test".to_owned(),
        ];
        let child = Command::new("dnsmasq").args(arguments).stdin(Stdio::null()).spawn().unwrap();
        let started = Self(child);
        until("dnsmasq answers", || !host_dig(address, &["www.example.test", "A"]).is_empty());
        started
    }
}

impl Drop for Dnsmasq {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Somebody who listens and never says anything.
fn silent(address: &str) -> UdpSocket {
    let socket = UdpSocket::bind((address, 53)).unwrap();
    socket.set_nonblocking(true).unwrap();
    socket
}

/// What was sent there, as far as it can be read.
fn received(socket: &UdpSocket) -> Vec<String> {
    let mut buffer = [0; 2000];
    std::iter::from_fn(|| {
        let count = socket.recv(&mut buffer).ok()?;
        Some(String::from_utf8_lossy(&buffer[12..count]).to_lowercase())
    })
    .collect()
}

const SHORT: [&str; 5] = ["dig", "+tries=1", "+time=8", "+noall", "+answer"];

/// Records without their age, in order.
fn records(text: &str) -> Vec<String> {
    let line = |line: &str| {
        let words: Vec<&str> = line.split_whitespace().collect();
        (words.len() > 4).then(|| format!("{} {}", words[0], words[3..].join(" ")))
    };
    let mut all: Vec<String> = text.lines().filter_map(line).collect();
    all.sort();
    all
}

fn host_dig(server: &str, question: &[&str]) -> Vec<String> {
    let at = format!("@{server}");
    let output = Command::new(SHORT[0]).args(&SHORT[1..]).arg(at).args(question).output().unwrap();
    records(&String::from_utf8_lossy(&output.stdout))
}

fn pod_dig(cluster: &Cluster, question: &[&str]) -> Vec<String> {
    let at = format!("@{SERVER}");
    records(&cluster.must("alpha", &[&SHORT[..], &[&at], question].concat()))
}

fn code(text: &str) -> String {
    text.split("status: ").nth(1).unwrap_or("").split(',').next().unwrap_or("").to_owned()
}

fn pod_code(cluster: &Cluster, question: &[&str]) -> String {
    let at = format!("@{SERVER}");
    code(&cluster.must("alpha", &[&["dig", "+tries=1", "+time=8", &at], question].concat()))
}

fn lab(label: &str, file: &ResolvConf) -> Cluster {
    let more = format!("spec:\n  dns: {{resolvConf: {}}}\n", file.0.display());
    let text = include_str!("../src/objects/builtin.yaml").replacen("spec:\n", &more, 1);
    let service = "---\napiVersion: v1\nkind: Service\nmetadata: {name: out}\n\
                   spec: {type: ExternalName, externalName: alias.example.test}\n";
    Cluster::of(label, &format!("{text}{service}"), &[])
}

#[test]
fn others_names_are_answered_as_the_machines_resolver_does() {
    if !ready(&["dig", "dnsmasq"]) {
        return;
    }
    let file = ResolvConf::new("asked", &["127.0.57.1"]);
    let _dnsmasq = Dnsmasq::start("127.0.57.1", "192.0.2.80");
    let cluster = lab("asked", &file);
    for question in [
        ["www.example.test", "A"],
        ["www.example.test", "AAAA"],
        ["WwW.Example.TEST", "A"],
        ["www.example.test", "TXT"],
        ["alias.example.test", "A"],
        ["example.test", "MX"],
        ["_sip._udp.example.test", "SRV"],
        ["short.example.test", "TXT"],
        ["long.example.test", "TXT"],
        ["missing.example.test", "A"],
        ["80.2.0.192.in-addr.arpa", "PTR"],
        ["www.elsewhere.test", "A"],
    ] {
        for transport in ["+notcp", "+tcp"] {
            let own = [&[transport], &question[..]].concat();
            assert_eq!(pod_dig(&cluster, &own), host_dig("127.0.57.1", &question), "{own:?}");
            let theirs =
                Command::new("dig").args(["+tries=1", "@127.0.57.1"]).args(question).output().unwrap();
            let theirs = code(&String::from_utf8_lossy(&theirs.stdout));
            // What nobody is asked for is refused there, and is a failure for whoever asked here.
            let theirs = theirs.replace("REFUSED", "SERVFAIL");
            assert_eq!(pod_code(&cluster, &own), theirs, "{own:?}");
        }
    }
    // A Service that is somebody else's name.
    let expected = [
        "alias.example.test. CNAME www.example.test.",
        "out.default.svc.cluster.local. CNAME alias.example.test.",
        "www.example.test. A 192.0.2.80",
    ];
    assert_eq!(pod_dig(&cluster, &["out.default.svc.cluster.local", "A"]), expected);
}

#[test]
fn a_server_that_says_nothing_costs_a_moment_and_the_cluster_never_waits() {
    if !ready(&["dig", "dnsmasq"]) {
        return;
    }
    let dead = [silent("127.0.58.1"), silent("127.0.58.2")];
    let file = ResolvConf::new("silent", &["127.0.58.1", "127.0.58.3"]);
    let dnsmasq = Dnsmasq::start("127.0.58.3", "192.0.2.81");
    let cluster = lab("silent", &file);
    let begin = Instant::now();
    assert_eq!(pod_dig(&cluster, &["www.example.test", "A"]), ["www.example.test. A 192.0.2.81"]);
    assert!(begin.elapsed() < Duration::from_secs(2), "{:?}", begin.elapsed());
    // From then on it is asked last.
    let begin = Instant::now();
    assert_eq!(pod_dig(&cluster, &["www.example.test", "AAAA"]), ["www.example.test. AAAA 2001:db8::80"]);
    assert!(begin.elapsed() < Duration::from_millis(900), "{:?}", begin.elapsed());
    // What was said is remembered when nobody says anything any more.
    drop(dnsmasq);
    assert_eq!(pod_dig(&cluster, &["www.example.test", "A"]), ["www.example.test. A 192.0.2.81"]);
    file.name(&["127.0.58.1", "127.0.58.2"]);
    until("those who were said to be there are asked", || {
        let _ = pod_dig(&cluster, &["probe.example.test", "A"]);
        received(&dead[1]).iter().any(|asked| asked.contains("probe"))
    });
    let begin = Instant::now();
    assert_eq!(pod_code(&cluster, &["never.example.test", "A"]), "SERVFAIL");
    assert!(begin.elapsed() < Duration::from_secs(5), "{:?}", begin.elapsed());
    // The cluster's own names do not wait for that, and nobody is told of them.
    received(&dead[0]);
    let begin = Instant::now();
    for name in
        ["kube-dns.kube-system.svc.cluster.local", "missing.default.svc.cluster.local", "cluster.local"]
    {
        pod_code(&cluster, &[name, "A"]);
        pod_code(&cluster, &[name, "TYPE65"]);
    }
    pod_code(&cluster, &["-x", "10.96.0.99"]);
    pod_code(&cluster, &["-x", "10.244.9.9"]);
    assert!(begin.elapsed() < Duration::from_secs(3), "{:?}", begin.elapsed());
    for socket in &dead {
        let asked = received(socket);
        assert!(asked.iter().all(|name| !name.contains("cluster") && !name.contains("arpa")), "{asked:?}");
    }
}

#[test]
fn another_resolver_is_asked_soon_after_it_is_named_and_none_at_all_is_no_harm() {
    if !ready(&["dig", "dnsmasq"]) {
        return;
    }
    let file = ResolvConf::new("named", &["127.0.59.1"]);
    let _first = Dnsmasq::start("127.0.59.1", "192.0.2.1");
    let _second = Dnsmasq::start("127.0.59.2", "192.0.2.2");
    let cluster = lab("named", &file);
    assert_eq!(pod_dig(&cluster, &["www.example.test", "A"]), ["www.example.test. A 192.0.2.1"]);
    file.name(&["127.0.59.2"]);
    let begin = Instant::now();
    until("the other is asked", || {
        assert_eq!(pod_code(&cluster, &["kube-dns.kube-system.svc.cluster.local", "A"]), "NOERROR");
        pod_dig(&cluster, &["www.example.test", "A"]) == ["www.example.test. A 192.0.2.2"]
    });
    assert!(begin.elapsed() < Duration::from_secs(10), "{:?}", begin.elapsed());
    file.name(&[]);
    until("nobody is asked", || pod_code(&cluster, &["www.example.test", "A"]) == "SERVFAIL");
    assert_eq!(pod_code(&cluster, &["kube-dns.kube-system.svc.cluster.local", "A"]), "NOERROR");
    fs::remove_file(&file.0).unwrap();
    std::thread::sleep(Duration::from_secs(2));
    assert_eq!(pod_code(&cluster, &["kube-dns.kube-system.svc.cluster.local", "A"]), "NOERROR");
}

#[test]
fn stub_domains_and_further_names_are_changed_while_it_runs() {
    if !ready(&["dig", "dnsmasq"]) {
        return;
    }
    let file = ResolvConf::new("stub", &["127.0.60.1"]);
    let _machine = Dnsmasq::start("127.0.60.1", "192.0.2.1");
    let _other = Dnsmasq::start("127.0.60.2", "192.0.2.2");
    let cluster = lab("stub", &file);
    let apply = |more: &str| {
        let more = format!("spec:\n  dns: {{resolvConf: {}, {more}}}\n", file.0.display());
        let text = include_str!("../src/objects/builtin.yaml").replacen("spec:\n", &more, 1);
        let file = ManifestFile::new("stub", &text);
        success("apply", &cluster.verb(&["apply", "-f", file.path()]));
    };
    let www = |address: &str| vec![format!("www.example.test. A {address}")];
    assert_eq!(pod_dig(&cluster, &["www.example.test", "A"]), www("192.0.2.1"));
    apply("stubDomains: {example.test: [127.0.60.2]}");
    assert_eq!(pod_dig(&cluster, &["www.example.test", "A"]), www("192.0.2.2"));
    apply("stubDomains: {www.example.test: [127.0.60.1], example.test: [127.0.60.2]}");
    assert_eq!(pod_dig(&cluster, &["www.example.test", "A"]), www("192.0.2.1"));
    let records = "records: [{name: www.example.test, addresses: [203.0.113.1, '2001:db8::1']}, \
                   {name: mine.internal, target: www.example.test}]";
    apply(records);
    assert_eq!(pod_dig(&cluster, &["www.example.test", "A"]), www("203.0.113.1"));
    assert_eq!(pod_dig(&cluster, &["www.example.test", "AAAA"]), ["www.example.test. AAAA 2001:db8::1"]);
    let expected = ["mine.internal. CNAME www.example.test.", "www.example.test. A 203.0.113.1"];
    assert_eq!(pod_dig(&cluster, &["mine.internal", "A"]), expected);
    // Others of the domain are still others'.
    assert_eq!(pod_dig(&cluster, &["short.example.test", "TXT"]).len(), 1);
    apply("records: []");
    assert_eq!(pod_dig(&cluster, &["www.example.test", "A"]), www("192.0.2.1"));
}
