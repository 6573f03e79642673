"""The kernel by itself: a bridge between two veths (the reference), and services by iptables and nftables as kube-proxy
writes them, between two veths that the node routes for."""

from machine import Failed
from roles import MANY_ROWS, Path, Role, address
from rows import IPERF_PORT, LOAD_PORT

SERVICE = "10.96.0.100"
SERVER = "10.77.2.2"
PODS = "10.77.0.0/16"
OUTSIDE = "198.51.100.2"

# What clients ask of a service.
PORTS = (("tcp", IPERF_PORT), ("tcp", LOAD_PORT), ("udp", LOAD_PORT))


def veth(machine, node, outer, place):
    command = ["link", "add", outer, "type", "veth", "peer", "name", "eth0", "netns", place.name]
    machine.run(["ip", "-n", node.name, *command])


def bridge(machine):
    node, client, server = (machine.namespace(name) for name in ("node", "client", "server"))
    machine.run(["ip", "-n", node.name, "link", "add", "br0", "type", "bridge"])
    machine.run(["ip", "-n", node.name, "link", "set", "br0", "up"])
    for outer, place, own in (("v0", client, "10.77.0.2/24"), ("v1", server, "10.77.0.3/24")):
        veth(machine, node, outer, place)
        machine.run(["ip", "-n", node.name, "link", "set", outer, "master", "br0", "up"])
        address(machine, place, "eth0", own)
    # Where the module for it is loaded, bridged packets would pass the hooks of IP as well.
    if "bridge-nf-call-iptables" in bridge_hooks(machine, node):
        machine.run(["sysctl", "-q", "-w", "net.bridge.bridge-nf-call-iptables=0"], node)
    return Path(client, server, "10.77.0.3", "10.77.0.3", [node])


def bridge_hooks(machine, node):
    try:
        return machine.run(["ls", "/proc/sys/net/bridge"], node)
    except Failed:
        return ""


def routed(machine, asked, server_cidr=f"{SERVER}/24", gateway="10.77.2.1"):
    node, client, server = (machine.namespace(name) for name in ("node", "client", "server"))
    machine.run(["sysctl", "-q", "-w", "net.ipv4.ip_forward=1"], node)
    veth(machine, node, "v0", client)
    veth(machine, node, "v1", server)
    address(machine, node, "v0", "10.77.1.1/24")
    address(machine, node, "v1", f"{gateway}/24")
    address(machine, client, "eth0", "10.77.1.2/24", "10.77.1.1")
    address(machine, server, "eth0", server_cidr, gateway)
    return Path(client, server, asked, server_cidr.partition("/")[0], [node])


def services(count):
    """Services as (name, address, protocol, port, endpoints). Those that are asked stand in the middle of the others."""
    others = [
        (f"{number:05}", f"10.97.{number // 250}.{number % 250 + 1}", "tcp", 80,
         [f"10.77.{100 + number % 100}.{place}:8080" for place in (10, 11)])
        for number in range(count - 1)
    ]
    own = [(f"own{protocol}{port}", SERVICE, protocol, port, [f"{SERVER}:{port}"]) for protocol, port in PORTS]
    half = len(others) // 2
    return [*others[:half], *own, *others[half:]]


def iptables_rules(count):
    chains, jumps, rules = [], [], []
    for name, at, protocol, port, endpoints in services(count):
        service, match = f"KUBE-SVC-{name}", f"-d {at}/32 -p {protocol} -m {protocol} --dport {port}"
        comment = f'-m comment --comment "default/{name} cluster IP"'
        chains.append(service)
        jumps.append(f"-A KUBE-SERVICES {match} {comment} -j {service}")
        rules.append(f"-A {service} ! -s {PODS} {match} {comment} -j KUBE-MARK-MASQ")
        for number, endpoint in enumerate(endpoints):
            chain, left = f"KUBE-SEP-{name}-{number}", len(endpoints) - number
            chance = f"-m statistic --mode random --probability {1 / left:.10f} " if left > 1 else ""
            chains.append(chain)
            rules.append(f"-A {service} {chance}-j {chain}")
            rules.append(f"-A {chain} -s {endpoint.partition(':')[0]}/32 -j KUBE-MARK-MASQ")
            rules.append(f"-A {chain} -p {protocol} -m {protocol} -j DNAT --to-destination {endpoint}")
    names = ["KUBE-SERVICES", "KUBE-MARK-MASQ", "KUBE-POSTROUTING", *chains]
    return "\n".join(
        [
            "*filter",
            ":KUBE-FORWARD - [0:0]",
            "-A FORWARD -j KUBE-FORWARD",
            "-A KUBE-FORWARD -m conntrack --ctstate INVALID -j DROP",
            "-A KUBE-FORWARD -m mark --mark 0x4000/0x4000 -j ACCEPT",
            "-A KUBE-FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT",
            "COMMIT",
            "*nat",
            *(f":{name} - [0:0]" for name in names),
            "-A PREROUTING -j KUBE-SERVICES",
            "-A OUTPUT -j KUBE-SERVICES",
            "-A POSTROUTING -j KUBE-POSTROUTING",
            "-A KUBE-MARK-MASQ -j MARK --or-mark 0x4000",
            "-A KUBE-POSTROUTING -m mark ! --mark 0x4000/0x4000 -j RETURN",
            "-A KUBE-POSTROUTING -j MARK --xor-mark 0x4000",
            "-A KUBE-POSTROUTING -j MASQUERADE --random-fully",
            *jumps,
            *rules,
            "COMMIT\n",
        ]
    )


NFTABLES = """
table ip kube-proxy {
  set cluster-ips { type ipv4_addr; }
  map no-endpoint-services { type ipv4_addr . inet_proto . inet_service : verdict; }
  map firewall-ips { type ipv4_addr . inet_proto . inet_service : verdict; }
  map service-ips { type ipv4_addr . inet_proto . inet_service : verdict; }
  chain mark-for-masquerade { meta mark set meta mark or 0x4000; }
  chain masquerading {
    meta mark and 0x4000 == 0 return
    meta mark set meta mark xor 0x4000
    masquerade fully-random
  }
  chain services { ip daddr . meta l4proto . th dport vmap @service-ips; }
  chain service-endpoints-check { ip daddr . meta l4proto . th dport vmap @no-endpoint-services; }
  chain cluster-ips-check { ip daddr @cluster-ips reject; ip daddr 10.96.0.0/12 drop; }
  chain firewall-check { ip daddr . meta l4proto . th dport vmap @firewall-ips; }
  chain filter-prerouting {
    type filter hook prerouting priority -110; policy accept;
    ct state new jump firewall-check
  }
  chain filter-forward {
    type filter hook forward priority -110; policy accept;
    ct state new jump service-endpoints-check
    ct state new jump cluster-ips-check
  }
  chain nat-prerouting { type nat hook prerouting priority dstnat; policy accept; jump services; }
  chain nat-output { type nat hook output priority -100; policy accept; jump services; }
  chain nat-postrouting { type nat hook postrouting priority srcnat; policy accept; jump masquerading; }
}
"""

# nft takes more than its share of time for many chains at once.
SERVICES_AT_ONCE = 500


def nftables_services(some):
    chains, elements = [], []
    for name, at, protocol, port, endpoints in some:
        verdicts = []
        for number, endpoint in enumerate(endpoints):
            chain, own = f"endpoint-{name}-{number}", endpoint.partition(":")[0]
            verdicts.append(f"{number} : goto {chain}")
            rule = f"meta l4proto {protocol} dnat to {endpoint}"
            chains.append(f"chain {chain} {{ ip saddr {own} jump mark-for-masquerade; {rule}; }}")
        chains.append(
            f"chain service-{name} {{ ip daddr {at} {protocol} dport {port} ip saddr != {PODS} jump mark-for-masquerade; "
            f"numgen random mod {len(endpoints)} vmap {{ {', '.join(verdicts)} }}; }}"
        )
        elements.append(f"{at} . {protocol} . {port} : goto service-{name}")
    addresses = dict.fromkeys(at for _, at, *_ in some)
    return "\n".join(
        [
            "table ip kube-proxy {",
            *chains,
            "}",
            f"add element ip kube-proxy service-ips {{ {', '.join(elements)} }}",
            f"add element ip kube-proxy cluster-ips {{ {', '.join(addresses)} }}\n",
        ]
    )


def by_iptables(count):
    def make(machine):
        path = routed(machine, SERVICE)
        machine.run(["iptables-restore"], path.between[0], 120, iptables_rules(count))
        return path

    return make


def by_nftables(count):
    def make(machine):
        path = routed(machine, SERVICE)
        every = services(count)
        parts = [every[at : at + SERVICES_AT_ONCE] for at in range(0, len(every), SERVICES_AT_ONCE)]
        for text in [NFTABLES, *map(nftables_services, parts)]:
            machine.run(["nft", "-f", "-"], path.between[0], 120, text)
        return path

    return make


def masquerade(machine):
    path = routed(machine, OUTSIDE, f"{OUTSIDE}/24", "198.51.100.1")
    rules = "table ip nat { chain out { type nat hook postrouting priority srcnat; oifname v1 masquerade; }; }"
    machine.run(["nft", "-f", "-"], path.between[0], text=rules)
    return path


BASE = ("ip", "iperf3", "gcc", "setpriv")

ROLES = [
    Role("kernel", "kernel: veth and bridge", BASE, bridge),
    Role("kernel-iptables", "kernel: service by iptables", (*BASE, "iptables-restore"), by_iptables(1)),
    Role("kernel-nft", "kernel: service by nftables", (*BASE, "nft"), by_nftables(1)),
    Role("kernel-masquerade", "kernel: masquerade by nftables", (*BASE, "nft"), masquerade),
    Role(
        "kernel-iptables-10k",
        "kernel: 10,000 services by iptables",
        (*BASE, "iptables-restore"),
        by_iptables(10_000),
        MANY_ROWS,
    ),
    Role("kernel-nft-10k", "kernel: 10,000 services by nftables", (*BASE, "nft"), by_nftables(10_000), MANY_ROWS),
]
