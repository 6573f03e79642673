"""Open vSwitch in user space: with internal ports, and tuned to pass super-frames between veths."""

import os

from kernel import BASE, veth
from machine import Failed
from roles import Path, Role, address

SCHEMA = "/usr/share/openvswitch/vswitch.ovsschema"


def start(machine, node, *settings):
    """A database and a switch of our own, beside whatever runs on this machine."""
    home = machine.directory / "ovs"
    home.mkdir(exist_ok=True)
    for old in home.iterdir():
        old.unlink()
    database, socket = home / "conf.db", f"unix:{home}/db.sock"
    environment = {**os.environ, **{f"OVS_{name}DIR": str(home) for name in ("RUN", "LOG", "DB", "SYSCONF")}}
    machine.run(["ovsdb-tool", "create", database, SCHEMA])
    machine.start(
        ["ovsdb-server", f"--remote=p{socket}", f"--unixctl={home}/db.ctl", database],
        node,
        env=environment,
        errors=machine.log("ovsdb-server.log"),
    )

    def vsctl(*words):
        return machine.run(["ovs-vsctl", f"--db={socket}", "--timeout=15", *words], seconds=20)

    for _ in range(100):
        if (home / "db.sock").exists():
            break
        machine.run(["sleep", "0.05"])
    vsctl("--no-wait", "init")
    for setting in settings:
        vsctl("--no-wait", "set", "Open_vSwitch", ".", setting)
    switch = ["ovs-vswitchd", f"--unixctl={home}/switch.ctl", socket]
    machine.start(switch, node, env=environment, errors=machine.log("ovs-vswitchd.log"))
    vsctl("add-br", "br0", "--", "set", "bridge", "br0", "datapath_type=netdev")
    return vsctl


def finish(client, server, node):
    return Path(client, server, "10.77.0.3", "10.77.0.3", [node])


def internal(machine):
    node, client, server = (machine.namespace(name) for name in ("node", "client", "server"))
    vsctl = start(machine, node)
    for port, place, own in (("p0", client, "10.77.0.2/24"), ("p1", server, "10.77.0.3/24")):
        vsctl("add-port", "br0", port, "--", "set", "interface", port, "type=internal")
        machine.run(["ip", "-n", node.name, "link", "set", port, "netns", place.name])
        address(machine, place, port, own)
    return finish(client, server, node)


def tso(machine):
    node, client, server = (machine.namespace(name) for name in ("node", "client", "server"))
    vsctl = start(machine, node, "other_config:userspace-tso-enable=true")
    for port, place, own in (("v0", client, "10.77.0.2/24"), ("v1", server, "10.77.0.3/24")):
        veth(machine, node, port, place)
        machine.run(["ip", "-n", node.name, "link", "set", port, "up"])
        vsctl("add-port", "br0", port)
        address(machine, place, "eth0", own)
    if vsctl("get", "interface", "v0", "error").strip() != "[]":
        raise Failed("Open vSwitch does not take the veth: " + vsctl("get", "interface", "v0", "error"))
    return finish(client, server, node)


PROGRAMS = (*BASE, "ovs-vswitchd")

ROLES = [
    Role("ovs-tso", "Open vSwitch userspace: veth, TSO", PROGRAMS, tso),
    Role("ovs-internal", "Open vSwitch userspace: internal ports", PROGRAMS, internal),
]
