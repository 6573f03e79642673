//! The control socket and the command line around it: what it tells, to whom, and what a bad client costs.
#![allow(clippy::unwrap_used, reason = "all of this file is tests")]

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use common::{both, executable, happens, success, until};
use serde_json::Value;

/// A `vswitch up` on memory links, which every user can start.
struct Lab {
    state: PathBuf,
    process: Child,
}

fn fresh(label: &str) -> PathBuf {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    std::env::temp_dir().join(format!("vsc-{label}-{}-{number}", std::process::id()))
}

fn command(state: &PathBuf, arguments: &[&str]) -> Command {
    let mut command = Command::new(executable());
    command.env_remove("NOTIFY_SOCKET").env("VSWITCH_STATE_DIR", state).args(arguments).stdin(Stdio::null());
    command
}

impl Lab {
    fn up(label: &str) -> Self {
        let lab = Self::start(label, &[], |_| {});
        until("the cluster answers", || UnixStream::connect(lab.socket()).is_ok());
        lab
    }

    fn start(label: &str, arguments: &[&str], prepare: impl FnOnce(&mut Command)) -> Self {
        let state = fresh(label);
        let mut command = command(&state, &["up", "--require", "memory"]);
        command.args(arguments).stdout(Stdio::null()).stderr(Stdio::null());
        prepare(&mut command);
        Self { process: command.spawn().unwrap(), state }
    }

    fn socket(&self) -> PathBuf {
        self.state.join("control.sock")
    }

    fn verb(&self, arguments: &[&str]) -> Output {
        command(&self.state, arguments).output().unwrap()
    }

    fn connect(&self) -> UnixStream {
        let stream = UnixStream::connect(self.socket()).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        stream
    }

    /// Status, header and body of an answer.
    fn ask(&self, method: &str, path: &str, body: &str) -> Answer {
        let mut stream = self.connect();
        let length = body.len();
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: vswitch\r\nContent-Type: application/json\r\n\
             Content-Length: {length}\r\n\r\n{body}"
        );
        stream.write_all(request.as_bytes()).unwrap();
        answer(stream)
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        let down = self.verb(&["down"]);
        let ended = self.process.wait().unwrap();
        let _ = fs::remove_dir_all(&self.state);
        if !std::thread::panicking() {
            assert!(down.status.success() && ended.success(), "{}{ended}", both(&down));
        }
    }
}

#[derive(Debug)]
struct Answer {
    status: u16,
    head: String,
    body: String,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|e| panic!("{e}: {self:?}"))
    }
}

fn answer(mut stream: UnixStream) -> Answer {
    let mut octets = Vec::new();
    let ended = stream.read_to_end(&mut octets);
    let text = String::from_utf8(octets).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("{ended:?}: {text:?}"));
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    Answer { status, head: head.to_lowercase(), body: body.to_owned() }
}

/// Every reference in a document.
fn references(value: &Value, found: &mut BTreeSet<String>) {
    match value {
        Value::Object(fields) => {
            found.extend(fields.get("$ref").and_then(Value::as_str).map(str::to_owned));
            fields.values().for_each(|value| references(value, found));
        }
        Value::Array(items) => items.iter().for_each(|value| references(value, found)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// What can be asked for a parameter or a body, by its name in the document.
fn filled(path: &str, operation: &Value) -> String {
    let mut path = path.to_owned();
    let mut query = Vec::new();
    for parameter in operation["parameters"].as_array().into_iter().flatten() {
        let name = parameter["name"].as_str().unwrap();
        let value = match name {
            "kind" => parameter["schema"]["enum"][0].as_str().unwrap(),
            "pod" | "port" => "alpha",
            "service" => "default/web",
            // Ends at once: a frame is more than none.
            "count" => "0",
            "protocol" => "tcp",
            "node" => "node-1",
            "source" | "destination" => "10.244.0.0/16",
            "sport" | "dport" => "80",
            "namespace" => "default",
            "ports" => "tcp/80",
            "state" => "established",
            other => panic!("{other} is new; give it a value here"),
        };
        if parameter["in"] == "path" {
            path = path.replace(&format!("{{{name}}}"), value);
        } else {
            query.push(format!("{name}={value}"));
        }
    }
    if query.is_empty() { path } else { format!("{path}?{}", query.join("&")) }
}

#[test]
fn every_path_of_the_document_answers_as_it_says() {
    let lab = Lab::up("openapi");
    let service = "{apiVersion: v1, kind: Service, metadata: {name: web}, spec: {ports: [{port: 80}]}}";
    let request = serde_json::json!({"sources": [{"name": "web.yaml", "text": service}]}).to_string();
    assert_eq!(lab.ask("POST", "/v1/apply", &request).status, 200);
    let document = lab.ask("GET", "/v1/openapi.json", "").json();
    assert_eq!(document["openapi"], "3.1.0");
    let mut used = BTreeSet::new();
    references(&document, &mut used);
    assert!(used.len() >= 10, "{used:?}");
    for reference in used {
        let there = document.pointer(reference.strip_prefix('#').unwrap());
        assert!(there.is_some(), "{reference} points nowhere");
    }
    let mut names = BTreeSet::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            assert!(names.insert(operation["operationId"].to_string()), "{path}");
            let body = match path.as_str() {
                "/v1/trace" => r#"{"from": "alpha", "packet": "icmp 10.244.1.2"}"#,
                "/v1/apply" | "/v1/delete" => r#"{"sources": []}"#,
                // The built-in cluster has no Deployment.
                "/v1/scale" => r#"{"namespace": "default", "name": "web", "replicas": 1}"#,
                "/v1/publish" | "/v1/withdraw" => r#"{"ports": []}"#,
                // This one is asked at the very end, by `vswitch down`; and a capture has a test of its own.
                "/v1/down" | "/v1/capture" => continue,
                _ => "",
            };
            assert_eq!(operation.get("requestBody").is_some(), !body.is_empty(), "{path}");
            let answer = lab.ask(&method.to_uppercase(), &filled(path, operation), body);
            if path == "/v1/scale" {
                assert_eq!(answer.status, 404, "{answer:?}");
                continue;
            }
            assert_eq!(answer.status, 200, "{path}: {answer:?}");
            let media = operation["responses"]["200"]["content"].as_object().unwrap().keys().next().unwrap();
            assert!(answer.head.contains(&format!("content-type: {media}")), "{path}: {answer:?}");
            let schema = &operation["responses"]["200"]["content"][media]["schema"];
            if media == "application/json" {
                conforms(&document, schema, &answer.json(), path);
            }
            let other = if method == "get" { "POST" } else { "GET" };
            let refused = lab.ask(other, &filled(path, operation), "");
            assert_eq!(refused.status, 405, "{path}: {refused:?}");
            assert!(refused.json()["error"].is_string());
        }
    }
}

/// What of JSON Schema the document uses, held against an answer.
fn conforms(document: &Value, schema: &Value, value: &Value, place: &str) {
    if let Some(reference) = schema["$ref"].as_str() {
        return conforms(document, document.pointer(&reference[1..]).unwrap(), value, place);
    }
    let kind = match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(number) if number.is_f64() => "number",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    };
    let may = match &schema["type"] {
        Value::String(one) => vec![one.as_str()],
        Value::Array(several) => several.iter().filter_map(Value::as_str).collect(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_) => vec![kind],
    };
    let fits = may.contains(&kind) || (kind == "integer" && may.contains(&"number"));
    assert!(fits, "{place}: {value} is none of {may:?}");
    for (index, item) in value.as_array().into_iter().flatten().enumerate() {
        conforms(document, schema["prefixItems"].get(index).unwrap_or(&schema["items"]), item, place);
    }
    for name in schema["required"].as_array().into_iter().flatten() {
        assert!(value.get(name.as_str().unwrap()).is_some(), "{place}: {name} is missing in {value}");
    }
    if let (Some(fields), Some(known)) = (value.as_object(), schema["properties"].as_object()) {
        for (name, value) in fields {
            let schema = known.get(name).unwrap_or_else(|| panic!("{place}: {name} is not in the document"));
            conforms(document, schema, value, &format!("{place} {name}"));
        }
    }
}

#[test]
fn what_is_not_there_is_told_in_a_sentence() {
    let lab = Lab::up("errors");
    for (method, path, body, status) in [
        ("GET", "/v1/nothing", "", 404),
        ("GET", "/v1/objects/nothing", "", 404),
        ("GET", "/v1/logs", "", 400),
        ("GET", "/v1/logs?pod=nobody", "", 404),
        ("GET", "/v1/capture?port=nobody", "", 404),
        ("GET", "/v1/capture?port=alpha&count=x", "", 400),
        ("GET", "/v1/capture?port=alpha&filter=tcp%20and", "", 400),
        ("GET", "/v1/capture?port=alpha&format=xml", "", 400),
        ("POST", "/v1/trace", "{", 400),
        ("POST", "/v1/trace", "{}", 422),
        ("POST", "/v1/apply", r#"{"sources": [{"name": "a", "text": "kind: Nothing"}]}"#, 422),
    ] {
        let answer = lab.ask(method, path, body);
        assert_eq!(answer.status, status, "{path}: {answer:?}");
        assert!(answer.json()["error"].as_str().is_some_and(|text| !text.is_empty()), "{path}: {answer:?}");
    }
}

/// Values by name and labels.
type Samples = BTreeMap<(String, Vec<(String, String)>), f64>;

/// The samples of an OpenMetrics text, by name and labels; panics at everything that the format does not allow.
fn samples(text: &str) -> Samples {
    let mut found = BTreeMap::new();
    let mut types: BTreeMap<String, String> = BTreeMap::new();
    let mut family = String::new();
    let body = text.strip_suffix("# EOF\n").unwrap_or_else(|| panic!("no end: {text}"));
    for line in body.lines() {
        if let Some(comment) = line.strip_prefix("# ") {
            let (keyword, rest) = comment.split_once(' ').unwrap();
            let (name, value) = rest.split_once(' ').unwrap_or_else(|| panic!("{line}"));
            match keyword {
                "HELP" => {
                    assert!(value.ends_with('.') && !types.contains_key(name), "{line}");
                    family = name.to_owned();
                }
                "TYPE" => {
                    assert!(matches!(value, "counter" | "gauge" | "histogram" | "info"), "{line}");
                    assert!(types.insert(name.to_owned(), value.to_owned()).is_none(), "{line}");
                }
                "UNIT" => assert!(name.ends_with(&format!("_{value}")), "{line}"),
                _ => panic!("{line}"),
            }
            assert!(name == family && is_name(name) && name.starts_with("vswitch_"), "{line}");
            continue;
        }
        let (series, value) = line.rsplit_once(' ').unwrap_or_else(|| panic!("{line}"));
        let (name, labels) = match series.split_once('{') {
            Some((name, rest)) => (name, labels(rest.strip_suffix('}').unwrap_or_else(|| panic!("{line}")))),
            None => (series, Vec::new()),
        };
        let suffixes: &[&str] = match types[&family].as_str() {
            "counter" => &["_total"],
            "histogram" => &["_sum", "_count", "_bucket"],
            "info" => &["_info"],
            _ => &[""],
        };
        assert!(suffixes.iter().any(|suffix| name == format!("{family}{suffix}")), "{line}");
        let value: f64 = value.parse().unwrap_or_else(|_| panic!("{line}"));
        assert!(value.is_finite() && value >= 0.0, "{line}");
        assert!(found.insert((name.to_owned(), labels), value).is_none(), "twice: {line}");
    }
    found
}

fn is_name(name: &str) -> bool {
    let mut letters = name.chars();
    letters.next().is_some_and(|c| c.is_ascii_lowercase())
        && letters.all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
}

fn labels(mut text: &str) -> Vec<(String, String)> {
    let mut labels = Vec::new();
    while !text.is_empty() {
        let (name, rest) = text.split_once("=\"").unwrap_or_else(|| panic!("{text}"));
        assert!(is_name(name), "{name}");
        let end = rest.find('"').unwrap_or_else(|| panic!("{text}"));
        assert!(!rest[..end].contains('\\'), "no name here needs an escape: {text}");
        labels.push((name.to_owned(), rest[..end].to_owned()));
        text = rest[end + 1..].strip_prefix(',').unwrap_or(&rest[end + 1..]);
    }
    labels
}

#[test]
fn metrics_are_the_tables_in_another_form() {
    let lab = Lab::up("metrics");
    let scrape = lab.ask("GET", "/metrics", "");
    let media = "content-type: application/openmetrics-text; version=1.0.0; charset=utf-8";
    assert!(scrape.status == 200 && scrape.head.contains(media), "{scrape:?}");
    let before = samples(&scrape.body);
    let tables = |what: &str| lab.ask("GET", what, "").json().as_array().unwrap().clone();
    let (ports, drops, fdb) = (tables("/v1/ports"), tables("/v1/drops"), tables("/v1/fdb"));
    let after = samples(&lab.ask("GET", "/metrics", "").body);
    // Background traffic goes on, so what a table says lies between two scrapes around it.
    let between = |name: &str, labels: &[(&str, &Value)], count: f64| {
        let labels: Vec<(String, String)> =
            labels.iter().map(|(n, v)| ((*n).to_owned(), v.as_str().unwrap().to_owned())).collect();
        let key = (name.to_owned(), labels);
        let low = before.get(&key).copied().unwrap_or(0.0);
        assert!(low <= count && count <= after[&key], "{key:?}: {low}, {count}, {}", after[&key]);
    };
    assert!(!ports.is_empty());
    for port in &ports {
        let labels = [("switch", &port["switch"]), ("port", &port["port"])];
        for (name, field) in [
            ("vswitch_port_receive_frames_total", "rx_frames"),
            ("vswitch_port_receive_bytes_total", "rx_bytes"),
            ("vswitch_port_transmit_frames_total", "tx_frames"),
            ("vswitch_port_transmit_bytes_total", "tx_bytes"),
        ] {
            between(name, &labels, port[field].as_f64().unwrap());
        }
    }
    for drop in &drops {
        let labels = [("switch", &drop["switch"]), ("port", &drop["port"]), ("reason", &drop["reason"])];
        between("vswitch_port_drops_total", &labels, drop["count"].as_f64().unwrap());
    }
    let sum = |name: &str, of: &Samples| -> f64 {
        of.iter().filter(|((n, _), _)| n == name).map(|(_, value)| value).sum()
    };
    let known = fdb.len() as f64;
    assert!(known > 0.0 && sum("vswitch_fdb_entries", &before) <= known, "{before:?}");
    assert!(sum("vswitch_neighbor_entries", &after) > 0.0);
    assert_eq!(sum("vswitch_pods", &after), tables("/v1/objects/pods").len() as f64);
    assert_eq!(sum("vswitch_build_info", &after), 1.0);
    assert!(sum("vswitch_uptime_seconds", &before) < sum("vswitch_uptime_seconds", &after));
}

#[test]
fn a_line_on_the_ready_descriptor_says_that_it_can_be_asked() {
    let (reader, writer) = std::io::pipe().unwrap();
    let number = 9;
    let lab = Lab::start("readyfd", &["--ready-fd", "9"], |command| {
        // A shell hands the pipe down under a number.
        let up: Vec<_> = command.get_args().map(ToOwned::to_owned).collect();
        let state = command.get_envs().find(|(name, _)| *name == "VSWITCH_STATE_DIR").unwrap().1.unwrap();
        let mut shell = Command::new("sh");
        shell.env("VSWITCH_STATE_DIR", state).arg("-c").arg(format!("exec {number}>&1 >&2; exec \"$@\""));
        shell.arg("sh").arg(executable()).args(up).stdin(Stdio::null()).stderr(Stdio::null());
        shell.stdout(writer);
        *command = shell;
    });
    let mut lines = BufReader::new(reader);
    let mut line = String::new();
    lines.read_line(&mut line).unwrap();
    assert_eq!(line, "ready\n");
    assert_eq!(lab.ask("GET", "/v1/status", "").status, 200);
    // Closed, by everyone: the cluster goes on and no process of it holds the other end.
    assert_eq!(lines.read_line(&mut line).unwrap(), 0);
}

#[test]
fn a_ready_descriptor_that_cannot_be_is_refused() {
    let state = fresh("badfd");
    for number in ["-1", "0", "1", "2", "x"] {
        let argument = format!("--ready-fd={number}");
        let output = command(&state, &["up", "--require", "memory", &argument]).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{}", both(&output));
    }
    let output = command(&state, &["up", "--require", "memory", "--ready-fd", "99"]).output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{}", both(&output));
    assert!(both(&output).contains("--ready-fd 99: Bad file descriptor"), "{}", both(&output));
    assert!(!state.exists(), "nothing is made before the command line is known to be right");
}

#[test]
fn the_service_manager_is_told() {
    let path = fresh("notify");
    let socket = UnixDatagram::bind(&path).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let lab = Lab::start("notify", &[], |command| {
        command.env("NOTIFY_SOCKET", &path);
    });
    let told = || {
        let mut buffer = [0; 4096];
        let length = socket.recv(&mut buffer).unwrap();
        String::from_utf8_lossy(&buffer[..length]).into_owned()
    };
    assert_eq!(told(), "STATUS=starting\n");
    let ready = told();
    assert!(ready.starts_with("READY=1\nSTATUS=cluster lab is up: "), "{ready}");
    assert_eq!(lab.ask("GET", "/v1/status", "").status, 200);
    drop(lab);
    assert_eq!(told(), "STOPPING=1\nSTATUS=coming down\n");
    fs::remove_file(path).unwrap();
}

#[test]
fn without_a_cluster_each_verb_says_what_to_do() {
    let state = fresh("nobody");
    let manifest = fresh("manifest");
    fs::write(&manifest, "apiVersion: v1\nkind: Namespace\nmetadata: {name: a}\n").unwrap();
    let file = manifest.to_str().unwrap();
    for verb in [
        &["get", "pods"][..],
        &["describe", "pod", "alpha"],
        &["logs", "alpha"],
        &["exec", "alpha", "--", "true"],
        &["trace", "alpha", "icmp 10.244.1.2"],
        &["capture", "any"],
        &["apply", "-f", file],
        &["delete", "-f", file],
        &["scale", "deployment/web", "--replicas", "2"],
    ] {
        let output = command(&state, verb).output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{verb:?}: {}", both(&output));
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(said.starts_with("vswitch: no vswitch runs here (nobody answers at "), "{verb:?}: {said}");
        assert!(said.contains("`vswitch up`") && said.lines().count() == 1, "{verb:?}: {said}");
    }
    fs::remove_file(manifest).unwrap();
    for wrong in [&["gett"][..], &["get"], &["get", "pots"], &["up", "--mtu", "1"], &["completions", "csh"]] {
        let output = command(&state, wrong).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{wrong:?}: {}", both(&output));
    }
}

#[test]
fn a_deployment_has_as_many_pods_as_it_is_told() {
    let manifest = fresh("deployment");
    let text = "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: web, namespace: shop}\nspec:\n  \
                selector: {matchLabels: {a: b}}\n  template:\n    metadata: {labels: {a: b}}\n    \
                spec: {containers: [{name: c, image: none}]}\n";
    fs::write(&manifest, text).unwrap();
    let lab = Lab::start("scale", &["-f", manifest.to_str().unwrap()], |_| {});
    until("the cluster answers", || UnixStream::connect(lab.socket()).is_ok());
    let scale = |arguments: &[&str]| {
        let output = lab.verb(&[&["scale"], arguments].concat());
        (output.status.code().unwrap(), both(&output))
    };
    let pods = || {
        let text = success("get", &lab.verb(&["get", "pods", "-n", "shop", "-o", "json"]));
        serde_json::from_str::<Vec<Value>>(&text).unwrap().len()
    };
    assert_eq!(pods(), 1);
    let configured = (0, "Deployment shop/web configured\n".to_owned());
    assert_eq!(scale(&["deployment", "web", "-n", "shop", "--replicas", "3"]), configured);
    assert_eq!(pods(), 3);
    let unchanged = (0, "Deployment shop/web unchanged\n".to_owned());
    assert_eq!(scale(&["deploy", "shop/web", "--replicas=3"]), unchanged);
    assert_eq!(scale(&["deployment/web", "--namespace=shop", "--replicas=0"]), configured);
    assert_eq!(pods(), 0);
    for (arguments, status, says) in [
        (&["deployment/web", "--replicas=2"][..], 1, "Deployment default/web does not exist"),
        (
            &["deployment/web", "-n", "shop", "--replicas=20000"],
            1,
            "spec.replicas: 20000 is not between 0 and 10000",
        ),
        (
            &["deployment/web", "-n", "shop", "--replicas=-1"],
            1,
            "spec.replicas: -1 is not between 0 and 10000",
        ),
        (&["pod", "web", "--replicas=2"], 2, "a pod cannot be scaled"),
        (&["deployment", "--replicas=2"], 2, "write `deployment NAME` or `deployment/NAME`"),
        (&["deployment/web"], 2, "--replicas"),
    ] {
        let (code, said) = scale(arguments);
        assert!(code == status && said.contains(says), "{arguments:?}: {code} {said}");
    }
    assert_eq!(pods(), 0);
    fs::remove_file(manifest).unwrap();
}

#[test]
fn versions_are_told_with_and_without_a_cluster() {
    let own = env!("CARGO_PKG_VERSION");
    assert_eq!(printed(&["version"]), format!("client {own}\nserver none\n"));
    let lab = Lab::up("version");
    let said = success("version", &lab.verb(&["version"]));
    let process = lab.process.id();
    assert_eq!(said, format!("client {own}\nserver {own} (cluster lab, process {process}, memory)\n"));
    let json: Value =
        serde_json::from_str(&success("version", &lab.verb(&["version", "-o", "json"]))).unwrap();
    assert_eq!((&json["client"]["version"], &json["server"]["version"]), (&own.into(), &own.into()));
    assert_eq!(json["server"]["pid"], process);
}

/// What no user is told of.
const HIDDEN: [&str; 8] =
    ["__probe", "__helper", "__pause", "__enter", "__image", "__check", "no-offload-for", "grace-ms"];

/// Those of the hidden words that a text contains as words.
fn told_hidden(text: &str) -> Vec<&str> {
    let words = text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_' || c == '-'));
    words.map(|word| word.trim_start_matches('-')).filter(|word| HIDDEN.contains(word)).collect()
}

fn printed(arguments: &[&str]) -> String {
    success(&arguments.join(" "), &command(&fresh("printed"), arguments).output().unwrap())
}

#[test]
fn completions_are_scripts_without_inner_roles() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = printed(&["completions", shell]);
        for word in ["completions", "ready-fd", "describe", "state-dir"] {
            assert!(script.contains(word), "{shell} does not know {word}");
        }
        assert_eq!(told_hidden(&script), [""; 0], "{shell}");
    }
    let script = fresh("bash");
    fs::write(&script, printed(&["completions", "bash"])).unwrap();
    let check = "source \"$1\"; COMP_WORDS=(vswitch get po); COMP_CWORD=2; _vswitch vswitch po get; \
                 echo \"${COMPREPLY[@]}\"";
    let words = Command::new("bash").args(["-c", check, "bash"]).arg(&script).output().unwrap();
    assert_eq!(success("bash", &words).trim(), "pods policies ports");
    fs::remove_file(script).unwrap();
}

#[test]
fn manual_pages_are_there_for_each_verb() {
    let page = printed(&["man"]);
    assert!(page.contains(".TH vswitch 1") && page.contains("Exit status:"), "{page}");
    let directory = fresh("man");
    printed(&["man", directory.to_str().unwrap()]);
    let help = printed(&["--help"]);
    assert!(
        help.contains("Exit status:\n  0 ") && help.contains("\n  2  the command line is wrong"),
        "{help}"
    );
    let verbs =
        help.lines().skip_while(|line| *line != "Commands:").skip(1).take_while(|line| !line.is_empty());
    let verbs: BTreeSet<String> =
        verbs.filter_map(|line| line.strip_prefix("  ")?.split(' ').next().map(str::to_owned)).collect();
    let mut pages: BTreeSet<String> = BTreeSet::new();
    for entry in fs::read_dir(&directory).unwrap() {
        let path = entry.unwrap().path();
        let text = fs::read_to_string(&path).unwrap();
        let unescaped = text.replace("\\-", "-");
        assert_eq!(told_hidden(&unescaped), [""; 0], "{}", path.display());
        let name = path.file_name().unwrap().to_str().unwrap().strip_suffix(".1").unwrap();
        pages.insert(name.strip_prefix("vswitch-").unwrap_or(name).to_owned());
    }
    let expected = verbs.iter().filter(|verb| !matches!(verb.as_str(), "help" | "")).cloned();
    // One for the command itself, and one for a verb of a verb.
    assert_eq!(pages, expected.chain(["vswitch".to_owned(), "policy-matrix".to_owned()]).collect());
    fs::remove_dir_all(directory).unwrap();
}

/// Room for the descriptors of a flood, in this process.
fn raise_descriptors() {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).unwrap();
    assert!(hard >= 2000, "this test opens 1000 connections, and may open {hard} files");
}

#[test]
fn a_thousand_halves_of_requests_hurt_nobody() {
    raise_descriptors();
    let lab = Lab::up("flood");
    let descriptors = || fs::read_dir(format!("/proc/{}/fd", lab.process.id())).unwrap().count();
    let before = descriptors();
    let status = || {
        let stream = lab.connect();
        stream.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
        (&stream).write_all(b"GET /v1/status HTTP/1.1\r\nHost: vswitch\r\n\r\n").unwrap();
        assert_eq!(answer(stream).status, 200);
    };
    // One whose body is announced to be a GiB is refused at its header; one that does not say how long it is is read.
    let announced = b"POST /v1/apply HTTP/1.1\r\nHost: v\r\nContent-Type: application/json\r\n\
                      Content-Length: 1073741824\r\n\r\n{";
    let mut huge = lab.connect();
    huge.write_all(announced).unwrap();
    assert_eq!(answer(huge).status, 413);
    let mut trickle = lab.connect();
    trickle
        .write_all(
            b"POST /v1/apply HTTP/1.1\r\nHost: v\r\nContent-Type: application/json\r\n\
              Transfer-Encoding: chunked\r\n\r\n40000000\r\n{",
        )
        .unwrap();
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            // Until it is cut off, octet by octet.
            while !done.load(Ordering::Relaxed) && trickle.write_all(b" ").is_ok() {
                std::thread::sleep(Duration::from_millis(10));
            }
        });
        let mut halves = Vec::new();
        for number in 0..1000 {
            let mut half = lab.connect();
            // Who is displaced at once may not even write.
            let _ = half.write_all(b"POST /v1/trace HTTP/1.1\r\nHost: v\r\nContent-Len");
            halves.push(half);
            if number % 50 == 0 {
                status();
            }
        }
        status();
        let open = descriptors();
        assert!(open <= before + 140, "{before} descriptors, {open} in the flood");
        // The command comes through as well.
        success("get", &lab.verb(&["get", "ports"]));
        drop(halves);
        done.store(true, Ordering::Relaxed);
    });
    until("the connections are closed", || descriptors() <= before + 4);
}

#[test]
fn what_never_ends_is_ended() {
    let lab = Lab::up("slow");
    let (mut head, mut body, mut long) = (lab.connect(), lab.connect(), lab.connect());
    head.write_all(b"GET /v1/sta").unwrap();
    body.write_all(b"POST /v1/trace HTTP/1.1\r\nHost: v\r\nContent-Length: 100\r\n\r\n{").unwrap();
    let request = format!("GET /v1/status HTTP/1.1\r\nHost: v\r\nX: {}\r\n\r\n", "x".repeat(100_000));
    let _ = long.write_all(request.as_bytes());
    assert_eq!(answer(long).status, 431);
    assert_eq!(answer(body).status, 408);
    let mut said = Vec::new();
    let _ = head.read_to_end(&mut said);
    assert!(said.is_empty() || said.starts_with(b"HTTP/1.1 408"), "{}", String::from_utf8_lossy(&said));
}

#[test]
fn captures_are_bounded_and_their_places_come_back() {
    let lab = Lab::up("captures");
    let start = || {
        let mut stream = lab.connect();
        stream.write_all(b"GET /v1/capture?port=any HTTP/1.1\r\nHost: v\r\n\r\n").unwrap();
        let mut line = String::new();
        BufReader::new(stream.try_clone().unwrap()).read_line(&mut line).unwrap();
        (stream, line)
    };
    let mut running: Vec<UnixStream> = Vec::new();
    for _ in 0..16 {
        let (stream, line) = start();
        assert_eq!(line, "HTTP/1.1 200 OK\r\n");
        running.push(stream);
    }
    assert_eq!(start().1, "HTTP/1.1 503 Service Unavailable\r\n");
    drop(running);
    until("a capture has a place again", || start().1 == "HTTP/1.1 200 OK\r\n");
}

#[test]
fn whoever_does_not_read_its_answer_is_cut_off_and_counted() {
    // More than the socket holds: an answer that cannot leave at once.
    let pod = format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: large, annotations: {{large: {}}}}}\nspec: {{containers: [{{name: c}}]}}\n",
        "x".repeat(4 << 20)
    );
    let file = common::ManifestFile::new("stall", &pod);
    let lab = Lab::start("stall", &["-f", file.path()], |_| {});
    until("the cluster answers", || UnixStream::connect(lab.socket()).is_ok());
    let stalled = || {
        let text = lab.ask("GET", "/metrics", "").body;
        let value = text.lines().find_map(|line| line.strip_prefix("vswitch_control_stalled_total "));
        value.unwrap_or_else(|| panic!("{text}")).parse::<u32>().unwrap()
    };
    let descriptors = || fs::read_dir(format!("/proc/{}/fd", lab.process.id())).unwrap().count();
    let request = b"GET /v1/objects/pods HTTP/1.1\r\nHost: v\r\n\r\n";
    let ask = || {
        let mut stream = lab.connect();
        stream.write_all(request).unwrap();
        stream
    };
    assert_eq!(stalled(), 0);
    // When the question has been put away.
    let settled = |_| {
        std::thread::sleep(Duration::from_millis(20));
        descriptors()
    };
    let before = (0..10).map(settled).min().unwrap();
    let mut unread: Vec<UnixStream> = (0..10).map(|_| ask()).collect();
    until("they are served", || descriptors() >= before + 10);
    // Somebody who reads is answered meanwhile, however large the answer is.
    let answered = answer(ask());
    assert!(answered.status == 200 && answered.body.len() > 4 << 20);
    until("their time has not come", || descriptors() <= before + 10);
    assert_eq!(stalled(), 0);
    // Half a minute.
    let give_up = 4;
    assert!((0..give_up).any(|_| happens(|| stalled() == 10)), "{} of 10", stalled());
    until("their connections are closed", || descriptors() <= before);
    // They get what was in the socket, and then the end.
    let mut rest = Vec::new();
    let _ = unread.remove(0).read_to_end(&mut rest);
    assert!(rest.len() < 4 << 20, "{}", rest.len());
}
