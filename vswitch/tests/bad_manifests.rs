//! Manifests that are wrong: each is told in one sentence with its place, and changes nothing that runs.
#![allow(clippy::unwrap_used, reason = "all of this file is tests")]

use std::fs;
use std::path::{Path, PathBuf};

use vswitch::control::plane::{Desired, Frame, Plane};
use vswitch::manifest::{Source, Strictness, load};
use vswitch::objects::{Allocations, Store, compile};
use vswitch::runtime::{Mode, Options};
use vswitch::state::StatePaths;

/// Every file of `tests/bad`, and what its first line says it must say.
fn corpus() -> Vec<(PathBuf, Source, String)> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/bad");
    let mut files: Vec<PathBuf> = fs::read_dir(directory).unwrap().map(|e| e.unwrap().path()).collect();
    files.sort();
    let read = |path: PathBuf| {
        let text = fs::read_to_string(&path).unwrap();
        let says = text.lines().next().unwrap().strip_prefix("# says: ").unwrap().to_owned();
        let name = path.file_name().unwrap().to_str().unwrap().into();
        (path, Source { name, text }, says)
    };
    files.into_iter().map(read).collect()
}

/// All that is told about a text on its own.
fn told(source: &Source) -> Vec<String> {
    let read = load(std::slice::from_ref(source), Strictness::Strict).and_then(|manifests| {
        let mut store = Store::default();
        store.apply(manifests);
        compile(&store, &Allocations::default(), "lab")
    });
    read.unwrap_err().problems.iter().map(ToString::to_string).collect()
}

#[test]
fn each_is_told_in_one_sentence_with_its_place() {
    let corpus = corpus();
    assert!(corpus.len() >= 60, "{}", corpus.len());
    let mut wrong = Vec::new();
    for (path, source, says) in corpus {
        let told = told(&source);
        let lines = source.text.lines().count();
        let place = told.first().and_then(|text| {
            let mut parts = text.strip_prefix(&format!("{}:", source.name))?.split(':');
            Some((parts.next()?.parse::<usize>().ok()?, parts.next()?.parse::<usize>().ok()?))
        });
        let placed = place.is_some_and(|(line, column)| (2..=lines + 1).contains(&line) && column >= 1);
        if told.len() != 1 || !told[0].contains(&says) || !placed {
            wrong.push(format!("{}: wanted {says:?}, was told {told:#?}", path.display()));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn none_changes_what_runs() {
    let directory = std::env::temp_dir().join(format!("vswitch-bad-{}", std::process::id()));
    fs::create_dir_all(&directory).unwrap();
    let options = Options {
        mode: Mode::Memory,
        offload: false,
        plain: Vec::new(),
        state: StatePaths::new(&directory),
        grace: std::time::Duration::ZERO,
    };
    let running = "apiVersion: v1\nkind: Pod\nmetadata: {name: running}\nspec: {containers: [{name: c}]}\n";
    let mut desired = Desired::default();
    let source = Source { name: "running".into(), text: running.into() };
    desired.store.apply(load(&[source], Strictness::Strict).unwrap());
    let frame = Frame { name: "lab".into(), mtu: None };
    let (plane, _) = Plane::start(desired, frame, &options, None).unwrap();
    let (cluster, file) = (plane.runtime().cluster(), fs::read(options.state.desired()).unwrap());
    for (path, source, _) in corpus() {
        assert!(plane.apply(&[source], Strictness::Strict).is_err(), "{}", path.display());
        assert_eq!(plane.runtime().cluster(), cluster, "{}", path.display());
        assert!(fs::read(options.state.desired()).unwrap() == file, "{}", path.display());
    }
    assert_eq!(plane.stop(), [""; 0]);
    fs::remove_dir_all(&directory).unwrap();
}

#[test]
fn a_hundred_megabytes_of_aliases_are_refused_at_once() {
    let mut bomb = "a: &a [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    while bomb.len() < 100 << 20 {
        bomb.push_str(
            "b: [*a, *a, *a, *a, *a, *a, *a, *a, *a, *a, *a, *a, *a, *a, *a, *a, *a, *a, *a, *a]\n",
        );
    }
    let told_of = |text: &str| told(&Source { name: "bomb".into(), text: text.into() });
    assert_eq!(told_of(&bomb), ["bomb:1:1: the file has 100 MiB; at most 16 are read"]);
    let list = bomb.replace("b: ", "- ").replace("a: &a", "- &a");
    let told = told_of(&list[..16 << 20]);
    assert!(told.len() == 1 && told[0].contains("aliases"), "{told:?}");
}

#[test]
fn nothing_at_all_is_the_default_cluster() {
    let read = load(&[Source { name: "empty".into(), text: "# nothing\n---\n".into() }], Strictness::Strict)
        .unwrap();
    let mut store = Store::default();
    store.apply(read);
    assert_eq!(compile(&store, &Allocations::default(), "lab").unwrap().cluster.nodes.len(), 1);
}
