"""The language of conversations: who says what, and what came out of the router of it.

A conversation is a function of a `Talk`, played once to each router and in each family. What it says may depend on what
came out: a `Flow` answers to the endpoint that its packets came from, whichever the router chose.
"""
from scapy.all import (Ether, ICMP, IP, IPv6, Raw, TCP, UDP, ICMPv6EchoReply, ICMPv6EchoRequest)

from kernel import HOSTS, ROUTER

CONVERSATIONS = []
MACS = {address: mac for hosts in HOSTS.values() for address, mac in hosts}


def conversation(versions=(4, 6), **variants):
    """Registers a conversation. With NAME=[...], once for each of these values, which the function takes as NAME."""
    def register(play):
        title = play.__name__.replace("_", " ")
        for version in versions:
            choices = [{}]
            for key, values in variants.items():
                choices = [{**choice, key: value} for choice in choices for value in values]
            for choice in choices:
                words = ", ".join(str(value).replace("_", " ") for value in choice.values())
                name = f"v{version} {title}" + (f" ({words})" if words else "")
                CONVERSATIONS.append((name, version, lambda talk, choice=choice: play(talk, **choice)))
        return play
    return register


class Talk:
    """One conversation in one family with one router."""

    def __init__(self, router, version, number=0):
        self.router = router
        # Another one for each conversation.
        self.number = number
        self.version = version
        form = "10.{}.0.{}" if version == 4 else "fd00:{}::{}"
        net = form.format
        self.inside, self.inside2 = net(1, 2), net(1, 3)
        self.outside, self.outside2 = net(2, 2), net(2, 3)
        # Behind the host outside: a router on the way, and somebody further.
        self.hop, self.beyond = net(3, 1), net(3, 9)
        self.router_inside, self.external = net(1, 1), net(2, 1)

    def side(self, address):
        return "a" if address in (self.inside, self.inside2) else "b"

    def ip(self, source, destination, ttl=64, **fields):
        if self.version == 4:
            return IP(**{"src": source, "dst": destination, "ttl": ttl, "id": 0x1234, "flags": "DF", **fields})
        return IPv6(src=source, dst=destination, hlim=ttl, **fields)

    def say(self, *packets, side=None):
        """Sends IP packets from where their source is; what came out, as (side, IP packet)."""
        first = packets[0]
        side = side or self.side(first.src)
        frames = []
        for packet in packets:
            source = MACS.get(packet.src, HOSTS[side][0][1])
            frames.append(bytes(Ether(src=source, dst=ROUTER[side]["mac"]) / packet))
        kind = IP if self.version == 4 else IPv6
        return [(port, kind(frame[14:])) for port, frame in self.router.exchange(side, frames)]

    def echo(self, identifier, sequence=1, data=b"abcdefgh", answer=False, **fields):
        if self.version == 4:
            return ICMP(type=0 if answer else 8, id=identifier, seq=sequence, **fields) / Raw(data)
        return (ICMPv6EchoReply if answer else ICMPv6EchoRequest)(id=identifier, seq=sequence, data=data, **fields)

    def tcp(self, **arguments):
        return Flow(self, "tcp", **arguments)

    def udp(self, **arguments):
        return Flow(self, "udp", **arguments)

    def ping(self, **arguments):
        return Flow(self, "ping", **arguments)


class Flow:
    """Packets between two endpoints, either of which may be seen by the other as something else."""

    def __init__(self, talk, protocol, opener=None, port=40000, target=None, target_port=5000, responder=None):
        self.talk, self.protocol = talk, protocol
        self.opener = (opener or talk.inside, port)
        self.target = (target or talk.outside, target_port)
        # Who really answers, if that is somebody else than who is asked.
        self.responder = responder or self.target
        # How the responder knows the opener, and the last packet of each side that arrived at the other.
        self.seen = None
        self.heard = self.answered = None

    def upper(self, source_port, destination_port, payload, answer, **fields):
        if self.protocol == "tcp":
            flags, sequence, acknowledgement, length = payload
            tcp = TCP(**{"sport": source_port, "dport": destination_port, "flags": flags, "seq": sequence % 2**32,
                         "ack": acknowledgement % 2**32, "window": 1000, **fields})
            return tcp / Raw(b"x" * length) if length else tcp
        if self.protocol == "udp":
            return UDP(**{"sport": source_port, "dport": destination_port, **fields}) / Raw(payload)
        return self.talk.echo(destination_port if answer else source_port, data=payload, answer=answer, **fields)

    def forth_packet(self, payload, ip=None, **fields):
        packet = self.talk.ip(self.opener[0], self.target[0], **(ip or {}))
        return packet / self.upper(self.opener[1], self.target[1], payload, False, **fields)

    def back_packet(self, payload, ip=None, **fields):
        unseen = self.talk.external if self.talk.side(self.opener[0]) == "a" else self.opener[0]
        seen = self.seen or (unseen, self.opener[1])
        packet = self.talk.ip(self.responder[0], seen[0], **(ip or {}))
        return packet / self.upper(self.responder[1], seen[1], payload, True, **fields)

    def forth(self, *payload, ip=None, **fields):
        """The opener says something to its target."""
        payload = self.payload(payload, b"question")
        out = self.talk.say(self.forth_packet(payload, ip, **fields))
        side = self.talk.side(self.responder[0])
        for port, packet in out:
            source = self.source_of(packet)
            if port == side and source is not None:
                self.seen, self.heard = (packet.src, source), packet
        return out

    def back(self, *payload, ip=None, **fields):
        """The responder says something to whom it has seen."""
        payload = self.payload(payload, b"answer")
        out = self.talk.say(self.back_packet(payload, ip, **fields))
        side = self.talk.side(self.opener[0])
        for port, packet in out:
            if port == side and self.source_of(packet) is not None:
                self.answered = packet
        return out

    def payload(self, payload, default):
        """TCP's flags, number, acknowledgement and length, the last two of which may be left out; octets otherwise."""
        if self.protocol == "tcp":
            return (*payload, 0, 0)[:4]
        return payload[0] if payload else default

    def source_of(self, packet):
        """The packet's source port or identifier, if it is one of this flow's protocol."""
        if self.protocol == "ping":
            layer = packet.getlayer(ICMP) or packet.getlayer(ICMPv6EchoRequest) or packet.getlayer(ICMPv6EchoReply)
            return layer.id if layer is not None and layer.type in (0, 8, 128, 129) else None
        layer = packet.getlayer(TCP if self.protocol == "tcp" else UDP)
        return None if layer is None else layer.sport

    def handshake(self):
        """Three segments; the opener's numbers begin at 1000, the responder's at 5000."""
        self.forth("S", 1000)
        self.back("SA", 5000, 1001)
        self.forth("A", 1001, 5001)
        return self
