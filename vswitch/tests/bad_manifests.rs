//! Manifests that are wrong: each is told in one sentence with its place, and changes nothing that runs.
#![allow(clippy::unwrap_used, reason = "all of this file is tests")]

#[path = "common/in_memory.rs"]
mod in_memory;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use in_memory::InMemory;
use proptest::prelude::*;
use proptest::sample::{Index, select};
use vswitch::manifest::{Invalid, Problem, Source, Strictness, load};
use vswitch::objects::{Allocations, Plan, Store, compile};

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
    let running = "apiVersion: v1\nkind: Pod\nmetadata: {name: running}\nspec: {containers: [{name: c}]}\n";
    let lab = InMemory::start("bad", running);
    let (plane, kept) = (&lab.plane, lab.kept());
    let cluster = plane.runtime().cluster();
    for (path, source, _) in corpus() {
        assert!(plane.apply(&[source], Strictness::Strict).is_err(), "{}", path.display());
        assert_eq!(plane.runtime().cluster(), cluster, "{}", path.display());
        assert!(lab.kept() == kept, "{}", path.display());
    }
    lab.stop();
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

/// What stands where something else is expected.
const WORDS: [&str; 45] = [
    "0",
    "-1",
    "1",
    "80",
    "65535",
    "65536",
    "4294967296",
    "99999999999999999999",
    "1.5",
    "''",
    "null",
    "[]",
    "{}",
    "true",
    "None",
    "UDP",
    "SCTP",
    "Local",
    "Cluster",
    "ClientIP",
    "LoadBalancer",
    "NodePort",
    "ExternalName",
    "RequireDualStack",
    "IPv4",
    "IPv6",
    "web",
    "10.96.0.1",
    "10.96.7.7",
    "'fd00:10:96::77'",
    "10.96.0.0/12",
    "0.0.0.0/0",
    "'::/0'",
    "10.20.30.9-10.20.30.1",
    "'fd00::1-10.0.0.1'",
    "0.0.0.0-255.255.255.255",
    "In",
    "NotIn",
    "Exists",
    "Like",
    "Egress",
    "Accept",
    "Pass",
    "Baseline",
    "192.0.2.0/24",
];

/// The text with other words in some places; of a place that is taken twice, the last counts.
fn with_words(text: &str, changes: &[(Index, &str)]) -> String {
    let is_word = |c: char| c.is_ascii_alphanumeric() || "./-".contains(c);
    let begins = |at: usize| text[at..].starts_with(is_word) && !text[..at].ends_with(is_word);
    let starts: Vec<usize> = (0..text.len()).filter(|&at| begins(at)).collect();
    let changed: BTreeMap<usize, &str> =
        changes.iter().map(|(at, word)| (starts[at.index(starts.len())], *word)).collect();
    let mut out = text.to_owned();
    for (at, word) in changed.into_iter().rev() {
        let end = at + text[at..].find(|c| !is_word(c)).unwrap_or(text.len() - at);
        out.replace_range(at..end, word);
    }
    out
}

/// Reads a text and plans its Services; then once more, as after a start on what was kept.
fn plan(source: &Source, strictness: Strictness) -> Result<(), Vec<String>> {
    let place = |problem: &Problem| {
        assert!((1..=source.text.lines().count() + 1).contains(&(problem.mark.line as usize)), "{problem}");
        problem.to_string()
    };
    let told = |invalid: Invalid| -> Vec<String> {
        assert!(!invalid.problems.is_empty());
        invalid.problems.iter().map(place).collect()
    };
    let mut store = Store::default();
    store.apply(load(std::slice::from_ref(source), strictness).map_err(told)?);
    let cluster = compile(&store, &Allocations::default(), "lab").map_err(told)?.cluster;
    let first = Plan::default().change(&store, None, &cluster, &BTreeMap::new()).map_err(told)?;
    let kept = first.plan.allocations();
    let again = Plan::default().change(&store, None, &cluster, &kept).map_err(told)?;
    assert_eq!(again.plan.allocations(), kept, "what was given stays given");
    Ok(())
}

/// Objects of the corpus, with other words in some places.
fn read_or_told(files: &[&str], changes: &[(Index, &str)], lenient: bool) {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/corpus/manifest");
    let text = files.iter().map(|file| fs::read_to_string(directory.join(file)).unwrap());
    let text = text.collect::<Vec<String>>().join("---\n");
    let source = |text: &str| Source { name: "objects".into(), text: text.to_owned() };
    assert_eq!(plan(&source(&text), Strictness::Strict), Ok(()));
    let _ = plan(&source(&with_words(&text, changes)), Strictness::lenient_if(lenient));
}

proptest! {
    /// Services, slices and pools are read or told with a place, whatever stands in them.
    #[test]
    fn whatever_stands_in_a_service_is_read_or_told(
        changes in proptest::collection::vec((any::<Index>(), select(&WORDS[..])), 0..4), lenient: bool,
    ) {
        let files = ["service.yaml", "service-names.yaml", "endpoint-slice.yaml", "address-pool.yaml"];
        read_or_told(&files, &changes, lenient);
    }

    /// Policies, too.
    #[test]
    fn whatever_stands_in_a_policy_is_read_or_told(
        changes in proptest::collection::vec((any::<Index>(), select(&WORDS[..])), 0..4), lenient: bool,
    ) {
        read_or_told(&["network-policy.yaml", "cluster-network-policy.yaml"], &changes, lenient);
    }
}
