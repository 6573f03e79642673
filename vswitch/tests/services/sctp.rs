//! SCTP to a Service, from every kind of client, with ends that know nothing of ours: the kernel's where it has SCTP, else
//! packets that scapy builds and whose checksums it verifies, over the kernel's raw sockets.

use super::*;

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/services/sctp.py");
const VIPS: [&str; 2] = ["10.96.7.10", "fd00:10:96::7a"];
const NOBODY: [&str; 2] = ["10.96.7.11", "fd00:10:96::7b"];

fn script(cluster: &Cluster, from: &str, arguments: &[&str]) -> String {
    let told = cluster.must(from, &[&["/usr/bin/python3", "-B", SCRIPT], arguments].concat());
    told.trim().to_owned()
}

#[test]
fn associations_lead_to_a_pod_and_back() {
    let scapy =
        std::process::Command::new("/usr/bin/python3").args(["-c", "import scapy.layers.sctp"]).output();
    if !ready(&["python3"]) {
        return;
    }
    if !scapy.is_ok_and(|output| output.status.success()) {
        assert!(std::env::var_os("CI").is_none(), "python3-scapy is not installed");
        let _ = std::io::Write::write_all(&mut std::io::stderr(), b"skipped: needs python3-scapy\n");
        return;
    }
    let pod = "---\n{apiVersion: v1, kind: Pod, metadata: {name: omega, labels: {app: sctp}}, spec: {nodeName: node-2, \
               containers: [{name: c, image: none}]}}\n";
    let of = |vips: [&str; 2], more: &str| {
        format!("ipFamilyPolicy: RequireDualStack, clusterIPs: ['{}', '{}'], {more}", vips[0], vips[1])
    };
    let ports = "ports: [{port: 3868, targetPort: 36412, nodePort: 30868, protocol: SCTP}]";
    let x = format!("type: NodePort, publishNotReadyAddresses: true, selector: {{app: sctp}}, {ports}");
    let empty = "selector: {app: nobody}, ports: [{port: 3868, protocol: SCTP}]";
    let text = [pod.to_owned(), service("x", &of(VIPS, &x)), service("empty", &of(NOBODY, empty))];
    let cluster = lab("sctp", &text);
    let _server = cluster.spawn("omega", &["/usr/bin/python3", "-B", SCRIPT, "serve", "36412"]);
    until("the server answers", || {
        script(&cluster, "alpha", &["ask", VIPS[0], "3868", "4000"]) == "10.244.0.2"
    });
    for (v6, (vip, nobody)) in VIPS.iter().zip(NOBODY).enumerate() {
        for (from, own) in [
            // Pods keep their address, and nodes are seen with theirs; who meets itself is seen with neither.
            ("alpha", Some(["10.244.0.2", "fd00:10:244::2"])),
            ("gamma", Some(["10.244.1.2", "fd00:10:244:1::2"])),
            ("node/node-1", Some(["10.20.30.2", "fd00:20:30::2"])),
            ("omega", None),
        ] {
            // The same ports again are the same flow, or the next.
            for port in ["4242", "4243"] {
                let seen = script(&cluster, from, &["ask", vip, "3868", port]);
                match own {
                    Some(own) => assert_eq!(seen, own[v6], "{from} {vip}"),
                    None => assert_eq!(seen, *vip, "{from}"),
                }
            }
        }
        for node in [["10.20.30.2", "fd00:20:30::2"], ["10.20.30.3", "fd00:20:30::3"]] {
            // It has to come back the way it went.
            assert_eq!(script(&cluster, "host/inside", &["ask", node[v6], "30868", "4242"]), node[v6]);
        }
        let told = script(&cluster, "alpha", &["ask", nobody, "3868", "4242"]);
        assert_eq!(told, "ConnectionRefusedError", "{nobody}");
    }
}
