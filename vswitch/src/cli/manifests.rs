//! Verbs that take manifests: `apply`, `delete`, `check`.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::mpsc;
use std::time::Duration;

use manifest::{MAX_TEXT, Source, Strictness};
use serde_json::Value as Json;

use super::{Check, Failure, Manifests, Scale, tell_warnings, wrong};
use crate::cluster::simulate;
use crate::control::api::{ApplyRequest, ApplyView, ScaleRequest, SourceText};
use crate::control::client::Client;
use crate::objects::{Allocations, Plan, Store, compile};

/// How often it is looked how far a change is.
const LOOK: Duration = Duration::from_millis(500);
/// Names of files in a directory that are manifests.
const EXTENSIONS: [&str; 3] = ["yaml", "yml", "json"];

/// Reads every file, every directory's files in order of name, and standard input for `-`.
pub(super) fn read(files: &[PathBuf]) -> Result<Vec<Source>, Failure> {
    let mut sources = Vec::new();
    for path in files {
        if path == Path::new("-") {
            sources.push(read_one("<stdin>", io::stdin().lock())?);
        } else if path.is_dir() {
            let cannot = |error| format!("{}: {error}", path.display());
            let entries =
                fs::read_dir(path).map_err(cannot)?.collect::<Result<Vec<_>, _>>().map_err(cannot)?;
            let mut found: Vec<PathBuf> =
                entries.into_iter().map(|entry| entry.path()).filter(|path| is_manifest(path)).collect();
            found.sort();
            if found.is_empty() {
                return Err(format!("{}: no file here ends in .yaml, .yml or .json", path.display()).into());
            }
            for file in found {
                sources.push(read_file(&file)?);
            }
        } else {
            sources.push(read_file(path)?);
        }
    }
    Ok(sources)
}

fn is_manifest(path: &Path) -> bool {
    let extension = path.extension().and_then(std::ffi::OsStr::to_str);
    extension.is_some_and(|extension| EXTENSIONS.contains(&extension)) && path.is_file()
}

fn read_file(path: &Path) -> Result<Source, Failure> {
    let file = fs::File::open(path).map_err(|error| format!("{}: {error}", path.display()))?;
    read_one(&path.display().to_string(), file)
}

/// Reads a text up to one octet more than is allowed: whoever reads it then says that it is too long.
fn read_one(name: &str, from: impl io::Read) -> Result<Source, Failure> {
    let mut octets = Vec::new();
    let limit = u64::try_from(MAX_TEXT)? + 1;
    from.take(limit).read_to_end(&mut octets).map_err(|error| format!("{name}: {error}"))?;
    let text = String::from_utf8(octets).map_err(|error| {
        format!("{name}: is no text: the octet at {} is not UTF-8", error.utf8_error().valid_up_to())
    })?;
    Ok(Source { name: name.into(), text })
}

pub(super) fn apply(client: &Client, what: &Manifests, path: &str) -> Result<ExitCode, Failure> {
    let texts = read(&what.files)?.into_iter();
    let sources = texts.map(|s| SourceText { name: s.name.to_string(), text: s.text }).collect();
    let request = ApplyRequest { sources, lenient: what.lenient };
    let (done, watched) = mpsc::channel();
    let watcher = Client::new(client.socket());
    let answer = std::thread::scope(|scope| {
        scope.spawn(move || watch_replacement(&watcher, &watched));
        let answer = client.post(path, &request);
        drop(done);
        answer
    });
    tell(&answer?)
}

/// Says how far Deployments are whose pods are being replaced, until the other end of `done` is dropped.
fn watch_replacement(client: &Client, done: &mpsc::Receiver<()>) {
    let mut said = BTreeMap::new();
    while done.recv_timeout(LOOK) == Err(mpsc::RecvTimeoutError::Timeout) {
        // Whether it can be told does not matter to what is being done.
        let deployments: Vec<Json> = client.get("/v1/objects/deployments").unwrap_or_default();
        for deployment in deployments {
            let (metadata, status) = (&deployment["metadata"], &deployment["status"]);
            let number = |field: &str| status[field].as_u64().unwrap_or(0);
            let (updated, all) = (number("updatedReplicas"), number("replicas"));
            let name = |field: &str| metadata[field].as_str().unwrap_or_default().to_owned();
            let key = format!("{}/{}", name("namespace"), name("name"));
            let words =
                format!("{updated} of {all} pods are replaced, {} of {all} ready", number("readyReplicas"));
            let before = said.insert(key.clone(), words.clone());
            let first = before.is_none();
            let news = before.is_some_and(|before| before != words);
            if news || first && updated < all {
                let _ = writeln!(io::stderr(), "Deployment {key}: {words}");
            }
        }
    }
}

/// `scale deployment NAME` and `scale deployment/NAME`, as kubectl has it.
pub(super) fn scale(client: &Client, what: &Scale) -> Result<ExitCode, Failure> {
    let (kind, name) = match (what.kind.split_once('/'), &what.name) {
        (Some((kind, name)), None) => (kind, name),
        (None, Some(name)) => (what.kind.as_str(), name.as_str()),
        _ => return Err(wrong("write `deployment NAME` or `deployment/NAME`")),
    };
    if !["deployment", "deployments", "deploy"].contains(&kind) {
        return Err(wrong(&format!("a {kind} cannot be scaled, only a deployment")));
    }
    let default = what.namespace.as_deref().unwrap_or("default");
    let (namespace, name) = name.split_once('/').unwrap_or((default, name));
    let request =
        ScaleRequest { namespace: namespace.to_owned(), name: name.to_owned(), replicas: what.replicas };
    tell(&client.post("/v1/scale", &request)?)
}

/// What changed, and what could not be done.
fn tell(view: &ApplyView) -> Result<ExitCode, Failure> {
    tell_warnings(&view.warnings)?;
    // There may be thousands, and a line each is soon written at once.
    let mut out = io::BufWriter::new(io::stdout().lock());
    for change in &view.changes {
        writeln!(out, "{} {}", change.object, change.change)?;
    }
    out.flush()?;
    for problem in &view.problems {
        writeln!(io::stderr(), "vswitch: {problem}")?;
    }
    Ok(if view.problems.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

pub(super) fn check(check: &Check) -> Result<ExitCode, Failure> {
    let what = &check.manifests;
    let (store, warnings) = Store::read(&read(&what.files)?, Strictness::lenient_if(what.lenient))?;
    tell_warnings(&warnings)?;
    let objects = store.iter().count();
    let compiled = compile(&store, &Allocations::default(), "lab")?;
    tell_warnings(&compiled.warnings)?;
    let cluster = compiled.cluster;
    let planning = Plan::default().change(&store, None, &cluster, &BTreeMap::new())?;
    tell_warnings(&planning.warnings)?;
    let counts =
        [(cluster.nodes.len(), "nodes"), (cluster.pods.len(), "pods"), (cluster.hosts.len(), "hosts")];
    let counts: Vec<String> = counts.iter().map(|(count, what)| format!("{count} {what}")).collect();
    writeln!(io::stdout(), "{objects} objects are sound: {}", counts.join(", "))?;
    if !check.simulate {
        return Ok(ExitCode::SUCCESS);
    }
    let found = simulate(&cluster, check.seed)?;
    for wrong in &found.wrong {
        writeln!(io::stdout(), "{wrong}")?;
    }
    if found.wrong.is_empty() {
        writeln!(io::stdout(), "simulated: {} pings, everyone reaches whom they should", found.asked)?;
        Ok(ExitCode::SUCCESS)
    } else {
        writeln!(io::stdout(), "simulated: {} of {} pings went wrong", found.wrong.len(), found.asked)?;
        Ok(ExitCode::FAILURE)
    }
}
