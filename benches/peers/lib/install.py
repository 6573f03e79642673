"""Programs that come from Debian's packages, and those that are compiled here."""

import os
import pathlib
import shutil
import subprocess
from contextlib import contextmanager

from machine import Failed, Skipped

HERE = pathlib.Path(__file__).resolve().parent.parent

PACKAGES = {
    "dpdk-testpmd": ["dpdk-dev"],
    "ethtool": ["ethtool"],
    "gcc": ["gcc", "libc6-dev"],
    "ip": ["iproute2"],
    "iperf3": ["iperf3"],
    "iptables-restore": ["iptables"],
    "nft": ["nftables"],
    "ovs-vswitchd": ["openvswitch-switch"],
    "pasta": ["passt"],
    "setpriv": ["util-linux"],
    "slirp4netns": ["slirp4netns"],
    "vde_switch": ["vde2"],
}

FLAGS = ["-O2", "-std=gnu11", "-Wall", "-Wextra", "-Werror"]


def check(programs, may_install):
    """Sees to it that these programs are there."""
    if os.geteuid() != 0:
        raise Skipped("needs root, for network namespaces of its own")
    if not os.path.exists("/dev/net/tun"):
        raise Skipped("needs /dev/net/tun")
    os.environ["PATH"] += ":/usr/sbin:/sbin"
    missing = [program for program in programs if not shutil.which(program)]
    if not missing:
        return
    packages = sorted({package for program in missing for package in PACKAGES[program]})
    if not may_install or not shutil.which("apt-get"):
        raise Skipped(f"needs the programs {', '.join(missing)} (Debian's packages {', '.join(packages)})")
    print(f"installing from packages: {', '.join(packages)}", flush=True)
    with no_services():
        environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        for words in (["update", "-qq"], ["install", "-y", "-qq", "--no-install-recommends", *packages]):
            done = subprocess.run(
                ["apt-get", *words], env=environment, capture_output=True, text=True, timeout=600, check=False
            )
            if done.returncode and words[0] == "install":
                raise Failed(f"apt-get: {done.stderr.strip()[-600:]}")


@contextmanager
def no_services():
    """Within, packages start no services of their own: a second Open vSwitch would be measured with everything."""
    policy = pathlib.Path("/usr/sbin/policy-rc.d")
    if policy.exists():
        yield
        return
    policy.write_text("#!/bin/sh\nexit 101\n")
    policy.chmod(0o755)
    try:
        yield
    finally:
        policy.unlink()


def compile_all(directory):
    """Compiles the load generator and the bare forwarder into this directory."""
    for name in ("load", "bare"):
        sources = sorted(str(path) for path in (HERE / name).glob("*.c"))
        command = ["gcc", *FLAGS, "-o", str(directory / name), *sources]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
        if done.returncode:
            raise Failed(f"gcc: {done.stderr}")
