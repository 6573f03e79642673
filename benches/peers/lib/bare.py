"""The bare forwarder: two TAPs and a thread that moves frames between them without looking."""

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

# What each was found to reach of the kernel's bridge on a machine with two processors (Linux 6.18). A forwarder here that does not come near
# would make us look good: it has to be looked into.
EXPECTED = {
    "bare-poll": {"tcp1": 15.5, "tcp4": 18.7, "flood": 202, "ndr": 184, "rr1": 16.2, "rr16": 110, "crr": 18.5, "ping": 36},
    "bare-spin": {"tcp1": 12.7, "tcp4": 19.6, "flood": 249, "ndr": 250, "rr1": 26.0, "rr16": 96, "crr": 19.1, "ping": 9},
    "bare-multishot": {"tcp1": 17.2, "tcp4": 16.9, "flood": 375, "ndr": 296, "rr1": 12.4, "rr16": 103, "crr": 21.5, "ping": 40},
    "bare-single": {"tcp1": 13.8, "tcp4": 13.7, "flood": 138, "rr1": 10.0, "rr16": 62, "crr": 14.0, "ping": 39},
    "xdp": {"tcp1": 4.0, "tcp4": 2.6, "flood": 290, "ndr": 277, "rr1": 13.1, "rr16": 95, "crr": 23.1, "ping": 40},
    "bare-plain": {"tcp1": 2.2, "tcp4": 1.9, "flood": 220, "ndr": 177, "rr1": 15.0, "rr16": 105, "crr": 18.2, "ping": 38},
}
EXPECTED_OF_KERNEL = {
    "tcp1": 17.8, "tcp4": 32.8, "flood": 213, "ndr": 213, "rr1": 13.5, "rr16": 115, "crr": 20.7, "ping": 7,
}
