"""The machine: processes and network namespaces that a run makes, and that are gone when it ends, however it ends.

Everything of a run carries its process id: a directory under /run/vswitch-peers that is locked while the run lives, and
namespaces whose names begin with `peers` and that number. So a later run finds what a killed one has left, and no run
touches what is not its own.
"""

import fcntl
import os
import pathlib
import select
import shutil
import signal
import subprocess
import time
from contextlib import contextmanager
from dataclasses import dataclass

ROOT = pathlib.Path("/run/vswitch-peers")
NETNS = pathlib.Path("/run/netns")


class Skipped(Exception):
    """This machine cannot do it, and why."""


class Failed(Exception):
    """It did not work, or what was counted does not add up."""


class OutOfTime(Exception):
    """The run has taken as long as it may."""


@dataclass(frozen=True)
class Place:
    """A network namespace."""

    name: str

    def enter(self, words):
        return ["nsenter", f"--net={NETNS / self.name}", *words]


def written(descriptor, word, seconds=30):
    """Whether this word is written there before its other end is closed, and before the time is up."""
    text, until = b"", time.monotonic() + seconds
    while word.encode() not in text:
        readable, _, _ = select.select([descriptor], [], [], max(0, until - time.monotonic()))
        more = os.read(descriptor, 4096) if readable else b""
        if not more:
            return False
        text += more
    return True


class Process:
    """A program that runs beside the script, and dies with it even if that is killed."""

    def __init__(self, words, place=None, output=subprocess.PIPE, errors=None, **more):
        self.what = words[0]
        words = place.enter(words) if place else words
        self.popen = subprocess.Popen(
            ["setpriv", "--pdeathsig", "KILL", *map(str, words)],
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=errors or subprocess.DEVNULL,
            start_new_session=True,
            **more,
        )

    def expect(self, word):
        """Waits until it has written this word."""
        if written(self.popen.stdout.fileno(), word):
            return
        self.end()
        status = self.popen.returncode
        if status == 77:
            raise Skipped(f"{self.what} says that the kernel lacks what it needs")
        raise Failed(f"{self.what} ended with status {status} instead of getting ready")

    def finish(self, seconds):
        """Ends its input, waits for its end, and gives its output."""
        try:
            output, _ = self.popen.communicate(timeout=seconds)
        except subprocess.TimeoutExpired as late:
            raise Failed(f"{self.what} did not end") from late
        if self.popen.returncode:
            raise Failed(f"{self.what} ended with status {self.popen.returncode}")
        return output

    def end(self, seconds=10):
        for signal_number in (signal.SIGTERM, signal.SIGKILL):
            if self.popen.poll() is None:
                self.popen.send_signal(signal_number)
                try:
                    self.popen.wait(timeout=seconds)
                except subprocess.TimeoutExpired:
                    pass
        for pipe in (self.popen.stdin, self.popen.stdout):
            if pipe:
                try:
                    pipe.close()
                except OSError:
                    pass


class Machine:
    """What a run makes. Use with `with`."""

    def __init__(self, vswitch, limit):
        self.vswitch = vswitch
        self.prefix = f"peers{os.getpid()}"
        self.directory = ROOT / str(os.getpid())
        self.deadline = time.monotonic() + limit
        self.processes = []
        self.lock = None

    def __enter__(self):
        ROOT.mkdir(mode=0o700, exist_ok=True)
        with open(ROOT / "lock", "w") as everybody:
            fcntl.flock(everybody, fcntl.LOCK_EX)
            clear_what_was_left()
            self.directory.mkdir(mode=0o700)
            self.lock = open(self.directory / "lock", "w")
            fcntl.flock(self.lock, fcntl.LOCK_EX)
            (self.directory / "vswitch").write_text(str(self.vswitch or ""))
        return self

    def __exit__(self, *_):
        with undisturbed():
            self.clear()
            shutil.rmtree(self.directory, ignore_errors=True)
            self.lock.close()

    @contextmanager
    def role(self):
        """What is made within is gone after it."""
        try:
            yield
        finally:
            with undisturbed():
                self.clear()

    def clear(self):
        self.end_since(0)
        remove_namespaces(self.prefix)

    def end_since(self, running):
        """Ends the processes that were started when so many ran already."""
        with undisturbed():
            while len(self.processes) > running:
                self.processes.pop().end()

    def left(self):
        left = self.deadline - time.monotonic()
        if left <= 0:
            raise OutOfTime
        return left

    def run(self, words, place=None, seconds=30, text=None):
        """Runs a program to its end, and gives what it wrote."""
        whole = [str(word) for word in (place.enter(words) if place else words)]
        try:
            done = subprocess.run(
                ["setpriv", "--pdeathsig", "KILL", *whole],
                input=text,
                stdin=subprocess.DEVNULL if text is None else None,
                capture_output=True,
                text=True,
                timeout=min(seconds, self.left()),
                start_new_session=True,
            )
        except subprocess.TimeoutExpired as late:
            self.left()
            raise Failed(f"`{' '.join(map(str, words))}` did not end within {seconds} s") from late
        if done.returncode:
            said = (done.stderr or done.stdout).strip()[-600:]
            raise Failed(f"`{' '.join(map(str, words))}` ended with status {done.returncode}: {said}")
        return done.stdout

    def start(self, words, place=None, **more):
        self.left()
        process = Process(words, place, **more)
        self.processes.append(process)
        return process

    def namespace(self, name):
        place = Place(f"{self.prefix}-{name}")
        self.run(["ip", "netns", "add", place.name])
        self.run(["ip", "-n", place.name, "link", "set", "lo", "up"])
        return place

    def log(self, name):
        """A file for what a program says on standard error."""
        return open(self.directory / name, "w")


@contextmanager
def undisturbed():
    """Within, nothing interrupts."""
    before = {number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def remove_namespaces(prefix):
    names = [path.name for path in NETNS.glob(f"{prefix}-*")] if NETNS.exists() else []
    for name in names:
        subprocess.run(["ip", "netns", "del", name], stderr=subprocess.DEVNULL, check=False)


def clear_what_was_left():
    """Removes what a run left that was killed. The caller holds the lock of all."""
    for directory in ROOT.iterdir():
        if not directory.is_dir():
            continue
        with open(directory / "lock", "w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                continue
            recorded = directory / "vswitch"
            vswitch = recorded.read_text() if recorded.exists() else ""
            if vswitch and (directory / "state").exists():
                down = [vswitch, "down", "--state-dir", str(directory / "state")]
                subprocess.run(down, capture_output=True, timeout=60, check=False)
            remove_namespaces(f"peers{directory.name}")
            shutil.rmtree(directory, ignore_errors=True)
