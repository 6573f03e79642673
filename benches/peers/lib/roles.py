"""The roles: what connects the client and the server. Each role makes a path, and what it made goes with it."""

from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Callable

from machine import Place


@dataclass
class Path:
    """A client and a server that reach each other."""

    client: Place
    server: Place
    # What the client asks: the server's address, or that of a service.
    address: str
    # The server's own address: services do not answer echo requests.
    ping: str
    # Namespaces between the two.
    between: list = field(default_factory=list)
    # What rows tell each other.
    remembered: dict = field(default_factory=dict)

    def places(self):
        return [self.client, self.server, *self.between]


@dataclass(frozen=True)
class Role:
    name: str
    title: str
    programs: tuple
    # From a machine to a Path.
    make: Callable
    # Names of rows that mean something here; None for all.
    rows: tuple | None = None
    # Whether it needs the command `vswitch`.
    ours: bool = False
    # Whether it is measured only if it is named.
    apart: bool = False


# With thousands of services, what new connections and small packets cost is the question.
MANY_ROWS = ("tcp1", "flood", "rr16", "crr", "ping")

REFERENCE = "kernel"
# What ratios are taken to, in words: between pods, and on the way out.
REFERENCES = {REFERENCE: "the kernel's bridge", "gateway-kernel": "the kernel's routing"}


def all_roles():
    import bare
    import gateways
    import kernel
    import ours
    import ovs
    import vde

    return [*kernel.ROLES, *bare.ROLES, *ovs.ROLES, *vde.ROLES, *ours.ROLES, *gateways.ROLES]


def chosen(words):
    """The roles that these words name: a name, a pattern with `*`, or what stands before a `-`."""
    roles = all_roles()
    if not words:
        return [role for role in roles if not role.apart]
    names = {role.name for role in roles}
    patterns = [word if word in names or "*" in word else f"{word}-*" for word in words]
    for word, pattern in zip(words, patterns):
        if not any(fnmatchcase(name, pattern) for name in names):
            raise ValueError(f"there is no role `{word}`; there are {', '.join(sorted(names))}")
    return [role for role in roles if any(fnmatchcase(role.name, pattern) for pattern in patterns)]


def settle(machine, path):
    """What clients and servers, and whoever opens connections in their stead, are given alike: ports enough for many short
    connections, and no memory of old ones."""
    for place in path.places():
        machine.run(
            [
                "sysctl",
                "-q",
                "-w",
                "net.ipv4.ip_local_port_range=10000 65535",
                "net.ipv4.tcp_tw_reuse=1",
                "net.ipv4.tcp_no_metrics_save=1",
            ],
            place,
        )


def address(machine, place, device, cidr, gateway=None):
    """Gives a device its address and brings it up."""
    machine.run(["ip", "-n", place.name, "addr", "add", cidr, "dev", device])
    machine.run(["ip", "-n", place.name, "link", "set", device, "up"])
    if gateway:
        machine.run(["ip", "-n", place.name, "route", "add", "default", "via", gateway])
