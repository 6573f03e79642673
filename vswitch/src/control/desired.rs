//! What is wanted, kept in the state directory.
//!
//! # Theory of operation
//! Two files. `desired.json` is a manifest of the kind List with every object, and with what was given out beside them; it
//! is replaced as a whole when a cluster starts and ends. In between each change is one line at the end of
//! `desired.journal`: the objects that it sets and takes away, and what was given out or taken back. So a change costs what
//! it changes, however much there is. A line counts once its end is there: a process that is killed leaves either the
//! change or nothing of it. A journal that has grown long is taken in early. Its first line says which list it goes on
//! from, by a digest: one that was left behind because its end came before that of the list it was taken into counts for
//! nothing.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::sync::Arc;

use manifest::parallel::each;
use manifest::{Key, Located};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use sha2::{Digest as _, Sha256};

use crate::objects::{Allocation, Allocations, Plan, Store};
use crate::service;
use crate::state::{StatePaths, write_atomically};

/// How messages call a manifest that was kept.
const FILE: &str = "the state directory";
/// Octets of a journal that are not yet worth to be taken in; besides, it may be twice as long as the list.
const SHORT: u64 = 16 << 20;

/// What a list's journal begins with.
fn heading(list: &str) -> String {
    let digest = Sha256::digest(list).iter().take(16).map(|octet| format!("{octet:02x}")).collect::<String>();
    format!("{digest}\n")
}

/// What is wanted. A clone costs next to nothing.
#[derive(Clone, Debug, Default)]
pub struct Desired {
    /// Objects.
    pub store: Store,
    /// What nodes and pods were given; and, until the cluster stands, what Services had in an earlier life.
    pub allocations: Arc<Allocations>,
    /// Services, and what they were given.
    pub plan: Plan,
}

/// The list, as it is read.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct List<'a> {
    #[serde(borrow)]
    items: Vec<&'a RawValue>,
    allocations: Allocations,
}

/// A line of the journal.
#[derive(Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Line<'a> {
    #[serde(skip_serializing, borrow)]
    set: Vec<&'a RawValue>,
    /// Kind, namespace and name.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    taken: Vec<[String; 3]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    nodes: Option<BTreeMap<String, Allocation>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pods: Option<BTreeMap<String, Allocation>>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    services: BTreeMap<String, Option<service::Allocation>>,
}

fn wrong(message: impl std::fmt::Display) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, message.to_string())
}

fn unless_missing(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        Ok(()) | Err(_) => Ok(()),
    }
}

fn read_if_there(path: &std::path::Path) -> io::Result<Option<String>> {
    match fs::read_to_string(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        other => other.map(Some),
    }
}

fn put(store: &mut Store, kept: &[&RawValue]) -> io::Result<()> {
    let texts: Vec<&str> = kept.iter().map(|text| text.get()).collect();
    Located::kept(&texts, &FILE.into()).map_err(wrong)?.into_iter().for_each(|located| store.put(located));
    Ok(())
}

impl Desired {
    /// What an earlier process wanted; nothing if there was none.
    ///
    /// # Errors
    /// When a file cannot be read, or is not as it was written.
    pub fn read(state: &StatePaths) -> io::Result<Self> {
        let mut store = Store::default();
        let list = read_if_there(&state.desired())?;
        let list = list.unwrap_or_default();
        let List { items, mut allocations } = match list.is_empty() {
            true => List::default(),
            false => serde_json::from_str(&list)?,
        };
        put(&mut store, &items)?;
        let journal = read_if_there(&state.journal())?.unwrap_or_default();
        let changes = journal.strip_prefix(&heading(&list)).unwrap_or_default();
        for line in changes.split_inclusive('\n').filter_map(|line| line.strip_suffix('\n')) {
            let line: Line<'_> = serde_json::from_str(line)?;
            for [kind, namespace, name] in &line.taken {
                store.take(&Key::new(kind, namespace, name).ok_or_else(|| wrong(format!("no kind {kind}")))?);
            }
            put(&mut store, &line.set)?;
            allocations.nodes = line.nodes.unwrap_or(allocations.nodes);
            allocations.pods = line.pods.unwrap_or(allocations.pods);
            for (name, given) in line.services {
                match given {
                    Some(given) => allocations.services.insert(name, given),
                    None => allocations.services.remove(&name),
                };
            }
        }
        Ok(Self { store, allocations: Arc::new(allocations), plan: Plan::default() })
    }

    /// Removes all that is kept of a cluster in the state directory, the logs of its containers included.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn remove(state: &StatePaths) -> io::Result<()> {
        unless_missing(fs::remove_file(state.desired()))?;
        unless_missing(fs::remove_file(state.journal()))?;
        unless_missing(fs::remove_dir_all(state.logs()))
    }

    /// As a manifest of the kind List, an object a line.
    fn to_list(&self) -> serde_json::Result<String> {
        let given =
            Allocations { services: self.plan.allocations(), ..Allocations::clone(&self.allocations) };
        let mut text = r#"{"apiVersion":"v1","kind":"List","items":["#.to_owned();
        let objects: Vec<&Located> = self.store.iter().collect();
        for (index, object) in each(&objects, |located| located.object.to_text()).into_iter().enumerate() {
            text.push_str(if index == 0 { "\n" } else { ",\n" });
            text.push_str(&object?);
        }
        text.push_str("\n],\"allocations\":");
        text.push_str(&serde_json::to_string(&given)?);
        text.push_str("}\n");
        Ok(text)
    }

    /// The line that makes `before` this, if the objects that differ are among `keys`.
    fn line(&self, before: &Self, keys: &[Key]) -> serde_json::Result<String> {
        let mut line = Line::default();
        let mut objects: Vec<&Located> = Vec::new();
        for key in keys {
            match self.store.get(key) {
                Some(located) => objects.push(located),
                None => line.taken.push([key.kind.to_owned(), key.namespace.clone(), key.name.clone()]),
            }
        }
        let objects = each(&objects, |located| located.object.to_text());
        let objects: Vec<String> = objects.into_iter().collect::<serde_json::Result<_>>()?;
        if !Arc::ptr_eq(&self.allocations, &before.allocations) {
            line.nodes = Some(self.allocations.nodes.clone());
            line.pods = Some(self.allocations.pods.clone());
        }
        for key in keys.iter().filter(|key| key.kind == "Service") {
            let name = format!("{}/{}", key.namespace, key.name);
            let given = |desired: &Self| {
                desired.plan.services.get(name.as_str()).map(|planned| planned.allocation.clone())
            };
            if given(self) != given(before) {
                line.services.insert(name.clone(), given(self));
            }
        }
        let rest = serde_json::to_string(&line)?;
        let rest = rest.trim_start_matches('{');
        let comma = if rest == "}" { "" } else { "," };
        Ok(format!("{{\"set\":[{}]{comma}{rest}\n", objects.join(",")))
    }
}

/// Keeps what is wanted, from a cluster's start to its end.
#[derive(Debug)]
pub(super) struct Keeper {
    state: StatePaths,
    journal: File,
    /// Octets of the journal, and how many there may be.
    length: u64,
    most: u64,
}

impl Keeper {
    /// Begins with all of it.
    ///
    /// # Errors
    /// Those of the file system.
    pub(super) fn begin(state: &StatePaths, desired: &Desired) -> io::Result<Self> {
        let text = desired.to_list()?;
        let heading = heading(&text);
        if read_if_there(&state.journal())?.is_some_and(|journal| journal.starts_with(&heading)) {
            // The list has not changed, and what its journal says would count on.
            unless_missing(fs::remove_file(state.journal()))?;
        }
        write_atomically(&state.desired(), text.as_bytes())?;
        unless_missing(fs::remove_file(state.journal()))?;
        let mut journal = OpenOptions::new().append(true).create(true).mode(0o600).open(state.journal())?;
        journal.write_all(heading.as_bytes())?;
        let length = u64::try_from(heading.len()).unwrap_or(0);
        let most = SHORT.max(2 * u64::try_from(text.len()).unwrap_or(u64::MAX / 2));
        Ok(Self { state: state.clone(), journal, length, most })
    }

    /// Writes a list that no journal goes on from.
    pub(super) fn end(state: &StatePaths, desired: &Desired) -> io::Result<()> {
        drop(Self::begin(state, desired)?);
        unless_missing(fs::remove_file(state.journal()))
    }

    /// Adds a change of the objects that have these keys.
    ///
    /// # Errors
    /// Those of the file system; nothing is added then.
    pub(super) fn add(&mut self, before: &Desired, after: &Desired, keys: &[Key]) -> io::Result<()> {
        if self.length > self.most || keys.iter().any(|key| key.kind == "Cluster") {
            // Addresses of all Services may have changed.
            *self = Self::begin(&self.state.clone(), after)?;
            return Ok(());
        }
        let line = after.line(before, keys)?;
        let written = self.journal.write_all(line.as_bytes()).and_then(|()| self.journal.sync_data());
        match written {
            Ok(()) => self.length += u64::try_from(line.len()).unwrap_or(0),
            // Half a line would spoil the next one: if it cannot be taken back, the next change takes the journal in.
            Err(_) if self.journal.set_len(self.length).is_ok() => {}
            Err(_) => self.length = u64::MAX,
        }
        written
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use manifest::{Source, Strictness, load};

    use super::*;

    fn scratch(name: &str) -> (PathBuf, StatePaths) {
        let path = std::env::temp_dir().join(format!("vswitch-desired-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).unwrap();
        (path.clone(), StatePaths::new(path))
    }

    /// The same with what the text says, and the keys of that.
    fn with(desired: &Desired, text: &str) -> (Desired, Vec<Key>) {
        let source = Source { name: "x.yaml".into(), text: text.to_owned() };
        let mut next = desired.clone();
        let changes = next.store.apply(load(&[source], Strictness::Strict).unwrap());
        let keys: Vec<Key> = changes.into_iter().map(|(key, _)| key).collect();
        let compiled = crate::objects::compile(&next.store, &next.allocations, "lab").unwrap();
        next.allocations = Arc::new(compiled.allocations);
        let remembered = BTreeMap::new();
        next.plan = next.plan.change(&next.store, Some(&keys), &compiled.cluster, &remembered).unwrap().plan;
        (next, keys)
    }

    fn assert_kept(state: &StatePaths, desired: &Desired) {
        let read = Desired::read(state).unwrap();
        let objects = |d: &Desired| d.store.iter().map(|l| l.object.to_text().unwrap()).collect::<Vec<_>>();
        assert_eq!(objects(&read), objects(desired));
        let expected =
            Allocations { services: desired.plan.allocations(), ..Allocations::clone(&desired.allocations) };
        assert_eq!(*read.allocations, expected);
    }

    const POD: &str = "apiVersion: v1\nkind: Pod\nmetadata: {name: p}\nspec: {containers: [{name: c}]}\n";
    const CLUSTER: &str = "apiVersion: vswitch/v1alpha1\nkind: Cluster\n";
    const SERVICE: &str = "apiVersion: v1\nkind: Service\nmetadata: {name: s}\nspec: {ports: [{port: 80}]}\n";

    #[test]
    fn what_was_wanted_is_read_again_after_every_change_and_half_a_line_counts_for_nothing() {
        let (path, state) = scratch("journal");
        let (first, _) = with(&Desired::default(), &format!("{CLUSTER}---\n{POD}"));
        let mut keeper = Keeper::begin(&state, &first).unwrap();
        assert_kept(&state, &first);
        let (second, keys) = with(&first, SERVICE);
        keeper.add(&first, &second, &keys).unwrap();
        assert_kept(&state, &second);
        let (third, keys) = with(&second, &POD.replace("name: p", "name: q"));
        keeper.add(&second, &third, &keys).unwrap();
        assert_kept(&state, &third);
        // A process that is killed while it writes.
        let whole = fs::read_to_string(state.journal()).unwrap();
        assert_eq!(whole.lines().count(), 3);
        fs::write(state.journal(), &whole[..whole.len() - 1]).unwrap();
        assert_kept(&state, &second);
        fs::write(state.journal(), &whole).unwrap();
        // Taken back, and taken in while the old journal is still there.
        keeper.add(&third, &second, &keys).unwrap();
        assert_kept(&state, &second);
        let journal = fs::read_to_string(state.journal()).unwrap();
        drop(Keeper::begin(&state, &second).unwrap());
        fs::write(state.journal(), journal).unwrap();
        assert_kept(&state, &second);
        fs::remove_dir_all(path).unwrap();
    }

    /// A process that is killed after it has written a new list, and before it has removed what that has taken in.
    #[test]
    fn what_a_journal_of_another_list_says_is_not_done_again() {
        let (path, state) = scratch("left-behind");
        let (first, _) = with(&Desired::default(), CLUSTER);
        let (second, keys) = with(&first, SERVICE);
        let mut keeper = Keeper::begin(&state, &first).unwrap();
        keeper.add(&first, &second, &keys).unwrap();
        let journal = fs::read_to_string(state.journal()).unwrap();
        // The change that has the journal taken in removes the Service again.
        let (third, _) = with(&first, POD);
        drop(Keeper::begin(&state, &third).unwrap());
        fs::write(state.journal(), &journal).unwrap();
        assert_kept(&state, &third);
        // The list is what it was, to the octet.
        drop(Keeper::begin(&state, &first).unwrap());
        fs::write(state.journal(), journal).unwrap();
        drop(Keeper::begin(&state, &first).unwrap());
        assert_kept(&state, &first);
        fs::remove_dir_all(path).unwrap();
    }

    #[test]
    fn a_change_that_could_not_be_written_does_not_spoil_the_next() {
        let (path, state) = scratch("refused");
        let (first, _) = with(&Desired::default(), CLUSTER);
        let (second, keys) = with(&first, SERVICE);
        let mut keeper = Keeper::begin(&state, &first).unwrap();
        // A disk that is full takes half of the line, and then even refuses to give it back.
        let half = fs::read_to_string(state.journal()).unwrap() + "{\"set\":[";
        fs::write(state.journal(), half).unwrap();
        let refusing = std::mem::replace(&mut keeper.journal, File::open(state.journal()).unwrap());
        keeper.add(&first, &second, &keys).unwrap_err();
        assert_kept(&state, &first);
        keeper.journal = refusing;
        keeper.add(&first, &second, &keys).unwrap();
        assert_kept(&state, &second);
        fs::remove_dir_all(path).unwrap();
    }
}
