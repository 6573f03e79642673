"""A whole run: rounds of all roles in turn, each with all of its rows; what came out is plain data."""

import os
import platform
import re
import subprocess
import sys
import time

from counters import background, processors
from machine import Failed, OutOfTime, Skipped
from roles import settle
from rows import Trial

# A machine that is busier than this before anything starts is measured with whatever keeps it busy.
BUSY = 0.10
# What is measured again, so often at the most: a figure during which the hypervisor gave more than this part of the
# processors to others.
STOLEN, AGAIN = 0.08, 2


def version(*words):
    try:
        done = subprocess.run(words, capture_output=True, text=True, timeout=20, check=False)
    except OSError:
        return None
    if done.returncode and words[0] == "dpkg-query":
        return None
    return next((line.strip() for line in (done.stdout + done.stderr).splitlines() if line.strip()), None)


def first_of(path, pattern):
    with open(path) as file:
        found = re.search(pattern, file.read(), re.MULTILINE)
    return found.group(1).strip() if found else "unknown"


def describe(vswitch):
    """The machine and the versions of everything involved."""
    model = first_of("/proc/cpuinfo", r"^model name\s*:\s*(.*)$")
    memory = int(first_of("/proc/meminfo", r"^MemTotal:\s+(\d+)"))
    said = {
        "kernel": f"{platform.system()} {platform.release()} {platform.machine()}",
        "system": first_of("/etc/os-release", r'^PRETTY_NAME="?([^"\n]*)'),
        "processors": f"{os.cpu_count()} x {model}",
        "memory": f"{memory / 2**20:.0f} GiB",
        "iperf3": version("iperf3", "--version"),
        "gcc": version("gcc", "--version"),
        "iptables": version("iptables", "--version"),
        "nftables": version("nft", "--version"),
        "Open vSwitch": version("ovs-vswitchd", "--version"),
        "testpmd": version("dpkg-query", "-W", "-f", "${Version}", "dpdk-dev"),
        "pasta": version("dpkg-query", "-W", "-f", "${Version}", "passt"),
        "slirp4netns": version("slirp4netns", "--version"),
        "vde": version("dpkg-query", "-W", "-f", "${Version}", "vde-switch"),
    }
    if vswitch:
        said["vswitch"] = version(vswitch, "--version")
    return {name: value for name, value in said.items() if value}


class Session:
    """What is measured, and what came of it."""

    def __init__(self, machine, roles, rows, seconds, patience, memory):
        self.machine, self.roles, self.rows, self.seconds, self.patience = machine, roles, rows, seconds, patience
        self.memory = memory
        self.samples, self.failures, self.skipped = [], [], {}
        self.quiet = []

    def round(self, number):
        """Measures every role once, and says whether there was time for it."""
        try:
            for role in self.roles:
                if role.name not in self.skipped:
                    self.role(role, number)
            if self.memory:
                self.in_memory(number)
        except OutOfTime:
            self.fail("the run", "", number, "out of time; what was measured until then is kept")
            return False
        return True

    def rest(self):
        """How busy the machine is with something else, after waiting for it to be quiet if it may take a while."""
        until = time.monotonic() + self.patience
        while True:
            self.machine.left()
            rest = background(min(1, max(0.2, self.seconds / 4)))
            if rest <= BUSY or time.monotonic() > until:
                self.quiet.append(rest)
                return rest

    def role(self, role, number):
        rest = self.rest()
        if rest > BUSY:
            print(f"  beware: {rest:.0%} of a processor is busy with something else", file=sys.stderr)
        with self.machine.role():
            try:
                path = role.make(self.machine)
                settle(self.machine, path)
            except Skipped as why:
                print(f"  {role.name}: skipped: {why}", flush=True)
                self.skipped[role.name] = str(why)
                return
            except Failed as why:
                self.fail(role.name, "", number, str(why))
                return
            for row in self.rows:
                if role.rows is None or row.name in role.rows:
                    self.row(role, row, number, Trial(self.machine, path, rest, self.seconds))

    def in_memory(self, number):
        self.rest()
        try:
            self.memory.round(number)
        except Failed as why:
            self.fail("in memory", "", number, str(why))

    def row(self, role, row, number, trial):
        start = time.monotonic()
        tries = []
        while not tries or tries[-1][0] > STOLEN and len(tries) <= AGAIN:
            if tries:
                # A hypervisor that rations what it gives gives more after a while.
                time.sleep(self.patience)
            tries.append(self.tried(row, trial))
        # The order says nothing of how they went.
        stolen, sample = min(tries, key=lambda tried: tried[0])
        if isinstance(sample, Failed):
            self.fail(role.name, row.name, number, str(sample))
            return
        self.samples.append(
            {
                "role": role.name,
                "row": row.name,
                "round": number,
                "value": round(sample.value, 4),
                "cpu": None if sample.cpu is None else round(sample.cpu, 4),
                **sample.more,
                "stolen": round(stolen, 4),
                "again": len(tries) - 1,
            }
        )
        cost = f"{sample.cpu:8.2f} CPU s/{row.work}" if sample.cpu is not None else ""
        print(
            f"  {number + 1} {role.name:20} {row.name:6} {sample.value:9.2f} {row.unit:7} {cost}"
            f"  ({time.monotonic() - start:.1f} s{f', tried {len(tries)} times: processors stolen' * (len(tries) > 1)})",
            flush=True,
        )

    def tried(self, row, trial):
        """One measurement, or why it is none, and the part of the processors that others had meanwhile."""
        running, before, start = len(self.machine.processes), processors()[1], time.monotonic()
        try:
            sample = row.measure(trial)
        except Failed as why:
            sample = why
        finally:
            self.machine.end_since(running)
        return (processors()[1] - before) / (time.monotonic() - start) / os.cpu_count(), sample

    def fail(self, role, row, number, why):
        print(f"  FAILED: {role} {row}: {why}", file=sys.stderr, flush=True)
        self.failures.append({"role": role, "row": row, "round": number, "why": why})

    def result(self):
        return {
            "machine": describe(self.machine.vswitch),
            "date": time.strftime("%d %B %Y", time.gmtime()).lstrip("0"),
            "seconds": self.seconds,
            "roles": [{"name": role.name, "title": role.title} for role in self.roles],
            "rows": [row.name for row in self.rows],
            "samples": self.samples,
            "memory": self.memory.samples if self.memory else [],
            "failures": self.failures,
            "skipped": self.skipped,
            "background": round(max(self.quiet, default=0), 3),
        }
