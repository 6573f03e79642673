//! The cluster's names, asked by real programs from inside pods.
#![allow(clippy::unwrap_used, reason = "all of this file is tests")]

#[path = "common/mod.rs"]
mod common;

use common::{Cluster, ManifestFile, ready, success, until};

const SERVER: [&str; 2] = ["10.96.0.10", "fd00:10:96::a"];

/// Three pods on two nodes, and a Service of every kind.
const LAB: &str = "---
apiVersion: v1
kind: Service
metadata: {name: web}
spec:
  clusterIPs: [10.96.7.7, 'fd00:10:96::77']
  ipFamilyPolicy: RequireDualStack
  selector: {app: web}
  ports: [{name: http, port: 80, targetPort: 8080}, {name: stats, port: 8125, protocol: UDP}]
---
apiVersion: v1
kind: Service
metadata: {name: four}
spec: {clusterIP: 10.96.7.8, ports: [{port: 80}]}
---
apiVersion: v1
kind: Service
metadata: {name: db, namespace: data}
spec: {clusterIP: None, ipFamilyPolicy: RequireDualStack, selector: {app: db}, ports: [{name: sql, port: 5432}]}
---
apiVersion: v1
kind: Pod
metadata: {name: db-0, namespace: data, labels: {app: db}}
spec: {nodeName: node-2, hostname: first, subdomain: db, containers: [{name: c, image: vswitch/http}]}
status: {podIPs: [{ip: 10.244.1.50}, {ip: 'fd00:10:244:1::50'}]}
---
apiVersion: v1
kind: Pod
metadata: {name: db-1, namespace: data, labels: {app: db}}
spec: {nodeName: node-1, containers: [{name: c, image: vswitch/http}]}
status: {podIPs: [{ip: 10.244.0.51}, {ip: 'fd00:10:244::51'}]}
---
apiVersion: v1
kind: Service
metadata: {name: given, namespace: data}
spec: {clusterIP: None}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: given-1, namespace: data, labels: {kubernetes.io/service-name: given}}
addressType: IPv4
endpoints: [{addresses: [203.0.113.5], hostname: outside}, {addresses: [203.0.113.6], conditions: {ready: false}}]
---
apiVersion: v1
kind: Pod
metadata: {name: teller}
spec:
  nodeName: node-1
  containers: [{name: c, command: [sh, -c, 'env; echo OWN=$WEB_SERVICE_HOST; exec sleep 1000']}]
---
apiVersion: v1
kind: Pod
metadata: {name: quiet}
spec: {nodeName: node-1, enableServiceLinks: false, containers: [{name: c, command: [sh, -c, 'env; exec sleep 1000']}]}
---
apiVersion: v1
kind: Service
metadata: {name: alias}
spec: {type: ExternalName, externalName: web.default.svc.cluster.local}
";

/// The built-in cluster, with this said of its name server.
fn builtin(more: &str) -> String {
    include_str!("../src/objects/builtin.yaml").replacen("spec:\n", &format!("spec:\n  {more}\n"), 1)
}

fn lab(label: &str) -> Cluster {
    let text = format!("{}{LAB}", builtin("dns: {resolvConf: /dev/null}"));
    let cluster = Cluster::of(label, &text, &[]);
    until("all pods are ready", || {
        let pods = cluster.get("pods");
        pods.iter().all(|pod| pod["status"]["conditions"][0]["status"] == "True")
    });
    cluster
}

/// What `dig` says in short, a line each, in order.
fn dig(cluster: &Cluster, from: &str, server: &str, question: &[&str]) -> Vec<String> {
    let at = format!("@{server}");
    let command = [&["dig", "+short", "+tries=1", "+time=3", &at], question].concat();
    let mut lines: Vec<String> = cluster.must(from, &command).lines().map(str::to_owned).collect();
    lines.sort();
    lines
}

fn reverse(cluster: &Cluster, from: &str, server: &str, address: &str) -> Vec<String> {
    dig(cluster, from, server, &["-x", address])
}

#[test]
fn every_record_is_answered_from_every_pod_in_both_families_over_udp_and_tcp() {
    if !ready(&["dig"]) {
        return;
    }
    let cluster = lab("names");
    let domain = |name: &str| format!("{name}.cluster.local");
    let cases: &[(&str, &str, &[&str])] = &[
        ("web.default.svc", "A", &["10.96.7.7"]),
        ("web.default.svc", "AAAA", &["fd00:10:96::77"]),
        ("four.default.svc", "A", &["10.96.7.8"]),
        ("four.default.svc", "AAAA", &[]),
        ("kube-dns.kube-system.svc", "A", &["10.96.0.10"]),
        ("kube-dns.kube-system.svc", "AAAA", &["fd00:10:96::a"]),
        ("_http._tcp.web.default.svc", "SRV", &["10 100 80 web.default.svc.cluster.local."]),
        ("_stats._udp.web.default.svc", "SRV", &["10 100 8125 web.default.svc.cluster.local."]),
        ("db.data.svc", "A", &["10.244.0.51", "10.244.1.50"]),
        ("db.data.svc", "AAAA", &["fd00:10:244:1::50", "fd00:10:244::51"]),
        ("first.db.data.svc", "A", &["10.244.1.50"]),
        ("10-244-0-51.db.data.svc", "A", &["10.244.0.51"]),
        ("given.data.svc", "A", &["203.0.113.5"]),
        ("outside.given.data.svc", "A", &["203.0.113.5"]),
        ("alias.default.svc", "A", &["10.96.7.7", "web.default.svc.cluster.local."]),
        ("10-244-0-2.default.pod", "A", &["10.244.0.2"]),
        ("fd00-10-244--2.default.pod", "AAAA", &["fd00:10:244::2"]),
        ("dns-version", "TXT", &["\"1.1.0\""]),
        ("missing.default.svc", "A", &[]),
    ];
    for from in ["alpha", "gamma", "node/node-1"] {
        for server in SERVER {
            for transport in ["+notcp", "+tcp"] {
                for (name, kind, expected) in cases {
                    let found = dig(&cluster, from, server, &[transport, &domain(name), kind]);
                    assert_eq!(found, *expected, "{from} {server} {transport} {name} {kind}");
                }
            }
        }
    }
    for (address, name) in [
        ("10.96.7.7", "web.default.svc.cluster.local."),
        ("fd00:10:96::77", "web.default.svc.cluster.local."),
        ("10.96.0.10", "kube-dns.kube-system.svc.cluster.local."),
        ("10.244.1.50", "first.db.data.svc.cluster.local."),
        ("fd00:10:244::51", "fd00-10-244--51.db.data.svc.cluster.local."),
        ("203.0.113.5", "outside.given.data.svc.cluster.local."),
    ] {
        assert_eq!(reverse(&cluster, "beta", SERVER[0], address), [name], "{address}");
    }
    // Nobody was remembered, and nothing translated.
    let tracked = cluster.get("connections");
    let about = tracked
        .iter()
        .filter(|row| SERVER.iter().any(|server| row.to_string().contains(&format!("\"{server}"))));
    assert_eq!(about.collect::<Vec<_>>(), Vec::<&serde_json::Value>::new());
    // The server answers ping like everybody else.
    cluster.must("alpha", &["ping", "-c", "1", "-W", "2", SERVER[0]]);
    let shown = success("get", &cluster.verb(&["get", "dns"]));
    assert!(shown.contains("web.default.svc.cluster.local.") && shown.contains("10.96.7.7"), "{shown}");
    let services = success("get", &cluster.verb(&["get", "services", "-n", "kube-system"]));
    assert!(services.contains("kube-dns") && services.contains("10.96.0.10"), "{services}");
}

#[test]
fn names_follow_services_and_the_readiness_of_pods() {
    if !ready(&["dig"]) {
        return;
    }
    let cluster = lab("followed");
    let apply = |verb: &str, text: &str| {
        let file = ManifestFile::new("names", text);
        success(verb, &cluster.verb(&[verb, "-f", file.path()]));
    };
    let answers = |name: &str| dig(&cluster, "alpha", SERVER[0], &[&format!("{name}.cluster.local"), "A"]);
    let late = "apiVersion: v1\nkind: Service\nmetadata: {name: late}\nspec: {clusterIP: 10.96.7.9, ports: [{port: 80}]}\n";
    assert_eq!(answers("late.default.svc"), [""; 0]);
    apply("apply", late);
    assert_eq!(answers("late.default.svc"), ["10.96.7.9"]);
    apply("delete", late);
    assert_eq!(answers("late.default.svc"), [""; 0]);
    // A pod that goes is no endpoint any more when the verb returns.
    let pod = "apiVersion: v1\nkind: Pod\nmetadata: {name: db-1, namespace: data}\nspec: {containers: [{name: c}]}\n";
    apply("delete", pod);
    assert_eq!(answers("db.data.svc"), ["10.244.1.50"]);
    assert_eq!(reverse(&cluster, "alpha", SERVER[0], "10.244.0.51"), [""; 0]);
    // Another domain, and another server, while it runs.
    apply(
        "apply",
        &builtin("dnsDomain: lab.example\n  dns: {addresses: [10.96.0.53], resolvConf: /dev/null}"),
    );
    let moved = dig(&cluster, "alpha", "10.96.0.53", &["web.default.svc.lab.example", "A"]);
    assert_eq!(moved, ["10.96.7.7"]);
    // Without an address there is no name server, and the address may be a Service's.
    apply("apply", &builtin("dns: {addresses: []}"));
    let own = "apiVersion: v1\nkind: Service\nmetadata: {name: kube-dns, namespace: kube-system}\n\
               spec: {clusterIP: 10.96.0.10, ports: [{port: 53, protocol: UDP}]}\n";
    apply("apply", own);
}

#[test]
fn what_is_no_name_of_the_clusters_fails_at_once() {
    if !ready(&["dig"]) {
        return;
    }
    let cluster = lab("foreign");
    let full = |question: &[&str]| {
        let at = format!("@{}", SERVER[0]);
        let command = [&["dig", "+tries=1", "+time=3", &at], question].concat();
        cluster.must("alpha", &command)
    };
    let told = full(&["www.example.com", "A"]);
    assert!(told.contains("status: SERVFAIL"), "{told}");
    let told = full(&["missing.default.svc.cluster.local", "A"]);
    assert!(told.contains("status: NXDOMAIN") && told.contains("SOA") && told.contains(" aa "), "{told}");
    let told = full(&["four.default.svc.cluster.local", "AAAA"]);
    assert!(told.contains("status: NOERROR") && told.contains("ANSWER: 0") && told.contains("SOA"), "{told}");
    let told = full(&["cluster.local", "AXFR"]);
    assert!(told.contains("Transfer failed"), "{told}");
    let told = full(&["web.default.svc.cluster.local", "ANY", "+notcp"]);
    assert!(told.contains("RFC8482"), "{told}");
    let told = full(&["+edns=1", "+noednsnegotiation", "web.default.svc.cluster.local", "A"]);
    assert!(told.contains("status: BADVERS"), "{told}");
    let told = full(&["WEB.default.SVC.cluster.local", "A", "+noall", "+answer"]);
    assert!(told.contains("WEB.default.SVC.cluster.local."), "{told}");
    let told = full(&["+opcode=notify", "web.default.svc.cluster.local", "A"]);
    assert!(told.contains("status: NOTIMP"), "{told}");
}

#[test]
fn programs_in_pods_find_names_by_themselves() {
    if !ready(&["getent", "ip"]) {
        return;
    }
    let cluster = lab("searched");
    let find = |from: &str, database: &str, name: &str| {
        let told = cluster.must(from, &["getent", database, name]);
        let mut addresses: Vec<String> =
            told.lines().filter_map(|line| line.split_whitespace().next()).map(str::to_owned).collect();
        addresses.sort();
        addresses.dedup();
        addresses
    };
    for from in ["alpha", "gamma"] {
        assert_eq!(find(from, "ahosts", "web"), ["10.96.7.7", "fd00:10:96::77"], "{from}");
        assert_eq!(find(from, "ahostsv4", "web.default"), ["10.96.7.7"]);
        assert_eq!(find(from, "ahostsv6", "web.default.svc"), ["fd00:10:96::77"]);
        assert_eq!(find(from, "ahostsv4", "web.default.svc.cluster.local"), ["10.96.7.7"]);
        assert_eq!(find(from, "ahostsv4", "db.data"), ["10.244.0.51", "10.244.1.50"]);
        assert_eq!(find(from, "ahostsv4", "first.db.data"), ["10.244.1.50"]);
        assert_eq!(find(from, "ahostsv4", "alias"), ["10.96.7.7"]);
        assert_eq!(find(from, "ahostsv4", from).len(), 1, "its own name");
        let reverse = cluster.must(from, &["getent", "hosts", "10.96.7.7"]);
        assert!(reverse.contains("web.default.svc.cluster.local"), "{reverse}");
    }
    // In another namespace another search list.
    assert_eq!(find("data/db-0", "ahostsv4", "db"), ["10.244.0.51", "10.244.1.50"]);
    assert!(!cluster.exec("alpha", &["getent", "hosts", "db"]).status.success());
    let hosts = cluster.must("data/db-0", &["cat", "/etc/hosts"]);
    assert!(hosts.contains("10.244.1.50\tfirst.db.data.svc.cluster.local\tfirst"), "{hosts}");
    // What was there when it began is in its environment.
    let told = || success("logs", &cluster.verb(&["logs", "teller"]));
    until("it has told", || told().contains("WEB_SERVICE_HOST"));
    let (told, quiet) = (told(), success("logs", &cluster.verb(&["logs", "quiet"])));
    for variable in [
        "WEB_SERVICE_HOST=10.96.7.7",
        "WEB_SERVICE_PORT_STATS=8125",
        "WEB_PORT_80_TCP=tcp://10.96.7.7:80",
        "FOUR_PORT=tcp://10.96.7.8:80",
        "OWN=10.96.7.7",
    ] {
        assert!(told.lines().any(|line| line == variable), "{variable}: {told}");
    }
    assert!(!told.contains("DB_") && !quiet.contains("WEB_"), "{told}{quiet}");
    // And so it is for `ip netns exec`.
    let name = format!("{}.default.alpha", cluster.name);
    let told = std::process::Command::new("ip")
        .args(["netns", "exec", &name, "getent", "ahostsv4", "web"])
        .output()
        .unwrap();
    let told = success("ip netns exec", &told);
    assert!(told.contains("10.96.7.7"), "{told}");
    let kept = std::path::PathBuf::from("/etc/netns").join(&name);
    assert!(kept.join("resolv.conf").exists());
    // What the machine itself reads is as it was.
    assert!(!std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default().contains("10.96.0.10"));
    drop(cluster);
    assert!(!kept.exists());
}

#[test]
fn containers_start_among_many_services() {
    if !ready(&[]) {
        return;
    }
    let services = (0..600).map(|number| {
        let address = format!("10.96.{}.{}", 10 + number / 200, 1 + number % 200);
        format!(
            "---\napiVersion: v1\nkind: Service\nmetadata: {{name: s{number}}}\n\
             spec: {{clusterIP: {address}, ports: [{{port: 80}}]}}\n"
        )
    });
    let pods = format!(
        "---\napiVersion: v1\nkind: Pod\nmetadata: {{name: teller}}\n\
         spec: {{nodeName: node-1, containers: [{{name: c, command: [sh, -c, 'env; exec sleep 1000']}}]}}\n\
         ---\napiVersion: v1\nkind: Pod\nmetadata: {{name: mute}}\n\
         spec: {{nodeName: node-1, containers: [{{name: c, command: [sleep, '1000'], env: [{{name: LONG, value: {}}}]}}]}}\n",
        "x".repeat(200_000)
    );
    let text = format!("{}{}{pods}", builtin("dns: {resolvConf: /dev/null}"), services.collect::<String>());
    let cluster = Cluster::of("many", &text, &[]);
    let told = || success("logs", &cluster.verb(&["logs", "teller"]));
    until("it has told", || told().contains("S599_SERVICE_HOST=10.96.12.200"));
    let told = told();
    assert_eq!(told.lines().filter(|line| line.contains("_SERVICE_HOST=10.96.1")).count(), 600);
    assert!(told.len() > 64 * 1024, "{} octets", told.len());
    // What no program may be given, its message says, and how to have less of it.
    let described = || success("describe", &cluster.verb(&["get", "pod", "mute", "-o", "json"]));
    until("it has failed", || described().contains("RunContainerError"));
    let described = described();
    assert!(
        described.contains("Argument list too long") && described.contains("enableServiceLinks"),
        "{described}"
    );
}
