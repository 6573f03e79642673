//! A vswitch that is killed at any moment of a change and started again: the same objects, the same addresses, and whoever
//! was there goes on without noticing.
#![allow(clippy::unwrap_used, reason = "all of this file is tests")]

mod common;

use std::collections::BTreeMap;
use std::time::Duration;

use common::{Background, Cluster, ManifestFile, ready, success};
use serde_json::Value;

/// Moments at which it is killed; `RESTART_MOMENTS` asks for more.
const MOMENTS: u32 = 6;
/// Within this time of its start a change by fifty pods is killed.
const WINDOW_MS: u64 = 2500;

const BASE: &str = "\
apiVersion: v1
kind: List
items:
- {apiVersion: v1, kind: Node, metadata: {name: a}}
- {apiVersion: v1, kind: Node, metadata: {name: b}}
- {apiVersion: v1, kind: Pod, metadata: {name: client}, spec: {nodeName: a, containers: [{name: c, image: none}]}}
- {apiVersion: v1, kind: Pod, metadata: {name: server}, spec: {nodeName: b, containers: [{name: c, image: vswitch/echo}]}}
";

const FIFTY: &str = "\
apiVersion: apps/v1
kind: Deployment
metadata: {name: many}
spec:
  replicas: 50
  selector: {matchLabels: {app: many}}
  template: {metadata: {labels: {app: many}}, spec: {containers: [{name: c, image: none}]}}
";

/// Pod to node, addresses and the inode of its namespace.
type Pods = BTreeMap<String, (String, String, u64)>;

fn pods(cluster: &Cluster) -> Pods {
    let places =
        cluster.get("places").into_iter().filter(|p| !p["place"].as_str().unwrap().contains("node/"));
    let text = |p: &Value, field: &str| p[field].to_string();
    places
        .map(|p| {
            (
                text(&p, "place"),
                (text(&p, "switch"), text(&p, "addresses"), p["netns_inode"].as_u64().unwrap()),
            )
        })
        .collect()
}

fn without_inodes(pods: &Pods) -> BTreeMap<&String, (&String, &String)> {
    pods.iter().map(|(name, (switch, addresses, _))| (name, (switch, addresses))).collect()
}

/// A conversation that goes on through kill and restart: an octet there and back, over and over, on one connection.
fn conversation(cluster: &Cluster) -> Background {
    const TALK: &str = "
import socket, sys, time
s = socket.create_connection(('10.244.1.2', 7777)); s.settimeout(60)
open(sys.argv[1], 'w').write('0'); n = 0
while True:
    s.sendall(b'x')
    if s.recv(1) != b'x': raise SystemExit(1)
    n += 1; open(sys.argv[1], 'w').write(str(n)); time.sleep(0.02)
";
    let count = cluster.state.join("count");
    cluster.spawn("client", &["python3", "-c", TALK, count.to_str().unwrap()])
}

fn count(cluster: &Cluster) -> u64 {
    let text = std::fs::read_to_string(cluster.state.join("count")).unwrap_or_default();
    text.parse().unwrap_or(0)
}

#[test]
fn killed_at_any_moment_of_a_change_it_goes_on_where_it_was() {
    if !ready(&["python3"]) {
        return;
    }
    let moments = std::env::var("RESTART_MOMENTS").ok().and_then(|n| n.parse().ok()).unwrap_or(MOMENTS);
    let fifty = ManifestFile::new("fifty", FIFTY);
    let expected = {
        let cluster = Cluster::of("undisturbed", BASE, &[]);
        success("apply", &cluster.verb(&["apply", "-f", fifty.path()]));
        pods(&cluster)
    };
    assert_eq!(expected.len(), 52);
    let mut all = 0;
    for moment in 0..moments {
        let cluster = Cluster::of("killed", BASE, &[]);
        let name = cluster.name.clone();
        let before = pods(&cluster);
        let mut talk = conversation(&cluster);
        common::until("they talk", || count(&cluster) > 3);
        let mut apply = cluster.command(&["apply", "-f", fifty.path()]).spawn().unwrap();
        std::thread::sleep(Duration::from_millis(WINDOW_MS * u64::from(moment) / u64::from(moments)));
        let killed = cluster.kill();
        apply.wait().unwrap();
        let cluster = Cluster::up_as(&name, &[]);
        let after = pods(&cluster);
        let whole = after.len() == expected.len();
        all += u32::from(whole);
        let wanted = if whole { &expected } else { &before };
        assert_eq!(without_inodes(&after), without_inodes(wanted), "at moment {moment}");
        for (pod, standing) in &before {
            assert_eq!(after.get(pod), Some(standing), "{pod} was taken over as it was, at moment {moment}");
        }
        let then = count(&cluster);
        common::until("they talk on", || count(&cluster) > then + 3);
        assert!(talk.runs(), "on the same connection");
        drop(talk);
        drop(cluster);
        drop(killed);
    }
    assert!(all >= 1, "no change was under way when it was killed");
}
