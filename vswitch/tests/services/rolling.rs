//! Every backend is replaced while many clients ask.

use super::*;

/// Four servers, as old as `mark` says.
fn servers(mark: &str, more: &str) -> String {
    format!(
        "---\napiVersion: apps/v1\nkind: Deployment\nmetadata: {{name: web}}\nspec:\n  replicas: 4\n  strategy: {{rollingUpdate: \
         {{maxUnavailable: 2}}}}\n  selector: {{matchLabels: {{app: web}}}}\n  template:\n    metadata: {{labels: {{app: web}}}}\n    \
         spec:\n      {more}\n      containers:\n      - {{name: c, image: vswitch/http, args: [--port, '8080'], env: [{{name: MARK, \
         value: {mark}}}], ports: [{{name: web, containerPort: 8080}}], readinessProbe: {{periodSeconds: 1, httpGet: \
         {{port: 8080, path: /healthz}}}}}}\n"
    )
}

/// What `wrk` counted over 64 connections.
#[derive(Debug, Default)]
struct Counts {
    requests: u64,
    failed: u64,
}

/// Asks until `flag` is there.
fn load(cluster: &Cluster, from: &str, vip: &str, close: bool, flag: &str) -> Counts {
    let host = if vip.contains(':') { format!("[{vip}]") } else { vip.to_owned() };
    let header = if close { "-H 'Connection: close'" } else { "" };
    let ask = format!(
        "wrk -t 1 -c 64 -d 300s --timeout 30s {header} http://{host}/ & while [ ! -e {flag} ]; do sleep 0.05; done; \
         kill -INT $!; wait $!"
    );
    let told = success("wrk", &cluster.verb(&["exec", from, "--", "sh", "-c", &ask]));
    let numbers = |line: &str| -> Vec<u64> {
        let words = line.split(|c: char| !c.is_ascii_digit()).filter(|word| !word.is_empty());
        words.map(|word| word.parse().unwrap()).collect()
    };
    let mut counts = Counts::default();
    for line in told.lines().map(str::trim) {
        if line.starts_with("Socket errors:") {
            counts.failed += numbers(line).iter().sum::<u64>();
        } else if let Some(rest) = line.strip_prefix("Non-2xx or 3xx responses:") {
            counts.failed += numbers(rest)[0];
        } else if line.contains(" requests in ") {
            counts.requests = numbers(line)[0];
        }
    }
    counts
}

/// Replaces everybody, and returns what was counted meanwhile: of clients that keep their connections, and of those that do
/// not, each in another family.
fn replace(cluster: &Cluster, text: &str) -> [Counts; 2] {
    let flag = std::env::temp_dir().join(format!("{}-done", cluster.name));
    let path = flag.to_str().unwrap().to_owned();
    let counts = std::thread::scope(|scope| {
        let [one, other] = [("alpha", VIPS[0], false), ("gamma", VIPS[1], true)].map(|(from, vip, close)| {
            let path = &path;
            scope.spawn(move || load(cluster, from, vip, close, path))
        });
        std::thread::sleep(Duration::from_millis(500));
        let file = ManifestFile::new("rolling", text);
        let applied = cluster.verb(&["apply", "-f", file.path()]);
        fs::write(&flag, "").unwrap();
        let counts = [one, other].map(|thread| thread.join().unwrap());
        success("apply", &applied);
        counts
    });
    fs::remove_file(&flag).unwrap();
    counts
}

fn ready_servers(cluster: &Cluster) -> usize {
    let pods = cluster.get("pods").into_iter();
    let pods = pods.filter(|pod| pod["metadata"]["name"].as_str().unwrap().starts_with("web-"));
    pods.filter(|pod| pod["status"]["conditions"][0]["status"] == "True").count()
}

#[test]
fn no_request_fails_while_every_backend_is_replaced() {
    if !ready(&["wrk"]) {
        return;
    }
    let service = service("s", &format!("{DUAL}, ports: [{{port: 80, targetPort: web}}]"));
    let cluster = Cluster::of("rolling", &[LAB, &servers("one", ""), &service].concat(), &[]);
    until("all are ready", || ready_servers(&cluster) == 4);
    for (from, vip) in [("alpha", VIPS[0]), ("gamma", VIPS[1])] {
        until("the service knows", || curl(&cluster, from, vip, 80).status.success());
    }
    for counts in replace(&cluster, &servers("two", "")) {
        assert!(counts.requests > 100 && counts.failed == 0, "{counts:?}");
    }
    // Without grace, at most those that are on their way to each of the four.
    let at_once = "terminationGracePeriodSeconds: 0";
    success(
        "apply",
        &cluster.verb(&["apply", "-f", ManifestFile::new("grace", &servers("two", at_once)).path()]),
    );
    for counts in replace(&cluster, &servers("three", at_once)) {
        assert!(counts.requests > 100 && counts.failed <= 4 * 64, "{counts:?}");
    }
}
