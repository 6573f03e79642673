"""Medians and spreads over rounds, and ratios of what was measured within the same round."""

from dataclasses import dataclass
from statistics import median

from roles import REFERENCE, REFERENCES


@dataclass(frozen=True)
class Spread:
    """A median, the lowest and the highest."""

    middle: float
    low: float
    high: float

    @classmethod
    def of(cls, values):
        return cls(median(values), min(values), max(values)) if values else None


class Results:
    """What a run has measured."""

    def __init__(self, result):
        self.result = result
        self.by_key = {}
        for sample in result["samples"]:
            self.by_key.setdefault((sample["role"], sample["row"]), {})[sample["round"]] = sample

    def of(self, role, row):
        """Samples by round."""
        return self.by_key.get((role, row), {})

    def spread(self, role, row, what="value"):
        return Spread.of([s[what] for s in self.of(role, row).values() if s.get(what) is not None])

    def ratio(self, role, row, to, what="value"):
        """How often the other's figure, round by round."""
        own, other = self.of(role, row), self.of(to, row)
        pairs = [(own[n].get(what), other[n].get(what)) for n in own.keys() & other.keys()]
        return Spread.of([a / b for a, b in pairs if a is not None and b])

    def best(self, roles, row, up):
        """The one of these roles with the best median."""
        medians = {role: self.spread(role, row).middle for role in roles if self.spread(role, row)}
        return (max if up else min)(medians, key=medians.get) if medians else None

    def roles(self):
        """Names and titles of roles that something was measured of."""
        measured = {role for role, _ in self.by_key}
        return [(role["name"], role["title"]) for role in self.result["roles"] if role["name"] in measured]

    def reference(self):
        """What ratios are taken to."""
        return next((name for name, _ in self.roles() if name in REFERENCES), REFERENCE)
