"""The rows: what is measured of every role, and how the two ends' counts are held against each other."""

import json
import math
import pathlib
from dataclasses import dataclass, field
from typing import Callable

from counters import Window
from machine import Failed

IPERF_PORT = 5201
LOAD_PORT = 7000

# A rate counts as carried without loss while so little is lost.
LOSS = 0.005


@dataclass
class Sample:
    """One measurement."""

    value: float
    # Seconds of all processors for each unit of work.
    cpu: float | None = None
    more: dict = field(default_factory=dict)


@dataclass(frozen=True)
class Row:
    name: str
    title: str
    unit: str
    # Whether more is better.
    up: bool
    # Of what `cpu` is the price.
    work: str | None
    measure: Callable


@dataclass
class Trial:
    """What a measurement works with."""

    machine: object
    path: object
    background: float
    seconds: float

    def window(self):
        return Window(self.machine, self.path.places(), self.background)

    def load(self, words, seconds=None):
        """Runs the load generator's client and reads what it says."""
        words = [self.machine.directory / "load", *words]
        return json.loads(self.machine.run(words, self.path.client, (seconds or self.seconds) + 20))

    def serve(self):
        """Starts the load generator's server."""
        server = self.machine.start([self.machine.directory / "load", "serve", LOAD_PORT], self.path.server)
        server.expect("ready")
        return server


def stop(server):
    return json.loads(server.finish(20))


def must(condition, what):
    if not condition:
        raise Failed(what)


def noted(window, **more):
    """What is kept of a window beside the figure itself."""
    return {
        "steal": round(window.steal, 4),
        "drops": window.network.drops,
        "receive_buffer": window.network.receive_buffer,
        "retransmits": window.network.retransmits,
        **more,
    }


def underway():
    """Octets of a stream that may be in both ends' sockets when iperf3 stops counting."""
    files = [pathlib.Path(f"/proc/sys/net/ipv4/tcp_{kind}mem") for kind in "rw"]
    return sum(int(file.read_text().split()[2]) for file in files)


def tcp(streams, *options):
    def measure(trial):
        machine, path = trial.machine, trial.path
        server = machine.start(["iperf3", "-s", "-1", "-p", IPERF_PORT, "--forceflush"], path.server)
        server.expect("listening")
        # It takes whole seconds, and 0 for no end.
        seconds = math.ceil(trial.seconds)
        command = ["iperf3", "-J", "-c", path.address, "-p", IPERF_PORT, "-P", streams, "-t", seconds, *options]
        with trial.window() as window:
            said = json.loads(machine.run([*command, "--connect-timeout", 3000], path.client, seconds + 20))
        must("error" not in said, f"iperf3: {said.get('error')}")
        end = said["end"]
        sent, received = end["sum_sent"]["bytes"], end["sum_received"]["bytes"]
        must(received > 0 and len(end["streams"]) == streams, "iperf3 has moved nothing on some of its streams")
        must(
            0 <= sent - received <= underway() * streams,
            f"iperf3 has sent {sent} octets, of which {received} have arrived",
        )
        more = noted(window, retransmits=end["sum_sent"]["retransmits"])
        return Sample(end["sum_received"]["bits_per_second"] / 1e9, window.busy / (received / 1e9), more)

    return measure


def datagrams(trial, rate, seconds):
    """Sends datagrams at a rate, 0 for as fast as possible. Gives what was sent and delivered, and the window."""
    server = trial.serve()
    with trial.window() as window:
        sent = trial.load(["udp", trial.path.address, LOAD_PORT, seconds, rate], seconds)
    got = stop(server)
    must(got["strange"] == 0 and got["twice"] == 0, f"datagrams arrived that were not sent: {got}")
    must(got["datagrams"] <= sent["sent"], f"more datagrams arrived than were sent: {got}, {sent}")
    must(got["datagrams"] > 0, f"no datagram has arrived of {sent['sent']}")
    return sent, got, window


def flood(trial):
    sent, got, window = datagrams(trial, 0, trial.seconds)
    delivered = got["datagrams"] / max(sent["seconds"], got["seconds"])
    more = noted(window, offered=round(sent["sent"] / sent["seconds"]), late=got["late"], refused=sent["refused"])
    trial.path.remembered["flood"] = delivered
    return Sample(delivered / 1e3, window.busy / (got["datagrams"] / 1e6), more)


def carried(trial, rate, seconds):
    """Tries a rate. Gives the rate that was sent, whether it arrived, and the sample. One loss may be somebody else's
    doing, so it is tried twice."""
    for _ in range(2):
        sent, got, window = datagrams(trial, rate, seconds)
        offered = sent["sent"] / sent["seconds"]
        lost = 1 - got["datagrams"] / sent["sent"]
        if lost < LOSS and offered > 0.97 * rate:
            break
    sample = Sample(offered / 1e3, window.busy / (got["datagrams"] / 1e6), noted(window, loss=round(lost, 5)))
    return lost < LOSS, offered > 0.97 * rate, sample


def ndr(trial):
    """The highest rate without loss, by bisection around what a flood delivers."""
    seconds, width = (trial.seconds / 4, 0.03) if trial.seconds >= 1 else (trial.seconds / 2, 0.3)
    near = trial.path.remembered.get("flood") or flood(trial).value * 1e3
    low, high, best = 0.0, None, None
    rate = near
    for _ in range(12):
        arrived, offered, sample = carried(trial, rate, seconds)
        if arrived and (best is None or sample.value > best.value):
            best = sample
        if arrived and offered:
            low = rate
            rate = (low + high) / 2 if high else rate * 1.25
        else:
            high = rate
            rate = (low + high) / 2 if low else rate * 0.75
        if high and low and high - low < width * high:
            break
    must(best is not None, f"no rate was carried with a loss below {LOSS:.1%}, down to {rate:.0f} a second")
    return best


def requests(verb, connections):
    def measure(trial):
        server = trial.serve()
        with trial.window() as window:
            client = trial.load([verb, trial.path.address, LOAD_PORT, trial.seconds, connections])
        got = stop(server)
        done = client["done"]
        opened = connections if verb == "rr" else done
        must(done > 0 and client["broken"] == 0 and client["wrong"] == 0, f"requests went wrong: {client}")
        must(
            got["answered"] == done and got["accepted"] == opened and got["broken"] == 0 and got["wrong"] == 0,
            f"the client counts {done} answers on {opened} connections, the server {got}",
        )
        more = noted(window, p50_us=client["p50_us"], p99_us=client["p99_us"])
        return Sample(done / client["seconds"] / 1e3, window.busy / (done / 1e6), more)

    return measure


def ping(trial):
    with trial.window() as window:
        said = trial.load(["ping", trial.path.ping, trial.seconds / 2])
    must(said["done"] > 0 and said["lost"] <= said["done"] / 1000, f"echo requests were lost: {said}")
    more = noted(window, p99_us=said["p99_us"])
    return Sample(said["mean_us"], window.busy / (said["done"] / 1e6), more)


ROWS = [
    Row("tcp1", "TCP, 1 stream", "Gbit/s", True, "GB", tcp(1)),
    Row("tcp4", "TCP, 4 streams", "Gbit/s", True, "GB", tcp(4)),
    Row("flood", "64 B UDP flood, delivered", "k/s", True, "million datagrams", flood),
    Row("ndr", "64 B UDP, highest rate without loss", "k/s", True, "million datagrams", ndr),
    Row("rr1", "Request/response, 1 connection", "k/s", True, "million requests", requests("rr", 1)),
    Row("rr16", "Request/response, 16 connections", "k/s", True, "million requests", requests("rr", 16)),
    Row("crr", "Connections, 16 clients", "k/s", True, "million connections", requests("crr", 16)),
    Row("ping", "Flood ping", "µs", False, "million pings", ping),
]

# Measured only if they are named.
APART = [
    Row("tcp1in", "TCP, 1 stream, towards the client", "Gbit/s", True, "GB", tcp(1, "--reverse")),
]

BY_NAME = {row.name: row for row in [*ROWS, *APART]}
