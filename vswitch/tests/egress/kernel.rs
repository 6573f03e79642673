//! The machine's own stack as the way out.

use super::*;
use crate::common::{ManifestFile, both, ready};

/// The interface that vswitch has made on the machine.
fn interface(net: &Net) -> Option<String> {
    let text = run(&["ip", "-n", &net.machine, "-j", "link"]);
    let links: serde_json::Value = serde_json::from_str(&text).unwrap();
    let mut names = links.as_array().unwrap().iter().map(|link| link["ifname"].as_str().unwrap().to_owned());
    names.find(|name| name.starts_with("vs-"))
}

#[test]
fn the_machine_s_own_stack_carries_what_leaves() {
    if !ready(&["ip", "nsenter", "ss", "curl", "ping", "sysctl"]) {
        return;
    }
    let net = Net::new();
    let _probes = net.probes(&net.internet);
    for option in ["net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1"] {
        run(&[&net.inside(&net.machine)[..], &["sysctl", "-qw", option]].concat());
    }
    // The machine translates nothing: the internet knows the way to nodes.
    for (to, by) in [("10.20.30.0/24", MACHINE[0]), ("fd00:20:30::/64", MACHINE[1])] {
        run(&["ip", "-n", &net.internet, "route", "add", to, "via", by]);
    }
    let cluster = net.cluster("kernel", "  egress: kernel\n");
    assert!(interface(&net).is_some());
    for address in INTERNET {
        let to =
            if address.contains(':') { format!("[{address}]:{PROBE}") } else { format!("{address}:{PROBE}") };
        let text = cluster.must("alpha", &[executable(), "__probe", "tcp", &to, &(10u64 << 20).to_string()]);
        assert!(text.contains(&format!("\"bytes\":{}", 20u64 << 20)), "{text}");
        all_come_back(&to, || cluster.must("gamma", &[executable(), "__probe", "udp", &to, "50", "1200"]));
        cluster.must("beta", &["ping", "-n", "-c", "1", "-W", "5", address]);
    }
    for pod in ["10.244.1.2", "[fd00:10:244:1::2]"] {
        let url = format!("http://{pod}/");
        let line = [&net.inside(&net.machine)[..], &["curl", "-sS", "-g", "--noproxy", "*", "-m", "5", &url]]
            .concat();
        until("the machine reaches a pod at its own address", || {
            let output = Command::new(line[0]).args(&line[1..]).output().unwrap();
            String::from_utf8_lossy(&output.stdout).contains("host gamma")
        });
    }
    let told = cluster.verb(&["trace", "alpha", "tcp 198.51.100.1:8080"]);
    assert!(both(&told).contains("this machine's own stack"), "{}", both(&told));
    let refused = cluster.verb(&["publish", "8080:alpha:80"]);
    assert!(!refused.status.success() && both(&refused).contains("kernel"), "{}", both(&refused));
    // It can be changed while the cluster runs.
    let file = ManifestFile::new("kernel", include_str!("../../src/objects/builtin.yaml"));
    success("apply", &cluster.verb(&["apply", "-f", file.path()]));
    assert_eq!(interface(&net), None);
    cluster.must("alpha", &["ping", "-n", "-c", "1", "-W", "5", INTERNET[0]]);
}
