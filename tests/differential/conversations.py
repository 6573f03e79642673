#!/usr/bin/python3
"""Plays every conversation to a Linux router that translates, and then to ours, which answers on standard input.

One line of JSON at a time. Here to there:
- {"begin": name} before a conversation;
- {"send": [side, [frame, ...]]}, answered by the frames that came out as [[side, frame], ...];
- {"linux": [[side, [sent, ...], [[side, frame], ...], [connection, ...]], ...]} after the conversation: for each step what
  Linux made of it, and what it tracked then;
- {"end": kernel release}.
"""
import ipaddress
import json
import os
import select
import socket
import subprocess
import sys
import time

from scapy.all import ARP, Ether

from kernel import (ENDS_NS, HOSTS, PACKET_OUTGOING, ROUTER, ROUTER_NS, chatter, enter, namespaces, open_port,
                    set_up_router)
from talk import CONVERSATIONS, Talk
import nat_errors
import nat_ports
import nat_tcp

RULES = """
table inet t {
  chain invalid_forward { type filter hook forward priority filter; ct state invalid drop; }
  chain invalid_input { type filter hook input priority filter; ct state invalid drop; }
  chain source { type nat hook postrouting priority srcnat; oifname "b" masquerade; }
  chain destination {
    type nat hook prerouting priority dstnat
    ip daddr 10.2.0.1 tcp dport 8080 dnat ip to 10.1.0.2:80
    ip daddr 10.2.0.1 udp dport 8080 dnat ip to 10.1.0.2:80
    ip6 daddr fd00:2::1 tcp dport 8080 dnat ip6 to [fd00:1::2]:80
    ip6 daddr fd00:2::1 udp dport 8080 dnat ip6 to [fd00:1::2]:80
  }
}
"""
# Seconds that a conversation may take: on a busy machine it is repeated, since connections have times.
MOST = 2
ATTEMPTS = 10
NETLINK_NETFILTER = 12
# NFNL_SUBSYS_CTNETLINK and IPCTNL_MSG_CT_DELETE; NLM_F_REQUEST and NLM_F_ACK.
FLUSH = b"\x14\0\0\0\x02\x01\x05\0\0\0\0\0\0\0\0\0\0\0\0\0"


class Linux:
    """The kernel. What follows from a frame has happened when the answer to an ARP request sent after it is there: all
    of it happens on one processor, in order."""

    def __init__(self):
        os.sched_setaffinity(0, [min(os.sched_getaffinity(0))])
        self.ports = {name: open_port(name) for name in ROUTER}
        self.names = {handle: name for name, handle in self.ports.items()}
        enter(ROUTER_NS)
        self.netlink = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_NETFILTER)
        enter(ENDS_NS)

    def begin(self, name):
        self.steps = []
        self.netlink.send(FLUSH)
        answer = self.netlink.recv(4096)
        assert answer[16:20] == b"\0\0\0\0", f"the connections are not flushed: {answer.hex()}"

    def exchange(self, side, frames):
        for frame in frames:
            self.ports[side].send(frame)
        out = self.settle(side)
        self.steps.append([side, [frame.hex() for frame in frames], [[port, frame.hex()] for port, frame in out],
                           self.connections()])
        return out

    def connections(self):
        """What is tracked of the inside hosts: [protocol, state, seconds left, answered, assured as TCP]."""
        enter(ROUTER_NS)
        with open("/proc/thread-self/net/nf_conntrack") as handle:
            lines = [line.split() for line in handle]
        enter(ENDS_NS)
        inside = {ipaddress.ip_address(address).exploded for address, _ in HOSTS["a"]}
        ends = {f"{end}={address}" for end in ("src", "dst") for address in inside}
        stateful = ("tcp", "sctp")
        return [[words[2], words[5] if words[2] in stateful else "", int(words[4]), "[UNREPLIED]" not in words,
                 words[2] == "tcp" and "[ASSURED]" in words] for words in lines if ends & set(words)]

    def settle(self, side):
        """Frames that have come, when everything has."""
        host, mac = HOSTS[side][0]
        router = ROUTER[side]["addresses"][0].split("/")[0]
        fence = Ether(src=mac, dst="ff:ff:ff:ff:ff:ff") / ARP(op=1, hwsrc=mac, psrc=host, pdst=router)
        self.ports[side].send(bytes(fence))
        found, settled, deadline = [], False, time.monotonic() + 60
        while True:
            readable, _, _ = select.select(list(self.names), [], [], 0 if settled else 0.5)
            if not readable and settled:
                return found
            assert time.monotonic() < deadline, "the router does not answer"
            for handle in readable:
                data, address = handle.recvfrom(65536)
                if address[2] == PACKET_OUTGOING or chatter(data) or is_aside(data):
                    continue
                if data[12:14] == b"\x08\x06" and data[20:22] == b"\0\2":
                    settled = True
                else:
                    found.append((self.names[handle], data))


def is_aside(data):
    """Redirects of IPv6, which Linux cannot be told not to send, and that fragments of an earlier conversation never
    became a datagram."""
    return data[12:14] == b"\x86\xdd" and data[20] == 58 and (data[54] == 137 or data[54:56] == b"\x03\x01")


class Ours:
    """Our switch, at the other end of standard input and output."""

    def begin(self, name):
        tell({"begin": name})

    def exchange(self, side, frames):
        tell({"send": [side, [frame.hex() for frame in frames]]})
        return [(port, bytes.fromhex(frame)) for port, frame in json.loads(sys.stdin.readline())]


def tell(message):
    print(json.dumps(message), flush=True)


def main():
    with namespaces():
        set_up_router()
        subprocess.run(["ip", "netns", "exec", ROUTER_NS, "nft", "-f", "-"], input=RULES, text=True, check=True)
        time.sleep(0.5)
        linux, ours = Linux(), Ours()
        chosen = sys.argv[1:]
        for number, (name, version, play) in enumerate(CONVERSATIONS):
            if chosen and not any(part in name for part in chosen):
                continue
            for attempt in range(ATTEMPTS):
                talk = (version, number + attempt * len(CONVERSATIONS))
                start = time.monotonic()
                linux.begin(name)
                play(Talk(linux, *talk))
                if time.monotonic() - start < MOST:
                    break
            ours.begin(name)
            play(Talk(ours, *talk))
            tell({"linux": linux.steps})
        tell({"end": os.uname().release})


main()
