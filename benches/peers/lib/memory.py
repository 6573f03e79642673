"""In memory: what the switch takes for a frame without devices and system calls, beside DPDK's testpmd between two memifs."""

import re
import subprocess
import tempfile
from dataclasses import dataclass
from statistics import median

from machine import Failed
from stats import Results

# What `--only` calls it.
NAME = "memory"
PROGRAM = "dpdk-testpmd"
# Turns of each piece of work in a round.
TURNS = 100
# Seconds that testpmd forwards for a figure, and seconds of waiting for anything at most.
FORWARDING, PATIENCE = 4, 600
BURST = 64
RATE = re.compile(r"Rx-pps:\s+(\d+)")


@dataclass(frozen=True)
class Piece:
    """A figure: nanoseconds for a frame, or for what the title says."""

    name: str
    title: str
    # How much it may take, and what it is held against: which other, and how often the other's time it may take.
    most: float | None = None
    than: tuple = ()


MODES = {"testpmd-io": "io", "testpmd-mac": "mac", "testpmd-5tuple": "5tswap"}
AHEAD = (("testpmd-mac", 1.0), ("testpmd-5tuple", 1.0))
# Flows that are known when the configuration changes, and what changes.
FLOWS = 100_000
CHANGES = {"route": "a route more or less", "pod": "a pod more or less", "mtu": "another MTU, which may concern every flow"}

PIECES = [
    *(Piece(name, f"testpmd over memif, {mode}") for name, mode in MODES.items()),
    Piece("flows/null/1", "a switch that does nothing: the price of the measurement"),
    Piece("flows/l2/1", "bridged, 1 flow"),
    Piece("flows/l2/4096", "bridged, 4,096 flows", 25, AHEAD),
    Piece("flows/l3/1", "routed, 1 flow"),
    Piece("flows/l3/8000", "routed, 8,000 flows", 33, AHEAD),
    Piece("flows/snat/8000", "masqueraded, 8,000 flows"),
    Piece("flows/vip/1", "through a service, 1 flow"),
    Piece("flows/vip/8000", "through a service, 8,000 flows", 40, AHEAD),
    Piece("flows/vip/100000", "through a service, 100,000 flows", 67),
    Piece("flows/vip/1000000", "through a service, 1,000,000 flows", 125),
    Piece("flows/vip/10000000", "through a service, 10,000,000 flows", 200),
    Piece("services/packet/1", "a known flow, 1 service"),
    Piece("services/packet/10000", "a known flow, 10,000 services", None, (("services/packet/1", 1.03),)),
    Piece("services/packet/1/routes", "a known flow, 1,000 routes more", None, (("services/packet/1", 1.03),)),
    Piece("services/new/1", "first packet of a connection, 1 service", 500),
    Piece("services/new/10000", "first packet of a connection, 10,000 services", None, (("services/new/1", 1.1),)),
    Piece("services/new/1/routes", "first packet of a connection, 1,000 routes more", None, (("services/new/1", 1.1),)),
    *(Piece(f"swap/install/{FLOWS}/{change}", f"`install` among {FLOWS:,} flows, {what}", 50_000) for change, what in CHANGES.items()),
    *(
        Piece(f"recovery {change}", f"until the rate of {FLOWS:,} flows is back within 5 %, {what}", 100_000_000)
        for change, what in CHANGES.items()
    ),
]
BY_NAME = {piece.name: piece for piece in PIECES}


def run(words):
    try:
        done = subprocess.run(words, capture_output=True, text=True, timeout=PATIENCE, check=False)
    except (OSError, subprocess.TimeoutExpired) as why:
        raise Failed(f"{words[0]}: {why}") from why
    if done.returncode:
        raise Failed(f"{words[0]} ended with status {done.returncode}: {done.stderr.strip()[-300:]}")
    return done.stdout


def testpmd(mode):
    """Nanoseconds for a frame: bursts go round between two memifs of one process, one thread forwards in both directions."""
    with tempfile.TemporaryDirectory() as directory:
        ends = [
            f"--vdev=net_memif{n},role={role},id=0,socket={directory}/memif.sock,socket-abstract=no"
            for n, role in enumerate(("server", "client"))
        ]
        machine = ["-l", "0,1", "--main-lcore=0", "--no-huge", "-m", "512", "--no-pci", f"--file-prefix=peers-{mode}", *ends]
        forwarding = ["--nb-cores=1", f"--forward-mode={mode}", "--auto-start", "--tx-first", f"--burst={BURST}"]
        memory = ["--total-num-mbufs=16384", "--rxd=1024", "--txd=1024", "--stats-period=1"]
        words = ["timeout", "--signal=INT", str(FORWARDING + 3), PROGRAM, *machine, "--", *forwarding, *memory]
        # It is told to end, and says so with its status.
        done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False, stdin=subprocess.DEVNULL)
    ports = [int(rate) for rate in RATE.findall(done.stdout)]
    # The first seconds are those in which it begins.
    seconds = [sum(pair) for pair in zip(ports[::2], ports[1::2])][2:]
    if len(seconds) < 2 or not median(seconds):
        raise Failed(f"testpmd has forwarded nothing: {(done.stdout + done.stderr).strip()[-300:]}")
    return 1e9 / median(seconds)


def ours(benches, name):
    """Nanoseconds for a piece of work, by itself: what takes turns with the largest tables finds caches that are theirs."""
    said = run([str(benches / "compare"), "--rounds", str(TURNS), name])
    lines = [line.split() for line in said.splitlines()]
    times = [float(words[3]) for words in lines if words and words[0] == name]
    if len(times) != 1:
        raise Failed(f"no figure of {name}")
    return times[0]


def recovery(benches):
    """Nanoseconds from a change of the configuration until frames go as fast as before, by what changes."""
    lines = run([str(benches / "recovery"), str(FLOWS)]).splitlines()
    return {f"recovery {change}": float(time) * 1e6 for change, time, _ in map(str.split, lines)}


def measure(benches):
    """Nanoseconds by name."""
    times = {name: testpmd(mode) for name, mode in MODES.items()}
    times |= {piece.name: ours(benches, piece.name) for piece in PIECES if "/" in piece.name}
    return times | recovery(benches)


class Memory:
    """What was measured in memory, round by round."""

    def __init__(self, benches):
        self.benches, self.samples = benches, []

    def round(self, number):
        for name, time in measure(self.benches).items():
            self.samples.append({"role": name, "row": NAME, "round": number, "value": round(time, 2)})
            print(f"  {number + 1} {BY_NAME[name].title:52} {time:14.1f} ns", flush=True)


def judged(piece, results):
    """What it is held against, with the times of it that were reached, and whether each of them holds."""
    own = results.spread(piece.name, NAME)
    if piece.most is not None:
        yield f"≤ {told(piece.most)}", None, own.middle <= piece.most
    for other, factor in piece.than:
        ratio = results.ratio(piece.name, NAME, other)
        if ratio:
            yield f"≤ {factor:g} x {BY_NAME[other].title}", ratio, ratio.middle <= factor


def told(time):
    """A time in a unit that suits it."""
    for unit, size in (("ms", 1e6), ("µs", 1e3)):
        if time >= 2 * size:
            return f"{time / size:.3g} {unit}"
    return f"{time:.3g} ns"


def lines(samples):
    """A row for each piece: time, rate, what is aimed at."""
    results = Results({"samples": samples, "roles": []})
    for piece in PIECES:
        own = results.spread(piece.name, NAME)
        if own is None:
            continue
        aims = []
        for words, ratio, holds in judged(piece, results):
            reached = f" ({ratio.middle:.2f} x)" if ratio else ""
            aims.append(f"{words}{reached}: {'holds' if holds else '**missed**'}")
        title = piece.title if piece.name in MODES else f"**{piece.title}**"
        spread = f"{told(own.middle)} ({told(own.low)}–{told(own.high)})"
        yield [title, spread, f"{1e3 / own.middle:.2f}" if own.middle < 1e5 else "–", "<br>".join(aims)]
