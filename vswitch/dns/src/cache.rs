//! What others have said lately.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use crate::answer::Foreign;
use crate::forward::Known;
use crate::name::DomainName;

/// What is remembered an answer by: name, type, and whether signatures were asked for.
type Key = (DomainName, u16, bool);

/// Answers of others, so many at the most; the oldest make room.
#[derive(Debug)]
pub struct Cache {
    most: usize,
    answers: HashMap<Key, (Arc<Known>, Duration)>,
    order: VecDeque<(Key, Duration)>,
}

impl Cache {
    /// An empty one.
    pub fn new(most: usize) -> Self {
        Self { most, answers: HashMap::new(), order: VecDeque::new() }
    }

    fn key(foreign: &Foreign) -> Key {
        (foreign.name().clone(), foreign.question.record_type(), foreign.question.dnssec_ok())
    }

    /// What is remembered, and how many seconds ago it was said.
    pub fn get(&mut self, now: Duration, foreign: &Foreign) -> Option<(Arc<Known>, u32)> {
        let (known, said) = self.answers.get(&Self::key(foreign))?;
        let age = now.saturating_sub(*said).as_secs();
        let age = u32::try_from(age).ok().filter(|age| *age < known.ttl())?;
        Some((Arc::clone(known), age))
    }

    /// Remembers an answer, if it may be told again.
    pub fn put(&mut self, now: Duration, foreign: &Foreign, known: &Arc<Known>) {
        if known.ttl() == 0 || self.most == 0 {
            return;
        }
        let key = Self::key(foreign);
        self.answers.insert(key.clone(), (Arc::clone(known), now));
        self.order.push_back((key, now));
        while self.answers.len() > self.most || self.order.len() > 2 * self.most {
            let Some((key, said)) = self.order.pop_front() else { break };
            // One that was said again since then stays.
            if self.answers.get(&key).is_some_and(|(_, latest)| *latest == said) {
                self.answers.remove(&key);
            }
        }
    }

    /// How many answers are remembered.
    pub fn len(&self) -> usize {
        self.answers.len()
    }

    /// Whether none are.
    pub fn is_empty(&self) -> bool {
        self.answers.is_empty()
    }

    /// Forgets everything: others may be asked from now on.
    pub fn clear(&mut self) {
        self.answers.clear();
        self.order.clear();
    }
}
