"""The results as Markdown."""

from aims import AIMS, counterpart, reached, why
from bare import EXPECTED
from memory import lines as memory_lines
from roles import REFERENCES
from rows import BY_NAME
from session import AGAIN, BUSY, STOLEN

OURS = ("vswitch", "gateway-vswitch")


def short(value):
    """Three digits that matter."""
    if value >= 100:
        return f"{value:.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def spread(of, digits=short):
    if of is None:
        return "–"
    if of.low == of.high:
        return digits(of.middle)
    return f"{digits(of.middle)} ({digits(of.low)}–{digits(of.high)})"


def table(head, lines):
    return [f"| {' | '.join(line)} |" for line in [head, ["---"] * len(head), *lines]] + [""]


def bold(name, title):
    return f"**{title}**" if name.startswith(OURS) else title


def ratio_cell(results, role, row):
    ratio = results.ratio(role, row.name, results.reference())
    return "–" if ratio is None else f"{ratio.middle:.2f}"


def overview(results, rows):
    head = ["", *(row.title for row in rows)]
    lines = [[bold(name, title), *(ratio_cell(results, name, row) for row in rows)] for name, title in results.roles()]
    return table(head, lines)


def row_table(results, row):
    """A row's figures of every role, best first."""
    measured = [(name, title) for name, title in results.roles() if results.spread(name, row.name)]
    measured.sort(key=lambda role: results.spread(role[0], row.name).middle, reverse=row.up)
    lines = []
    for name, title in measured:
        samples = results.of(name, row.name).values()
        lines.append(
            [
                bold(name, title),
                spread(results.ratio(name, row.name, results.reference()), "{:.2f}".format),
                spread(results.spread(name, row.name)),
                spread(results.spread(name, row.name, "cpu")),
                *(counted(samples, what) for what in ("drops", "retransmits")),
                f"{max(sample.get('steal', 0) for sample in samples):.2f}",
            ]
        )
    head = ["", f"of {REFERENCES[results.reference()]}", row.unit, f"CPU s per {row.work}", "dropped", "retransmitted", "steal, s"]
    return table(head, lines)


def counted(samples, what):
    values = [sample.get(what, 0) + (sample.get("receive_buffer", 0) if what == "drops" else 0) for sample in samples]
    return f"{sorted(values)[len(values) // 2]:,}"


def aims_table(results):
    lines = []
    for aim in AIMS:
        found = reached(aim, results, BY_NAME[aim.row].up)
        if found is None:
            continue
        than, ratio, holds = found
        bound = f"{'≤' if aim.at_most else '≥'} {aim.factor:g} x"
        words = aim.what if not aim.what.startswith("Ahead") else f"{aim.what}: {BY_NAME[aim.row].title}"
        lines.append([words, than, bound, spread(ratio, "{:.2f}".format), "holds" if holds else "**missed**"])
    return table(["aim", "held against", "aimed at", "reached", ""], lines)


def lost(results, rows):
    """Every row in which somebody is ahead of what does the same of ours, by reason."""
    lines = []
    for row in rows:
        reasons = {}
        for name, title in results.roles():
            ours = counterpart(name)
            ratio = None if name.startswith(OURS) else results.ratio(name, row.name, ours)
            if ratio and (ratio.middle > 1 if row.up else ratio.middle < 1):
                told = f"{title} ({ratio.middle:.2f} x `{ours}`)"
                reasons.setdefault(why(name, row.name), []).append(told)
        lines += [f"- {row.title}: {', '.join(told)}{f': {reason}' if reason else ''}." for reason, told in reasons.items()]
    return lines or ["None."]


def bare_check(results):
    """Whether the forwarder reaches what it reached elsewhere, as a ratio to the kernel, within a tenth."""
    lines = []
    for (role, row), expected in EXPECTED.items():
        ratio = results.ratio(role, row, results.reference())
        if ratio:
            off = ratio.middle / expected - 1
            mark = " !" if abs(off) > 0.1 else ""
            lines.append([role, row, f"{expected:.2f}", spread(ratio, "{:.2f}".format), f"{off:+.0%}{mark}"])
    return table(["forwarder", "row", "elsewhere", "here", "off by"], lines) if lines else []


def disturbed(result):
    """A warning for who reads the figures of a machine that had other work to do."""
    if result["background"] <= BUSY:
        return []
    return ["**The machine had other work to do: neither figures nor processor times are to be trusted.**", ""]


def stolen(samples):
    """How many figures the hypervisor has spoilt."""
    again = sum(1 for sample in samples if sample.get("again"))
    kept = sum(1 for sample in samples if sample.get("stolen", 0) > STOLEN)
    if not again:
        return []
    return [
        f"- taken by the hypervisor: of {len(samples)} figures {again} were measured again, up to {AGAIN} times, because others "
        f"had more than {STOLEN:.0%} of the processors meanwhile; of {kept} that is true of the best try as well",
        "",
    ]


def machine_lines(result):
    return [f"- {name}: {value}" for name, value in result["machine"].items()]


def rounds_of(result):
    """How often each role was measured: not all as often where runs were put together."""
    rounds = {}
    for sample in result["samples"]:
        rounds.setdefault(sample["role"], set()).add(sample["round"])
    counts = {len(numbers) for numbers in rounds.values()} or {0}
    most, least = max(counts), min(counts)
    return f"{most} rounds" if most == least else f"{least} to {most} rounds"


def markdown(results, plots):
    result, kernel = results.result, REFERENCES[results.reference()]
    rows = [BY_NAME[name] for name in result["rows"]]
    text = [
        "# Peers, side by side",
        "",
        "Written by `benches/peers/run`, which [says](peers/README.md) what is measured and how; "
        "anyone can repeat it on a Debian machine.",
        "",
        f"{result['date']}, {rounds_of(result)} of every role in turn, {result['seconds']:g} s for each figure. A ratio is "
        f"taken within a round, to {kernel} of the same round. A figure is the median of the rounds, in "
        "parentheses the lowest and the highest. Processor time is that of the whole machine: both ends, whatever is "
        "between them, interrupts.",
        "",
        *machine_lines(result),
        f"- busy with other things before a role began: {result['background']:.1%} of a processor at most",
        *stolen(result["samples"]),
        "",
        *disturbed(result),
        f"## As ratios to {kernel}",
        "",
        "More is better, but for ping.",
        "",
        *overview(results, rows),
    ]
    if any(name.startswith(OURS) for name, _ in results.roles()):
        text += ["## Held against what is aimed at", "", *aims_table(results)]
        text += ["## Where others are ahead", "", *lost(results, rows), ""]
    for row in rows:
        if any(results.spread(name, row.name) for name, _ in results.roles()):
            text += [f"## {row.title}", ""]
            text += [f"![{row.title}]({plots}/{row.name}.svg)", ""] if plots else []
            text += row_table(results, row)
    check = bare_check(results)
    if check:
        text += [
            "## The bare forwarder beside itself",
            "",
            "Ratios to the kernel's bridge, beside those of another machine with two processors: where they are more than a "
            "tenth apart (`!`), this forwarder is no bound to trust before that is understood.",
            "",
            *check,
        ]
    text += in_memory(result.get("memory", []))
    text += missing(result)
    return "\n".join(text).rstrip() + "\n"


def in_memory(samples):
    if not samples:
        return []
    head = ["", "for a frame", "millions a second", "aimed at"]
    rounds = 1 + max(sample["round"] for sample in samples)
    return [
        "## In memory",
        "",
        f"Frames of 64 octets on one thread, without devices and system calls; medians of {rounds} rounds. Ours are copied from "
        "a template into a slab, handed over 32 at a time and taken out again ([what each is](README.md)); those of "
        "DPDK's testpmd go round between two memifs of one process, 64 at a time.",
        "",
        *table(head, memory_lines(samples)),
    ]


def missing(result):
    lines = [f"- {role}: {why}" for role, why in result["skipped"].items()]
    lines += [f"- {f['role']} {f['row']}, round {f['round'] + 1}: {f['why']}" for f in result["failures"]]
    return ["## Not measured", "", *lines, ""] if lines else []
