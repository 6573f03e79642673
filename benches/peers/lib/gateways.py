"""Ways out of a pod that need no root: pasta, slirp4netns, and vswitch's edge; beside them the kernel, which routes and masquerades.

A pod, a machine and an internet have a namespace each; each program runs on the machine, as it would on a developer's. The client is
the pod, the server the internet. They are measured only when they are named.
"""

import time

from kernel import BASE
from machine import NETNS, Failed, Place
from ours import up
from roles import Path, Role, address

MACHINE, INTERNET, POD = "198.51.100.2", "198.51.100.1", "10.77.0.2"
# Pings are another question: each of them needs a socket that the machine has to allow.
ROWS = ("tcp1", "tcp1in", "tcp4", "flood", "rr1", "rr16", "crr")
LARGE = 65520

CLUSTER = """\
apiVersion: vswitch/v1alpha1
kind: Cluster
spec: {images: {idle: [sleep, infinity]}}
---
apiVersion: v1
kind: Pod
metadata: {name: client}
spec: {containers: [{name: idle, image: idle}]}
"""


def joined(machine):
    """The machine and the internet, with a cable between them."""
    gateway, internet = (machine.namespace(name) for name in ("machine", "internet"))
    command = ["link", "add", "uplink", "type", "veth", "peer", "name", "downlink", "netns", internet.name]
    machine.run(["ip", "-n", gateway.name, *command])
    address(machine, internet, "downlink", f"{INTERNET}/24")
    address(machine, gateway, "uplink", f"{MACHINE}/24", INTERNET)
    return gateway, internet


def path(client, gateway, internet):
    return Path(client, internet, INTERNET, INTERNET, [gateway])


def reached(machine, client, what):
    """Waits until the pod has a way to the internet."""
    for _ in range(100):
        if machine.run(["ip", "-n", client.name, "route", "show", "default"]).strip():
            return
        time.sleep(0.05)
    raise Failed(f"{what} gave the pod no default route within five seconds")


def kernel(machine):
    gateway, internet = joined(machine)
    client = machine.namespace("client")
    machine.run(["ip", "-n", gateway.name, "link", "add", "v0", "type", "veth", "peer", "name", "eth0", "netns", client.name])
    address(machine, gateway, "v0", "10.77.0.1/24")
    address(machine, client, "eth0", f"{POD}/24", "10.77.0.1")
    machine.run(["sysctl", "-q", "-w", "net.ipv4.ip_forward=1"], gateway)
    rules = "table ip nat { chain out { type nat hook postrouting priority srcnat; oifname uplink masquerade; }; }"
    machine.run(["nft", "-f", "-"], gateway, text=rules)
    return path(client, gateway, internet)


def pasta(mtu):
    def make(machine):
        gateway, internet = joined(machine)
        client = machine.namespace("client")
        # The pod has the machine's own address; what it sends to the machine's gateway is for the gateway.
        options = ["--config-net", "--no-map-gw", "--ns-ifname", "eth0", "--mtu", mtu]
        closed = [word for option in ("-t", "-u", "-T", "-U") for word in (option, "none")]
        place = ["--runas", "0", "--netns-only", "--netns", NETNS / client.name]
        machine.start(["pasta", "--foreground", *options, *closed, *place], gateway, errors=machine.log("pasta.log"))
        reached(machine, client, "pasta")
        return path(client, gateway, internet)

    return make


def slirp4netns(mtu):
    def make(machine):
        gateway, internet = joined(machine)
        client = machine.namespace("client")
        options = ["--configure", f"--mtu={mtu}", "--disable-host-loopback", "--netns-type=path"]
        command = ["slirp4netns", *options, NETNS / client.name, "eth0"]
        machine.start(command, gateway, errors=machine.log("slirp4netns.log"))
        reached(machine, client, "slirp4netns")
        return path(client, gateway, internet)

    return make


def vswitch(mtu):
    def make(machine):
        gateway, internet = joined(machine)
        places = up(machine, CLUSTER, ("--mtu", mtu), gateway)
        return path(Place(places["client"]["netns"]), gateway, internet)

    return make


def both(name, title, programs, make, ours=False):
    """With frames as networks have them, and with large ones."""
    roles = [(name, title, 1500), (f"{name}-{LARGE}", f"{title}, MTU {LARGE}", LARGE)]
    return [Role(name, title, (*BASE, *programs), make(mtu), ROWS, ours, apart=True) for name, title, mtu in roles]


ROLES = [
    Role("gateway-kernel", "kernel: routed, masquerade by nftables", (*BASE, "nft"), kernel, ROWS, apart=True),
    *both("gateway-pasta", "pasta", ("pasta",), pasta),
    *both("gateway-slirp4netns", "slirp4netns", ("slirp4netns",), slirp4netns),
    *both("gateway-vswitch", "vswitch: egress", (), vswitch, ours=True),
]
