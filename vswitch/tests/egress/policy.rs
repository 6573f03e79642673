//! What pods may reach.

use super::*;
use crate::common::{ManifestFile, both, ready};

fn asks(cluster: &Cluster, address: &str) -> Option<i32> {
    let host = if address.contains(':') { format!("[{address}]") } else { address.to_owned() };
    let url = format!("http://{host}:8080/");
    let output =
        cluster.exec("alpha", &["curl", "-sS", "-o", "/dev/null", "--noproxy", "*", "-m", "5", &url]);
    output.status.code()
}

/// curl's: it could not connect.
const NO: Option<i32> = Some(7);
const YES: Option<i32> = Some(0);

#[test]
fn the_machine_s_loopback_is_closed_until_it_is_opened_and_lists_are_heeded_at_once() {
    if !ready(&["ip", "nsenter", "ss", "curl", "python3", "sysctl"]) {
        return;
    }
    let net = Net::new();
    let cluster = net.cluster("policy", "");
    let directory = cluster.state.to_str().unwrap().to_owned();
    let empty = format!("{directory}/empty");
    std::fs::create_dir(&empty).unwrap();
    let http = ["python3", "-m", "http.server", "-d", &empty[..], "-b"];
    let _servers = [
        net.serve(&net.machine, 8080, &[&http[..], &["127.0.0.1", "8080"]].concat()),
        net.serve(&net.internet, 8080, &[&http[..], &["::", "8080"]].concat()),
    ];
    assert_eq!(asks(&cluster, "192.0.0.2"), NO);
    // A node forwards nothing to link-local addresses (RFC 3927 section 7) unless that is asked for.
    let metadata = "169.254.169.254";
    run(&["ip", "-n", &net.internet, "address", "add", "169.254.169.254/32", "dev", "lo"]);
    assert_ne!(asks(&cluster, metadata), YES);
    assert_eq!(asks(&cluster, "100.100.100.200"), NO);
    assert_eq!((asks(&cluster, INTERNET[0]), asks(&cluster, INTERNET[1])), (YES, YES));
    let told = cluster.verb(&["trace", "alpha", "tcp 192.0.0.2:8080"]);
    assert!(both(&told).contains("spec.egressPolicy"), "{}", both(&told));
    let apply = |more: &str| {
        let builtin = include_str!("../../src/objects/builtin.yaml");
        let file =
            ManifestFile::new("policy", &builtin.replacen("\nspec:\n", &format!("\nspec:\n{more}"), 1));
        success("apply", &cluster.verb(&["apply", "-f", file.path()]));
        pause();
    };
    apply("  egressPolicy: {open: [machineLoopback]}\n");
    assert_eq!((asks(&cluster, "192.0.0.2"), asks(&cluster, INTERNET[0])), (YES, YES));
    assert_ne!(asks(&cluster, metadata), YES);
    apply("  egressPolicy: {open: [metadata]}\n");
    assert_eq!((asks(&cluster, metadata), asks(&cluster, "192.0.0.2")), (YES, NO));
    assert_ne!(asks(&cluster, "169.254.169.253"), YES);
    apply("  egressPolicy: {deny: [198.51.100.0/24]}\n");
    let (loopback, v4, v6) =
        (asks(&cluster, "192.0.0.2"), asks(&cluster, INTERNET[0]), asks(&cluster, INTERNET[1]));
    assert_eq!((loopback, v4, v6), (NO, NO, YES));
    apply("  egressPolicy: {allow: [198.51.100.1/32]}\n");
    assert_eq!((asks(&cluster, INTERNET[0]), asks(&cluster, INTERNET[1])), (YES, NO));
    assert!(metric(&cluster, r#"vswitch_egress_drops_total{reason="prohibited"}"#) >= 4);
    let told = cluster.verb(&["trace", "alpha", "tcp 198.51.100.1:8080"]);
    assert!(both(&told).contains("by a socket of this machine"), "{}", both(&told));
    apply("  egress: none\n");
    assert_eq!((asks(&cluster, INTERNET[0]), asks(&cluster, INTERNET[1])), (NO, NO));
    apply("  egress: user\n");
    assert_eq!((asks(&cluster, INTERNET[0]), asks(&cluster, INTERNET[1])), (YES, YES));
}
