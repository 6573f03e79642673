"""What vswitch has to reach, as ratios within one run, and what is known of rows that are lost."""

from dataclasses import dataclass

BARE = ("bare-poll", "bare-spin", "bare-multishot", "bare-single", "bare-plain")
OVS = ("ovs-tso", "ovs-internal")


@dataclass(frozen=True)
class Aim:
    what: str
    row: str
    role: str
    # One of these, whichever did best.
    than: tuple
    # At least so many times theirs, or at most if `at_most`.
    factor: float
    at_most: bool = False
    figure: str = "value"


def ahead(role, than, rows, words):
    return [Aim(words, row, role, than, 1.0, at_most=row == "ping") for row in rows]


GATEWAYS = {"slirp4netns": "gateway-slirp4netns", "pasta": "gateway-pasta"}


def gateways():
    """Ways out: into the pod and out of it, with the frames of networks and with large ones, and the other rows."""
    factors = {("slirp4netns", ""): (5, 2), ("pasta", ""): (2, 2), ("slirp4netns", "-65520"): (1, 1), ("pasta", "-65520"): (0.5, 0.5)}
    for (name, mtu), both in factors.items():
        for row, factor, words in zip(("tcp1in", "tcp1"), both, ("into a pod", "out of a pod")):
            what = f"TCP, 1 stream, {words}{', MTU 65520' if mtu else ''}"
            yield Aim(what, row, f"gateway-vswitch{mtu}", (GATEWAYS[name] + mtu,), factor)
    for name, role in GATEWAYS.items():
        yield from ahead("gateway-vswitch", (role,), ("flood", "rr1", "rr16", "crr"), f"Ahead of {name}")


ALL = ("tcp1", "tcp4", "flood", "ndr", "rr1", "rr16", "crr", "ping")

AIMS = [
    Aim("TCP, 1 stream, beside the best bare forwarder", "tcp1", "vswitch", BARE, 0.95),
    Aim("TCP, 1 stream, beside the kernel's bridge", "tcp1", "vswitch", ("kernel",), 0.90),
    Aim("TCP, 4 streams, beside the best bare forwarder", "tcp4", "vswitch", BARE, 0.95),
    Aim("TCP, 1 stream, through a service, beside our bridging", "tcp1", "vswitch-vip", ("vswitch",), 0.97),
    Aim("TCP, 4 streams, through a service, beside our bridging", "tcp4", "vswitch-vip", ("vswitch",), 0.97),
    Aim("TCP, 1 stream, masqueraded, beside our bridging", "tcp1", "vswitch-snat", ("vswitch",), 0.97),
    Aim("TCP, 4 streams, masqueraded, beside our bridging", "tcp4", "vswitch-snat", ("vswitch",), 0.97),
    Aim("TCP, 1 stream, through a service, beside the kernel's nftables", "tcp1", "vswitch-vip", ("kernel-nft",), 1.0),
    Aim("64 B UDP flood, delivered", "flood", "vswitch", ("kernel",), 1.6),
    Aim("64 B UDP, highest rate without loss", "ndr", "vswitch", ("kernel",), 1.3),
    Aim("Flood ping, `low`", "ping", "vswitch-low", ("kernel",), 1.4, at_most=True),
    Aim("Request/response, 1 connection, `low`", "rr1", "vswitch-low", ("kernel",), 1.7),
    Aim("Request/response, 1 connection", "rr1", "vswitch", ("kernel",), 1.1),
    Aim("Request/response, 16 connections, through a service", "rr16", "vswitch-vip", ("kernel-iptables",), 1.4),
    Aim("Connections through a service", "crr", "vswitch-vip", ("kernel-iptables",), 1.4),
    Aim("Connections among 10,000 services", "crr", "vswitch-10k", ("kernel-iptables-10k",), 3.0),
    Aim("CPU seconds per gigabyte, 1 stream", "tcp1", "vswitch", ("kernel",), 1.3, at_most=True, figure="cpu"),
    Aim("CPU seconds per gigabyte, 4 streams", "tcp4", "vswitch", ("kernel",), 1.3, at_most=True, figure="cpu"),
    Aim("Offload on against off, 1 stream", "tcp1", "vswitch", ("vswitch-no-offload",), 6.0),
    *ahead("vswitch", OVS, ALL, "Ahead of Open vSwitch in user space"),
    *ahead("vswitch", ("vde",), ALL, "Ahead of vde_switch"),
    *gateways(),
]

# Which of ours does what they do; to all others it is `vswitch` itself.
COUNTERPARTS = {
    "kernel-iptables": "vswitch-vip",
    "kernel-nft": "vswitch-vip",
    "kernel-masquerade": "vswitch-snat",
    "kernel-iptables-10k": "vswitch-10k",
    "kernel-nft-10k": "vswitch-10k",
}

# Why others are ahead, where it is known: what their names begin with, and in which rows.
WHY = [
    (
        "kernel",
        ("tcp1", "tcp4"),
        "between veths a super-frame changes hands by reference; through a switch in user space it is copied twice more, "
        "into the switch and out of it, and a thread is woken for it",
    ),
    (
        "kernel",
        ("ping",),
        "between veths the answer is made within the sender's own system call, and nobody is woken; a switch in user "
        "space is a process that has to run in between",
    ),
    (
        "kernel",
        ("rr1", "rr16", "crr"),
        "two processes have to run for a packet instead of one, on the same processors",
    ),
    ("bare-spin", ("rr1", "ping"), "it never sleeps, so nobody has to wake it; it takes a processor all the time"),
    (("bare-", "xdp"), ALL, "it looks into no frame: no learning, no guards, no counters"),
]


def reached(aim, results, up):
    """The aim's ratio and the one it is held against, and whether it holds; None where something was not measured."""
    better = up if aim.figure == "value" else False
    than = results.best(aim.than, aim.row, better) if aim.figure == "value" else aim.than[0]
    ratio = than and results.ratio(aim.role, aim.row, than, aim.figure)
    if not ratio:
        return None
    holds = ratio.middle <= aim.factor if aim.at_most else ratio.middle >= aim.factor
    return than, ratio, holds


def counterpart(role):
    """Which of ours does what this one does."""
    if role.startswith("gateway-"):
        return "gateway-vswitch-65520" if role.endswith("-65520") else "gateway-vswitch"
    return COUNTERPARTS.get(role, "vswitch")


def why(role, row):
    """What is known of this role's being ahead in this row."""
    return next((words for names, rows, words in WHY if role.startswith(names) and row in rows), None)
