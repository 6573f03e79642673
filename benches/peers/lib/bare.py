"""The bare forwarder: a thread that moves frames between two TAPs, or by AF_XDP between two veths, without looking."""

from kernel import BASE, veth
from roles import Path, Role, address


def between_taps(how):
    def make(machine):
        client, server = machine.namespace("client"), machine.namespace("server")
        machine.start([machine.directory / "bare", how, client.name, server.name]).expect("ready")
        address(machine, client, "eth0", "10.77.0.2/24")
        address(machine, server, "eth0", "10.77.0.3/24")
        return Path(client, server, "10.77.0.3", "10.77.0.3")

    return make


def by_xdp(machine):
    node, client, server = (machine.namespace(name) for name in ("node", "client", "server"))
    for outer, place in (("v0", client), ("v1", server)):
        veth(machine, node, outer, place)
        machine.run(["ip", "-n", node.name, "link", "set", outer, "up"])
        # What is sent is looked at as it stands, so its checksum has to be there.
        machine.run(["ethtool", "-K", "eth0", "tx", "off"], place)
    machine.start([machine.directory / "bare", "xdp", "v0", "v1"], node).expect("ready")
    address(machine, client, "eth0", "10.77.0.2/24")
    address(machine, server, "eth0", "10.77.0.3/24")
    return Path(client, server, "10.77.0.3", "10.77.0.3", [node])


HOWS = {
    "poll": "bare forwarder: read, write, poll",
    "spin": "bare forwarder: busy polling",
    "multishot": "bare forwarder: io_uring, multishot reads",
    "single": "bare forwarder: io_uring, single reads",
    "plain": "bare forwarder: no virtio headers",
}

ROLES = [Role(f"bare-{how}", title, BASE, between_taps(how)) for how, title in HOWS.items()]
ROLES.append(Role("xdp", "bare forwarder: AF_XDP between veths", (*BASE, "ethtool"), by_xdp))

# What each and the kernel's bridge were found to do on another machine with two processors (Linux 6.18), by row.
ROWS = ("tcp1", "tcp4", "flood", "ndr", "rr1", "rr16", "crr", "ping")
FOUND = {
    "kernel": (17.8, 32.8, 213, 213, 13.5, 115, 20.7, 7),
    "bare-poll": (15.5, 18.7, 202, 184, 16.2, 110, 18.5, 36),
    "bare-spin": (12.7, 19.6, 249, 250, 26.0, 96, 19.1, 9),
    "bare-multishot": (17.2, 16.9, 375, 296, 12.4, 103, 21.5, 40),
    "bare-single": (13.8, 13.7, 138, None, 10.0, 62, 14.0, 39),
    "bare-plain": (2.2, 1.9, 220, 177, 15.0, 105, 18.2, 38),
    "xdp": (4.0, 2.6, 290, 277, 13.1, 95, 23.1, 40),
}
# The same as ratios to the bridge. A forwarder that does not come near them would make us look good: it has to be looked
# into.
EXPECTED = {
    (role, row): figure / bridge
    for role, figures in FOUND.items()
    if role != "kernel"
    for row, figure, bridge in zip(ROWS, figures, FOUND["kernel"])
    if figure
}
