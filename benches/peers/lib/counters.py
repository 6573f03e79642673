"""What the kernel counts while something is measured: processor time of the whole machine, drops, retransmits."""

import os
import time
from dataclasses import dataclass

TICK = os.sysconf("SC_CLK_TCK")


def processors():
    """Seconds that processors were busy and that others took from them, since the start of the machine.

    Busy is what is neither idle nor stolen: so it holds interrupts and softirq, whoever is charged with them.
    """
    with open("/proc/stat") as file:
        words = file.readline().split()[1:]
    user, nice, system, idle, iowait, irq, softirq, steal = (int(word) / TICK for word in words[:8])
    return user + nice + system + irq + softirq, steal


@dataclass
class Network:
    """Counters of namespaces, summed."""

    drops: int = 0
    receive_buffer: int = 0
    retransmits: int = 0

    def __sub__(self, before):
        return Network(
            self.drops - before.drops,
            self.receive_buffer - before.receive_buffer,
            self.retransmits - before.retransmits,
        )


def network(machine, places):
    total = Network()
    for place in places:
        lines = machine.run(["cat", "/proc/net/dev", "/proc/net/snmp"], place).splitlines()
        heads = {}
        for line in lines:
            name, colon, rest = line.strip().partition(":")
            words = rest.split()
            if not colon:
                continue
            if name in ("Udp", "Tcp"):
                if name in heads:
                    values = dict(zip(heads[name], words))
                    total.receive_buffer += int(values.get("RcvbufErrors", 0))
                    total.retransmits += int(values.get("RetransSegs", 0))
                heads[name] = words
            elif len(words) == 16 and words[0].isdigit():
                total.drops += int(words[3]) + int(words[11])
    return total


class Window:
    """A stretch of time, measured with `with`: `elapsed`, `busy`, `steal` in seconds, and what `network` counted.

    `background` is how many seconds of processors a second takes without the load: it is taken off.
    """

    def __init__(self, machine, places, background):
        self.machine, self.places, self.background = machine, places, background

    def __enter__(self):
        self.network_before = network(self.machine, self.places)
        self.busy_before, self.steal_before = processors()
        self.start = time.monotonic()
        return self

    def __exit__(self, *_):
        self.elapsed = time.monotonic() - self.start
        busy, steal = processors()
        self.busy = max(0.0, busy - self.busy_before - self.background * self.elapsed)
        self.steal = steal - self.steal_before
        self.network = network(self.machine, self.places) - self.network_before


def background(seconds):
    """How many seconds of processors a second takes when nothing is measured."""
    busy, _ = processors()
    start = time.monotonic()
    time.sleep(seconds)
    return (processors()[0] - busy) / (time.monotonic() - start)
