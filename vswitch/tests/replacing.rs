//! Deployments whose template changes: their pods are replaced in turn, and somebody is always there.
#![allow(clippy::unwrap_used, reason = "all of this file is tests")]

mod common;

use std::process::Output;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use common::in_memory::InMemory;
use common::{Cluster, ManifestFile, both, ready, success, until};
use netstack::driver::Clock;
use serde_json::Value;
use vswitch::cluster::Place;
use vswitch::control::workloads::Departures;

fn web(mark: &str, more: &str, path: &str) -> String {
    format!(
        "apiVersion: apps/v1\nkind: Deployment\nmetadata: {{name: web}}\nspec:\n  replicas: 3\n{more}  selector: \
         {{matchLabels: {{app: web}}}}\n  template:\n    metadata: {{labels: {{app: web}}}}\n    spec:\n      \
         initContainers: [{{name: i, image: x, command: [\"true\"]}}]\n      containers:\n      - {{name: c, image: vswitch/http, \
         env: [{{name: MARK, value: {mark}}}], readinessProbe: {{periodSeconds: 1, initialDelaySeconds: 1, httpGet: {{port: 80, path: {path}}}}}}}\n"
    )
}

fn apply(cluster: &Cluster, manifest: &str) -> Output {
    let file = ManifestFile::new("apply", manifest);
    cluster.verb(&["apply", "-f", file.path()])
}

fn pods(cluster: &Cluster) -> Vec<(String, bool)> {
    let pods = cluster.get("pods").into_iter().filter(|pod| pod["metadata"]["namespace"] == "default");
    let ready = |pod: &Value| pod["status"]["conditions"][0]["status"] == "True";
    pods.map(|pod| (pod["metadata"]["name"].as_str().unwrap().to_owned(), ready(&pod))).collect()
}

fn count_ready(cluster: &Cluster) -> usize {
    pods(cluster).iter().filter(|(_, ready)| *ready).count()
}

/// What the program of a pod has in its environment.
fn mark(cluster: &Cluster, pod: &str) -> String {
    let look = "tr '\\0' '\\n' < /proc/$(pgrep -f '[_]_image http' | tail -1)/environ | grep MARK=";
    both(&cluster.exec(pod, &["sh", "-c", look])).trim().to_owned()
}

#[test]
fn pods_are_replaced_one_after_the_other() {
    if !ready(&["pgrep"]) {
        return;
    }
    let cluster = Cluster::of("replace", &web("one", "", "/healthz"), &[]);
    until("all are ready", || count_ready(&cluster) == 3);
    let places = cluster.get("places");
    let done = AtomicBool::new(false);
    let (least, seen, applied) = std::thread::scope(|scope| {
        let watch = scope.spawn(|| {
            let (mut least, mut seen) = (3, false);
            while !done.load(Ordering::Relaxed) {
                least = least.min(count_ready(&cluster));
                let deployments = cluster.get("deployments");
                seen |= matches!(deployments[0]["status"]["updatedReplicas"].as_u64(), Some(1 | 2));
                std::thread::sleep(Duration::from_millis(20));
            }
            (least, seen)
        });
        let applied = apply(&cluster, &web("two", "", "/healthz"));
        done.store(true, Ordering::Relaxed);
        let (least, seen) = watch.join().unwrap();
        (least, seen, applied)
    });
    assert_eq!(success("apply", &applied), "Deployment default/web configured\n");
    let progress = String::from_utf8_lossy(&applied.stderr).into_owned();
    assert!(progress.contains("Deployment default/web: 1 of 3 pods are replaced"), "{progress}");
    assert_eq!((least, seen), (2, true), "one at a time is missing");
    assert_eq!(count_ready(&cluster), 3, "apply waits for the last of them");
    for pod in ["web-0", "web-1", "web-2"] {
        assert_eq!(mark(&cluster, pod), "MARK=two");
    }
    assert_eq!(cluster.get("places"), places, "their namespaces and addresses are the same");
    let restarts = |pod: &Value| pod["status"]["containerStatuses"][0]["restartCount"].clone();
    assert!(cluster.get("pods").iter().all(|pod| restarts(pod) == 0), "they are new ones");
}

#[test]
fn a_replacement_that_does_not_get_ready_leaves_the_others_alone() {
    if !ready(&["pgrep"]) {
        return;
    }
    let cluster = Cluster::of("stuck", &web("one", "", "/healthz"), &[]);
    until("all are ready", || count_ready(&cluster) == 3);
    // The port is not the server's.
    let bad = web("two", "  progressDeadlineSeconds: 3\n", "/healthz").replace("port: 80", "port: 81");
    let told = apply(&cluster, &bad);
    assert!(!told.status.success());
    let why = "default/web-0 was not ready within 3 s: cannot connect to";
    assert!(both(&told).contains(why), "{}", both(&told));
    assert!(
        both(&told).contains("1 of 3 pods are replaced, and the others stay as they were"),
        "{}",
        both(&told)
    );
    assert_eq!(count_ready(&cluster), 2);
    assert_eq!(
        ["web-0", "web-1", "web-2"].map(|pod| mark(&cluster, pod)),
        ["MARK=two", "MARK=one", "MARK=one"]
    );
    // What helps is begun with the one that is missing anyway.
    success("apply", &apply(&cluster, &web("three", "", "/healthz")));
    assert_eq!(["web-0", "web-1", "web-2"].map(|pod| mark(&cluster, pod)), ["MARK=three"; 3]);
    // All at once, if that is wanted; nobody waits.
    success("apply", &apply(&cluster, &web("four", "  strategy: {type: Recreate}\n", "/healthz")));
    until("all are ready", || count_ready(&cluster) == 3);
    assert_eq!(["web-0", "web-1", "web-2"].map(|pod| mark(&cluster, pod)), ["MARK=four"; 3]);
}

#[test]
fn a_replacement_that_was_interrupted_is_finished() {
    if !ready(&["pgrep"]) {
        return;
    }
    let cluster = Cluster::of("broken", &web("one", "", "/healthz"), &[]);
    until("all are ready", || count_ready(&cluster) == 3);
    let file = ManifestFile::new("apply", &web("two", "", "/healthz"));
    let mut apply = cluster.command(&["apply", "-f", file.path()]).spawn().unwrap();
    until("the first is replaced", || mark(&cluster, "web-0") == "MARK=two");
    assert_eq!(mark(&cluster, "web-2"), "MARK=one");
    let killed = cluster.kill();
    apply.wait().unwrap();
    let cluster = Cluster::up_as(&killed.name, &[]);
    until("all are ready", || count_ready(&cluster) == 3);
    assert_eq!(["web-0", "web-1", "web-2"].map(|pod| mark(&cluster, pod)), ["MARK=two"; 3]);
}

#[test]
fn a_pod_with_another_hook_is_replaced_and_one_with_another_grace_period_goes_on() {
    if !ready(&["pgrep"]) {
        return;
    }
    let pod = |grace: u32, more: &str| {
        format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: web}}\nspec:\n  terminationGracePeriodSeconds: {grace}\n  \
             containers: [{{name: c, image: vswitch/http, args: [--port, '8080'], ports: [{{containerPort: 8080}}], \
             readinessProbe: {{periodSeconds: 1, initialDelaySeconds: 1, tcpSocket: {{port: 8080}}}}{more}}}]\n"
        )
    };
    let cluster = Cluster::of("hook", &pod(30, ""), &[]);
    let began = || {
        let look = "cut -d' ' -f22 /proc/$(pgrep -f '[_]_image http' | tail -1)/stat";
        both(&cluster.exec("web", &["sh", "-c", look])).trim().to_owned()
    };
    until("it is ready", || count_ready(&cluster) == 1);
    let first = began();
    success("apply", &apply(&cluster, &pod(5, "")));
    assert_eq!((count_ready(&cluster), began()), (1, first.clone()));
    success("apply", &apply(&cluster, &pod(5, ", lifecycle: {preStop: {exec: {command: [sleep, '60']}}}")));
    until("the next is ready", || count_ready(&cluster) == 1);
    let second = began();
    assert_ne!(second, first);
    // What ends has the hook and the time that it was changed to.
    let clock = Clock::start();
    success("apply", &apply(&cluster, &pod(5, "")));
    let took = clock.now();
    assert!(took >= Duration::from_secs(5) && took < Duration::from_secs(25), "{took:?}");
    until("the last is ready", || count_ready(&cluster) == 1);
    assert_ne!(began(), second);
}

/// Writes down what it is told.
#[derive(Debug, Default)]
struct Departed(Mutex<Vec<String>>);

impl Departures for Departed {
    fn leaving(&self, pods: &[Place]) {
        self.0.lock().unwrap().push(format!("leaving {pods:?}"));
    }

    fn gone(&self, pods: &[Place]) {
        self.0.lock().unwrap().push(format!("gone {pods:?}"));
    }
}

#[test]
fn whoever_wants_to_know_is_told_before_and_after_pods_end() {
    let text = web("one", "", "/");
    let lab = InMemory::start("departures", &text);
    let departed = Arc::new(Departed::default());
    lab.plane.watch_departures(Arc::<Departed>::clone(&departed));
    lab.apply(&text.replace("replicas: 3", "replicas: 2"));
    lab.apply(&text.replace("replicas: 3", "replicas: 2"));
    let place = Place::Pod { namespace: "default".into(), name: "web-2".into() };
    let told = departed.0.lock().unwrap().clone();
    assert_eq!(told, [format!("leaving [{place:?}]"), format!("gone [{place:?}]")]);
    lab.stop();
}
