"""`vswitch up`: a client and a server as pods of one node, or the server on a segment that is external."""

import json
import os
import time

from kernel import BASE, PORTS, SERVICE
from machine import NETNS, Failed, Place, Skipped, written
from roles import MANY_ROWS, Path, Role

# Variables for each of 10,000 services are more than execve(2) takes, here as on any node.
CLUSTER = """\
apiVersion: vswitch/v1alpha1
kind: Cluster
spec:
  proxyMode: {proxy}
  images: {{idle: [sleep, infinity]}}
  segments:
    - {{name: rack, cidrs: [10.20.30.0/24, "fd00:20:30::/64"]}}
    - {{name: outside, cidrs: [198.51.100.0/24, "2001:db8:100::/64"], external: true}}
  hosts: [{{name: outside, addresses: [198.51.100.2]}}]
---
apiVersion: v1
kind: Pod
metadata: {{name: client}}
spec: {{enableServiceLinks: false, containers: [{{name: idle, image: idle}}]}}
---
apiVersion: v1
kind: Pod
metadata: {{name: server, labels: {{app: server}}}}
spec: {{enableServiceLinks: false, containers: [{{name: idle, image: idle}}]}}
"""

# Services without a selector, as many as those of the kernel's rules, with two endpoints each.
OTHER = """\
---
apiVersion: v1
kind: Service
metadata: {{name: s{number:05}}}
spec: {{clusterIP: {address}, ports: [{{port: 80, targetPort: 8080}}]}}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {{name: s{number:05}, labels: {{kubernetes.io/service-name: s{number:05}}}}}
addressType: IPv4
ports: [{{port: 8080}}]
endpoints: [{{addresses: [10.128.{row}.10]}}, {{addresses: [10.128.{row}.11]}}]
"""


def manifest(services, proxy):
    text = CLUSTER.format(proxy=proxy)
    if not services:
        return text
    ports = ", ".join(
        f"{{name: {protocol}{port}, protocol: {protocol.upper()}, port: {port}}}" for protocol, port in PORTS
    )
    text += "---\napiVersion: v1\nkind: Service\nmetadata: {name: server}\n"
    text += f"spec: {{clusterIP: {SERVICE}, selector: {{app: server}}, ports: [{ports}]}}\n"
    for number in range(services - 1):
        at = f"10.97.{number // 250}.{number % 250 + 1}"
        text += OTHER.format(number=number, address=at, row=number % 250)
    return text


def understands(machine, option):
    return option in machine.run([machine.vswitch, "up", "--help"])


def up(machine, text, options, place=None):
    """Starts a cluster, in a namespace if one is named, waits until it can be asked, and gives where its places are, by name."""
    state, file = machine.directory / "state", machine.directory / "cluster.yaml"
    file.write_text(text)
    reading, writing = os.pipe()
    command = [machine.vswitch, "up", "--require", "tap", "--name", f"{machine.prefix}-us", "--state-dir", state, "-f", file]
    process = machine.start(
        [*command, "--ready-fd", writing, *options],
        place,
        output=machine.log("vswitch.out"),
        errors=machine.log("vswitch.log"),
        pass_fds=(writing,),
    )
    os.close(writing)
    ready = written(reading, "\n", 60)
    os.close(reading)
    if not ready:
        process.end()
        said = (machine.directory / "vswitch.log").read_text()[-600:]
        raise Failed(f"vswitch up did not get ready; it said: {said}")

    def get(kind):
        return json.loads(machine.run([machine.vswitch, "get", kind, "-o", "json", "--state-dir", state]))

    # A service leads to nobody before its pods are ready.
    for _ in range(100):
        if all(pod["status"]["conditions"][0]["status"] == "True" for pod in get("pods")):
            return {place["place"].rpartition("/")[2]: place for place in get("places")}
        time.sleep(0.05)
    raise Failed("the pods did not get ready within five seconds")


def cluster(asked="server", services=0, proxy="maglev", options=()):
    """A role: whom the client asks, how many services there are, and with which options of `up`."""

    def make(machine):
        for option in options:
            if not understands(machine, option.partition("=")[0]):
                raise Skipped(f"this vswitch has no {option}")
        places = up(machine, manifest(services, proxy), options)
        client, server = places["client"], places["outside" if asked == "outside" else "server"]
        own = next(a for a in server["addresses"] if ":" not in a)
        for place in (client, server):
            if not (NETNS / place["netns"]).exists():
                raise Failed(f"there is no namespace {place['netns']}")
        asked_at = SERVICE if asked == "service" else own
        return Path(Place(client["netns"]), Place(server["netns"]), asked_at, own)

    return make


def role(name, title, make, rows=None):
    return Role(name, title, BASE, make, rows, ours=True)


TCP_ROWS = ("tcp1", "tcp4")

ROLES = [
    role("vswitch", "vswitch", cluster()),
    role("vswitch-low", "vswitch --latency=low", cluster(options=("--latency=low",))),
    role("vswitch-idle", "vswitch --latency=idle", cluster(options=("--latency=idle",))),
    role("vswitch-vip", "vswitch: service (DNAT, Maglev)", cluster("service", services=1)),
    role("vswitch-snat", "vswitch: masquerade", cluster("outside")),
    role("vswitch-10k", "vswitch: 10,000 services", cluster("service", services=10_000), MANY_ROWS),
    role("vswitch-proxy", "vswitch: service, proxyMode: userspace", cluster("service", 1, "userspace")),
    role("vswitch-no-offload", "vswitch --no-offload", cluster(options=("--no-offload",)), TCP_ROWS),
]
