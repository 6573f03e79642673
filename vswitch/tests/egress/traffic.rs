//! What is carried, and that it arrives.

use super::*;
use crate::common::{both, ready};

fn at(address: &str, port: u16) -> String {
    if address.contains(':') { format!("[{address}]:{port}") } else { format!("{address}:{port}") }
}

/// {TCP, UDP} by {IPv4, IPv6} by {pod to outside, pod to machine, node to outside, host to outside} by {2 KiB, 10 MiB}.
#[test]
fn hashes_are_equal_whoever_asks_whom() {
    if !ready(&["ip", "nsenter", "ss", "curl", "sysctl"]) {
        return;
    }
    let net = Net::new();
    let cluster = net.cluster("matrix", "");
    let _servers = [net.probes(&net.internet), net.probes(&net.machine)];
    for (from, to) in
        [("alpha", INTERNET), ("gamma", MACHINE), ("node/node-1", INTERNET), ("host/outside", INTERNET)]
    {
        for address in to {
            let to = at(address, PROBE);
            for octets in [2048u64, 10 << 20] {
                let text = cluster.must(from, &[executable(), "__probe", "tcp", &to, &octets.to_string()]);
                let report: serde_json::Value = serde_json::from_str(&text).unwrap();
                assert_eq!(report["bytes"], octets * 2, "{from} {to}: {text}");
            }
            for (count, size) in [("50", "0"), ("50", "2048"), ("200", "52428"), ("20", "65507")] {
                let ask = [executable(), "__probe", "udp", &to, count, size];
                all_come_back(&format!("{from} {to} {size}"), || cluster.must(from, &ask));
            }
        }
    }
    at_rest(&cluster);
    assert_eq!(metric(&cluster, "vswitch_egress_given_up_total"), 0);
}

#[test]
fn curl_and_git_and_a_gigabyte() {
    if !ready(&["ip", "nsenter", "ss", "curl", "git", "python3", "sysctl"]) {
        return;
    }
    let net = Net::new();
    let cluster = net.cluster("programs", "");
    let served = cluster.state.join("served");
    std::fs::create_dir(&served).unwrap();
    let path = served.to_str().unwrap();
    let repository = served.join("repository.git");
    let repository = repository.to_str().unwrap();
    run(&["git", "init", "-q", "--bare", "-b", "main", repository]);
    let work = cluster.state.join("work");
    let work = work.to_str().unwrap();
    run(&["git", "clone", "-q", repository, work]);
    std::fs::write(format!("{work}/file"), "what is in it\n").unwrap();
    run(&["git", "-C", work, "add", "file"]);
    run(&["git", "-C", work, "-c", "user.name=a", "-c", "user.email=a@example", "commit", "-qm", "first"]);
    run(&["git", "-C", work, "push", "-q", "origin", "main"]);
    run(&["git", "-C", repository, "update-server-info"]);
    let server = ["python3", "-m", "http.server", "-b", "::", "-d", path, "8080"];
    let _server = net.serve(&net.internet, 8080, &server);
    let _probes = net.probes(&net.internet);
    for host in [INTERNET[0].to_owned(), format!("[{}]", INTERNET[1])] {
        let url = format!("http://{host}:8080/repository.git/HEAD");
        let text = cluster.must("alpha", &["curl", "-sS", "--fail", "--noproxy", "*", &url]);
        assert_eq!(text, "ref: refs/heads/main\n");
        let clone = cluster.state.join(format!("clone-{}", host.len()));
        let clone = clone.to_str().unwrap();
        let url = format!("http://{host}:8080/repository.git");
        cluster.must("alpha", &["git", "clone", "-q", &url, clone]);
        assert_eq!(std::fs::read_to_string(format!("{clone}/file")).unwrap(), "what is in it\n");
        // Nobody listens there: that is told, and at once.
        let url = format!("http://{host}:9/");
        let refused = cluster.exec("alpha", &["curl", "-sS", "--noproxy", "*", "-m", "5", &url]);
        assert_eq!(refused.status.code(), Some(7), "{}", both(&refused));
    }
    let octets = (1u64 << 30).to_string();
    let text = cluster.must("alpha", &[executable(), "__probe", "tcp", &at(INTERNET[0], PROBE), &octets]);
    assert!(text.contains("\"bytes\":2147483648"), "{text}");
    at_rest(&cluster);
}

#[test]
fn pings_are_answered_by_whoever_is_pinged() {
    if !ready(&["ip", "nsenter", "ping", "sysctl", "curl"]) {
        return;
    }
    let net = Net::new();
    let cluster = net.cluster("ping", "");
    for address in INTERNET.into_iter().chain(MACHINE) {
        for size in ["56", "1400", "5000"] {
            let ping = ["ping", "-n", "-c", "3", "-i", "0.01", "-W", "5", "-s", size, address];
            let text = cluster.must("alpha", &ping);
            assert!(text.contains(" 3 received, 0% packet loss"), "{address}: {text}");
        }
    }
    // There is nobody, and nobody answers in his stead.
    for address in ["198.51.100.77", "2001:db8:100::77", "203.0.113.1"] {
        let output = cluster.exec("alpha", &["ping", "-n", "-c", "1", "-W", "1", address]);
        assert_eq!(output.status.code(), Some(1), "{address}: {}", both(&output));
    }
    // Where nobody may ping there is silence, which is counted.
    let forbid =
        [&net.inside(&net.machine)[..], &["sysctl", "-qw", "net.ipv4.ping_group_range=1 0"]].concat();
    run(&forbid);
    let before = metric(&cluster, r#"vswitch_egress_drops_total{reason="refused"}"#);
    let output = cluster.exec("beta", &["ping", "-n", "-c", "1", "-W", "1", INTERNET[0]]);
    assert_eq!(output.status.code(), Some(1), "{}", both(&output));
    assert!(metric(&cluster, r#"vswitch_egress_drops_total{reason="refused"}"#) > before);
}
