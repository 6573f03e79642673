//! The objects by name.

use std::fmt;
use std::sync::Arc;

use rpds::RedBlackTreeMapSync;
use serde::{Deserialize, Serialize};

use manifest::{Invalid, Key, Located, Manifests, Object, Problem, Source, Strictness, load};

use super::policies::ReadPolicies;

/// What became of one object.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Change {
    /// It is new.
    Created,
    /// It was there, and differed.
    Configured,
    /// It was there, the same.
    Unchanged,
    /// It is gone.
    Deleted,
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Created => "created",
            Self::Configured => "configured",
            Self::Unchanged => "unchanged",
            Self::Deleted => "deleted",
        })
    }
}

/// What became of each object, in the order of the manifests.
pub type Changes = Vec<(Key, Change)>;

/// Every object that the user wants. A clone costs next to nothing, and a change what it changes.
#[derive(Clone, Debug, Default)]
pub struct Store {
    objects: RedBlackTreeMapSync<Key, Arc<Located>>,
    /// What its policies, and those of its clones, were read to say.
    pub(super) read: Arc<ReadPolicies>,
}

impl Store {
    /// Every object, in order of kind, namespace and name.
    pub fn iter(&self) -> impl Iterator<Item = &Located> {
        self.objects.values().map(AsRef::as_ref)
    }

    /// Every object of a kind, in order of namespace and name.
    pub fn of_kind(&self, kind: &'static str) -> impl Iterator<Item = &Located> {
        self.shared(kind).map(|(_, located)| located.as_ref())
    }

    /// The same as they are in memory, for whoever keeps what it made of them.
    pub(super) fn shared(&self, kind: &'static str) -> impl Iterator<Item = (&Key, &Arc<Located>)> {
        let first = Key { kind, namespace: String::new(), name: String::new() };
        self.objects.range(first..).take_while(move |(key, _)| key.kind == kind)
    }

    /// What tells every object from every other.
    pub fn keys(&self) -> impl Iterator<Item = &Key> {
        self.objects.keys()
    }

    /// One object.
    pub fn get(&self, key: &Key) -> Option<&Located> {
        self.objects.get(key).map(AsRef::as_ref)
    }

    /// Puts in an object that was kept.
    pub fn put(&mut self, located: Located) {
        self.objects.insert_mut(located.object.key(), Arc::new(located));
    }

    /// Keeps no longer where the fields of these objects stand, which have become of `before` by these changes. One that is
    /// the same goes on as it was.
    pub fn settle<'a>(&mut self, before: &Self, changes: impl IntoIterator<Item = &'a (Key, Change)>) {
        for (key, change) in changes {
            if let (Change::Unchanged, Some(old)) = (change, before.objects.get(key)) {
                self.objects.insert_mut(key.clone(), Arc::clone(old));
            } else if let Some(located) = self.objects.get_mut(key).and_then(Arc::get_mut) {
                located.forget_fields();
            }
        }
    }

    /// Takes out an object that was kept.
    pub fn take(&mut self, key: &Key) {
        self.objects.remove_mut(key);
    }

    /// The objects of all texts, and what is probably not meant as it is written.
    ///
    /// # Errors
    /// Every fault of every text.
    pub fn read(sources: &[Source], strictness: Strictness) -> Result<(Self, Vec<Problem>), Invalid> {
        let mut read = load(sources, strictness)?;
        let warnings = std::mem::take(&mut read.warnings);
        let mut store = Self::default();
        store.apply(read);
        Ok((store, warnings))
    }

    /// Puts in what was read: new objects are added, others replaced.
    pub fn apply(&mut self, manifests: Manifests) -> Changes {
        let mut changes = Changes::new();
        for located in manifests.objects {
            let key = located.object.key();
            let change = match self.objects.get(&key) {
                None => Change::Created,
                Some(old) if old.object == located.object => Change::Unchanged,
                Some(_) => Change::Configured,
            };
            self.objects.insert_mut(key.clone(), Arc::new(located));
            changes.push((key, change));
        }
        changes
    }

    /// Takes out what was read, by name alone.
    ///
    /// # Errors
    /// Every object that is not there; nothing is taken out then.
    pub fn delete(&mut self, manifests: &Manifests) -> Result<Changes, Invalid> {
        let keys = || manifests.objects.iter().map(|located| (located, located.object.key()));
        let missing = keys().filter(|(_, key)| !self.objects.contains_key(key));
        let problems: Vec<_> = missing.map(|(located, _)| located.problem("", "does not exist")).collect();
        if !problems.is_empty() {
            return Err(Invalid::new(problems));
        }
        let deleted: Changes = keys().map(|(_, key)| (key, Change::Deleted)).collect();
        for (key, _) in &deleted {
            self.objects.remove_mut(key);
        }
        Ok(deleted)
    }

    /// Gives a Deployment another number of pods; `None` if there is no such Deployment.
    pub fn scale(&mut self, key: &Key, replicas: i32) -> Option<Changes> {
        let mut located = Located::clone(self.objects.get(key)?);
        let Object::Deployment(deployment) = &mut located.object else { return None };
        let before = deployment.spec.replicas.replace(replicas);
        let change = if before == Some(replicas) { Change::Unchanged } else { Change::Configured };
        self.put(located);
        Some(vec![(key.clone(), change)])
    }

    /// The objects of one kind, through `pick`.
    pub(super) fn of<'a, T: 'a>(
        &'a self,
        pick: impl Fn(&'a Object) -> Option<&'a T> + 'a,
    ) -> impl Iterator<Item = (&'a Located, &'a T)> + 'a {
        self.iter().filter_map(move |located| pick(&located.object).map(|object| (located, object)))
    }
}
