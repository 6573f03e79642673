//! Port numbers that stay.

use std::collections::{BTreeMap, BTreeSet};

use netstack::addr::PortId;

/// Numbers per switch that are given out anew before any is given out twice. A switch counts per number, so whoever comes
/// after somebody who left starts from zero as long as there is room.
const FRESH: u16 = 4096;

/// The port numbers of all switches by what is plugged in, so that a change of the cluster renumbers nobody.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct PortNumbers {
    switches: BTreeMap<String, Numbers>,
}

#[derive(Clone, Debug, PartialEq, Eq, Default)]
struct Numbers {
    by_name: BTreeMap<String, PortId>,
    next: u16,
    /// Names asked for since the last [`PortNumbers::sweep`].
    asked: BTreeSet<String>,
}

impl PortNumbers {
    /// The number of `name` on `switch`: the one it has, else a new one.
    pub(super) fn number(&mut self, switch: &str, name: &str) -> PortId {
        let numbers = self.switches.entry(switch.to_owned()).or_default();
        numbers.asked.insert(name.to_owned());
        if let Some(&id) = numbers.by_name.get(name) {
            return id;
        }
        let id = if numbers.next < FRESH {
            numbers.next += 1;
            PortId(numbers.next - 1)
        } else {
            let used: BTreeSet<u16> = numbers.by_name.values().map(|id| id.0).collect();
            let free = (0..u16::MAX).find(|id| !used.contains(id));
            PortId(free.unwrap_or(u16::MAX))
        };
        numbers.by_name.insert(name.to_owned(), id);
        id
    }

    /// Takes back the numbers of all that was not asked for since the last time.
    pub(super) fn sweep(&mut self) {
        for numbers in self.switches.values_mut() {
            let asked = std::mem::take(&mut numbers.asked);
            numbers.by_name.retain(|name, _| asked.contains(name));
        }
        self.switches.retain(|_, numbers| !numbers.by_name.is_empty());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_stays_and_is_not_soon_somebody_elses() {
        let mut numbers = PortNumbers::default();
        assert_eq!(
            (numbers.number("n", "a"), numbers.number("n", "b"), numbers.number("m", "b")),
            (PortId(0), PortId(1), PortId(0))
        );
        numbers.sweep();
        assert_eq!(numbers.number("n", "b"), PortId(1));
        numbers.sweep();
        assert_eq!((numbers.number("n", "a"), numbers.number("n", "b")), (PortId(2), PortId(1)));
        numbers.sweep();
        for n in 0..2 * FRESH {
            numbers.number("n", "b");
            let id = numbers.number("n", &format!("x{n}"));
            assert!(id.0 < FRESH && id != PortId(1), "{n}: {id}");
            numbers.sweep();
        }
    }
}
