"""vde_switch with two TAPs."""

from kernel import BASE
from roles import Path, Role, address


def make(machine):
    node, client, server = (machine.namespace(name) for name in ("node", "client", "server"))
    # It opens the TAPs where it runs; they are moved. Its console is its input, whose end would be its end.
    switch = ["vde_switch", "-sock", machine.directory / "vde", "-tap", "tap0", "-tap", "tap1"]
    machine.start(switch, node, errors=machine.log("vde_switch.log"))
    for _ in range(100):
        if "tap1" in machine.run(["ip", "-n", node.name, "link"]):
            break
        machine.run(["sleep", "0.05"])
    for device, place, own in (("tap0", client, "10.77.0.2/24"), ("tap1", server, "10.77.0.3/24")):
        machine.run(["ip", "-n", node.name, "link", "set", device, "netns", place.name])
        address(machine, place, device, own)
    return Path(client, server, "10.77.0.3", "10.77.0.3", [node])


ROLES = [Role("vde", "vde_switch", (*BASE, "vde_switch"), make)]
