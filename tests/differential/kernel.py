"""A Linux router and bridge in network namespaces of their own, and packet sockets to it.

The namespaces are made and removed here; nothing outside them is touched. Frames are sent and received through packet
sockets, so no other code of ours is involved.
"""
import contextlib
import ctypes
import os
import select
import socket
import subprocess
import time

ROUTER_NS = f"diff-router-{os.getpid()}"
ENDS_NS = f"diff-ends-{os.getpid()}"
PACKET_OUTGOING = 4

ROUTER = {
    "a": {"mac": "02:00:00:00:0a:01", "mtu": 1500, "addresses": ["10.1.0.1/24", "fd00:1::1/64"]},
    "b": {"mac": "02:00:00:00:0b:01", "mtu": 1280, "addresses": ["10.2.0.1/24", "fd00:2::1/64"]},
}
HOSTS = {
    "a": [("10.1.0.2", "02:00:00:00:0a:02"), ("fd00:1::2", "02:00:00:00:0a:02"), ("fe80::2", "02:00:00:00:0a:02"),
          ("10.1.0.3", "02:00:00:00:0a:03"), ("fd00:1::3", "02:00:00:00:0a:03")],
    "b": [("10.2.0.2", "02:00:00:00:0b:02"), ("fd00:2::2", "02:00:00:00:0b:02"),
          ("10.2.0.3", "02:00:00:00:0b:03"), ("fd00:2::3", "02:00:00:00:0b:03")],
}
BRIDGE_PORTS = ["p0", "p1", "p2"]


def ip(*arguments, namespace=None):
    prefix = ["ip"] if namespace is None else ["ip", "-n", namespace]
    subprocess.run(prefix + list(arguments), check=True)


def sysctl(namespace, name, value):
    subprocess.run(["ip", "netns", "exec", namespace, "sysctl", "-qw", f"{name}={value}"], check=True)


def plug(name, mac, mtu):
    """A link between the two namespaces: NAME in the router's, end-NAME in the ends'."""
    ip("link", "add", "name", name, "netns", ROUTER_NS, "address", mac, "mtu", str(mtu), "type", "veth", "peer", "name",
       f"end-{name}", "netns", ENDS_NS)
    for namespace, interface in ((ROUTER_NS, name), (ENDS_NS, f"end-{name}")):
        sysctl(namespace, f"net.ipv6.conf.{interface}.accept_dad", 0)
        sysctl(namespace, f"net.ipv6.conf.{interface}.accept_ra", 0)
        subprocess.run(["ip", "netns", "exec", namespace, "ethtool", "-K", interface, "tx", "off", "rx", "off"],
                       check=True, stdout=subprocess.DEVNULL)
    # The end is a cable, not a host: it must not say anything by itself. Its MTU lets too long frames in.
    sysctl(ENDS_NS, f"net.ipv6.conf.end-{name}.disable_ipv6", 1)
    ip("link", "set", "dev", f"end-{name}", "mtu", "9000", "up", namespace=ENDS_NS)


def set_up_router():
    for name, side in ROUTER.items():
        plug(name, side["mac"], side["mtu"])
        sysctl(ROUTER_NS, f"net.ipv6.conf.{name}.addr_gen_mode", 0)
        ip("link", "set", "dev", name, "up", namespace=ROUTER_NS)
        for address in side["addresses"]:
            ip("address", "add", address, "dev", name, namespace=ROUTER_NS)
    for name, value in {
        "net.ipv4.ip_forward": 1,
        "net.ipv6.conf.all.forwarding": 1,
        "net.ipv4.conf.all.rp_filter": 0,
        "net.ipv4.conf.a.rp_filter": 0,
        "net.ipv4.conf.b.rp_filter": 0,
        # Answer ARP only for addresses of the interface asked on.
        "net.ipv4.conf.all.arp_ignore": 1,
        "net.ipv4.conf.all.send_redirects": 0,
        "net.ipv4.conf.a.send_redirects": 0,
        "net.ipv4.conf.b.send_redirects": 0,
        # Rate limits are tested elsewhere; here every case shall have its answer.
        # (A ratelimit of 0 would take the tokens that errors about routes use.)
        "net.ipv4.icmp_ratemask": 0,
        "net.ipv4.icmp_msgs_per_sec": 1000000,
        "net.ipv4.icmp_msgs_burst": 1000000,
        "net.ipv6.icmp.ratelimit": 0,
    }.items():
        sysctl(ROUTER_NS, name, value)
    for name, neighbors in HOSTS.items():
        for address, mac in neighbors:
            ip("neighbor", "replace", address, "lladdr", mac, "dev", name, "nud", "permanent", namespace=ROUTER_NS)
    for family, net in (("-4", "10.{}.0.0/16"), ("-6", "fd00:{}::/32")):
        via = "10.2.0.2" if family == "-4" else "fd00:2::2"
        ip(family, "route", "add", net.format(3), "via", via, namespace=ROUTER_NS)
        for number, kind in ((4, "blackhole"), (5, "unreachable"), (6, "prohibit")):
            ip(family, "route", "add", kind, net.format(number), namespace=ROUTER_NS)


def set_up_bridge():
    ip("link", "add", "br0", "type", "bridge", "stp_state", "0", "mcast_snooping", "0", namespace=ROUTER_NS)
    sysctl(ROUTER_NS, "net.ipv6.conf.br0.disable_ipv6", 1)
    for number, name in enumerate(BRIDGE_PORTS):
        plug(name, f"02:00:00:00:cc:{number:02x}", 1500)
        sysctl(ROUTER_NS, f"net.ipv6.conf.{name}.disable_ipv6", 1)
        ip("link", "set", "dev", name, "master", "br0", "up", namespace=ROUTER_NS)
    ip("link", "set", "br0", "up", namespace=ROUTER_NS)


def enter(namespace):
    with open(f"/run/netns/{namespace}", "rb") as handle:
        if ctypes.CDLL(None, use_errno=True).setns(handle.fileno(), 0x40000000) != 0:
            raise OSError(ctypes.get_errno(), "setns")


def open_port(name):
    handle = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
    handle.bind((f"end-{name}", 0))
    return handle


def collect(ports, wait, ignored):
    """Frames that arrive until nothing has come for `wait` seconds."""
    found = []
    deadline = time.monotonic() + wait
    names = {handle: name for name, handle in ports.items()}
    while (left := deadline - time.monotonic()) > 0:
        readable, _, _ = select.select(list(names), [], [], left)
        for handle in readable:
            data, address = handle.recvfrom(65536)
            if address[2] == PACKET_OUTGOING or ignored(data):
                continue
            found.append([names[handle], data.hex()])
            deadline = time.monotonic() + wait
    return found


def chatter(data):
    """What a Linux host says by itself: listener reports, router solicitations and advertisements' kin."""
    if data[12:14] != b"\x86\xdd" or len(data) < 63:
        return False
    header, at = data[20], 54
    if header == 0:
        header, at = data[54], 62
    return header == 58 and len(data) > at and data[at] in (131, 132, 133, 134, 143)


@contextlib.contextmanager
def namespaces():
    """Makes both namespaces and removes them again; the caller is left in that of the ends."""
    try:
        for namespace in (ROUTER_NS, ENDS_NS):
            ip("netns", "add", namespace)
            ip("link", "set", "lo", "up", namespace=namespace)
        enter(ENDS_NS)
        yield
    finally:
        for namespace in (ROUTER_NS, ENDS_NS):
            subprocess.run(["ip", "netns", "del", namespace], check=False)
