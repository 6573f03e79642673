"""Conversations about ports: who gets which, and who may use it."""
import random

from scapy.all import (ICMP, IP, IPv6, Raw, ICMPv6Unknown, IPv6ExtHdrFragment, SCTP, SCTPChunkAbort, SCTPChunkCookieAck,
                       SCTPChunkCookieEcho, SCTPChunkData, SCTPChunkInit, SCTPChunkInitAck, SCTPChunkSACK,
                       SCTPChunkShutdown, SCTPChunkShutdownAck, SCTPChunkShutdownComplete, fragment)

from talk import Flow, conversation


@conversation()
def udp_question_and_answer(c):
    f = c.udp(target_port=53)
    f.forth()
    f.back()
    f.forth(b"another")
    f.back(b"")
    f.forth(b"")


@conversation()
def udp_published(c):
    f = c.udp(opener=c.outside, target=c.external, target_port=8080, responder=(c.inside, 80))
    f.forth()
    f.back()
    f.forth()
    f.back()


@conversation(protocol=["tcp", "udp"])
def published_to_two_outside(c, protocol):
    for opener in (c.outside, c.outside2):
        f = Flow(c, protocol, opener=opener, target=c.external, target_port=8080, responder=(c.inside, 80))
        f.forth(*(("S", 1000) if protocol == "tcp" else ()))
        f.back(*(("SA", 5000, 1001) if protocol == "tcp" else ()))


@conversation()
def ping(c):
    f = c.ping(port=7)
    f.forth()
    f.back()
    f.back()
    f.forth(b"x" * 1000)
    f.back(b"x" * 1000)


@conversation(protocol=["tcp", "udp", "ping"], second=["same_target", "other_target", "other_port"])
def two_inside_with_one_port(c, protocol, second):
    words = {"tcp": (("S", 1000), ("SA", 5000, 1001)), "udp": ((), ()), "ping": ((), ())}[protocol]
    one = Flow(c, protocol, opener=c.inside, target_port=80)
    two = Flow(c, protocol, opener=c.inside2, target=c.outside2 if second == "other_target" else c.outside,
               target_port=81 if second == "other_port" else 80)
    for flow in (one, two):
        flow.forth(*words[0])
    for flow in (two, one, two):
        flow.back(*words[1])
    two.forth(*words[0])
    # The first one's mapping, asked for by the second one's peer, and the other way.
    one.responder, two.responder = two.responder, one.responder
    for flow in (one, two):
        flow.back(*words[1])


@conversation(protocol=["tcp", "udp"])
def one_port_to_three_targets(c, protocol):
    words = {"tcp": (("S", 1000), ("SA", 5000, 1001)), "udp": ((), ())}[protocol]
    for target, port in ((c.outside, 80), (c.outside, 81), (c.outside2, 80), (c.beyond, 80)):
        f = Flow(c, protocol, target=target, target_port=port)
        f.forth(*words[0])
        f.back(*words[1])


@conversation(protocol=["udp"], stranger=["other_port", "other_host"])
def stranger_asks_a_mapping(c, protocol, stranger):
    f = c.udp(target_port=80)
    f.forth()
    f.back()
    f.responder = (c.outside, 81) if stranger == "other_port" else (c.outside2, 80)
    f.back()
    f.responder = f.target
    f.back()
    f.forth()


@conversation()
def udp_unsolicited(c):
    f = c.udp(opener=c.outside, port=700, target=c.external, target_port=40000)
    f.forth()
    g = c.udp(port=40000, target_port=700)
    g.forth()
    g.back()


@conversation()
def tcp_unsolicited(c):
    f = c.tcp(opener=c.outside, port=700, target=c.external, target_port=40000)
    f.forth("S", 1000)
    g = c.tcp(port=40000, target_port=700)
    g.forth("S", 3000)
    g.back("SA", 5000, 3001)


@conversation(protocol=["udp", "tcp", "ping"])
def straight_to_the_inside(c, protocol):
    words = {"tcp": (("S", 1000), ("SA", 5000, 1001)), "udp": ((), ()), "ping": ((), ())}[protocol]
    f = Flow(c, protocol, opener=c.outside, target=c.inside)
    f.forth(*words[0])
    f.back(*words[1])
    f.forth(*(("A", 1001, 5001) if protocol == "tcp" else ()))


@conversation()
def ping_external(c):
    c.ping(opener=c.outside, target=c.external).forth()


@conversation(answer=["reply"])
def ping_answer_nobody_asked(c, answer):
    c.say(c.ip(c.outside, c.external) / c.echo(7, answer=True))
    c.say(c.ip(c.inside, c.outside) / c.echo(7, answer=True))


@conversation(protocol=["tcp", "udp"], port=[1, 700, 1023])
def low_ports_of_two_inside(c, protocol, port):
    words = {"tcp": (("S", 1000), ("SA", 5000, 1001)), "udp": ((), ())}[protocol]
    for opener in (c.inside, c.inside2):
        f = Flow(c, protocol, opener=opener, port=port, target_port=80)
        f.forth(*words[0])
        f.back(*words[1])


@conversation(protocol=["tcp", "udp"])
def port_of_a_published_one(c, protocol):
    """Somebody inside uses the published port as its own, towards who uses what is published."""
    words = {"tcp": (("S", 1000), ("SA", 5000, 1001)), "udp": ((), ())}[protocol]
    f = Flow(c, protocol, opener=c.outside, port=700, target=c.external, target_port=8080, responder=(c.inside, 80))
    g = Flow(c, protocol, opener=c.inside2, port=8080, target_port=700)
    for flow in (f, g, f):
        flow.forth(*words[0])
        flow.back(*words[1])


@conversation(versions=(4,), kind=[6, 9, 10, 13, 15, 17, 18, 30, 42])
def icmp_types(c, kind):
    c.say(c.ip(c.inside, c.outside) / ICMP(type=kind, id=7, seq=1) / Raw(b"x" * 12))
    c.say(c.ip(c.outside, c.external) / ICMP(type=kind, id=7, seq=1) / Raw(b"x" * 12))
    c.say(c.ip(c.outside, c.external) / ICMP(type=kind + 1, id=7, seq=1) / Raw(b"x" * 12))


@conversation(versions=(6,), kind=[5, 100, 127, 130, 139, 144, 200])
def icmpv6_types(c, kind):
    c.say(c.ip(c.inside, c.outside) / ICMPv6Unknown(type=kind, msgbody=b"\0\0\0\0" * 5))
    c.say(c.ip(c.outside, c.external) / ICMPv6Unknown(type=kind, msgbody=b"\0\0\0\0" * 5))


@conversation()
def sctp(c):
    def say(source, destination, tag, *chunks):
        packet = c.ip(*source[:1], *destination[:1]) / SCTP(sport=source[1], dport=destination[1], tag=tag)
        for chunk in chunks:
            packet /= chunk
        return c.say(packet)
    inside, external, outside = (c.inside, 40000), (c.external, 40000), (c.outside, 80)
    say(inside, outside, 0, SCTPChunkInit(init_tag=11))
    say(outside, external, 11, SCTPChunkInitAck(init_tag=22))
    say(inside, outside, 22, SCTPChunkCookieEcho(cookie=b"biscuits"))
    say(outside, external, 11, SCTPChunkCookieAck())
    say(inside, outside, 22, SCTPChunkData(data=b"abcd"))
    say(inside, outside, 23, SCTPChunkData(data=b"abcd"))
    say(outside, external, 11, SCTPChunkSACK())
    say(outside, external, 12, SCTPChunkAbort())
    say(inside, outside, 22, SCTPChunkShutdown())
    say(outside, external, 11, SCTPChunkShutdownAck())
    say(inside, outside, 22, SCTPChunkShutdownComplete())


def pieces(c, packet, size):
    """The packet's fragments. Two packets of a conversation have the same identification, if they have other addresses."""
    # Fragments of which others are missing wait for them, also when another conversation has begun.
    identification = 0x4000 + c.number
    if c.version == 4:
        packet.flags, packet.id = 0, identification
        return [IP(bytes(piece)) for piece in fragment(IP(bytes(packet)), fragsize=size)]
    # Without a fragment header of scapy's own choice: its identification would be random.
    whole = IPv6(bytes(packet))
    upper, found = bytes(whole.payload), []
    for at in range(0, len(upper), size):
        header = IPv6ExtHdrFragment(nh=whole.nh, id=identification, offset=at // 8, m=int(at + size < len(upper)))
        found.append(IPv6(src=whole.src, dst=whole.dst, hlim=whole.hlim) / header / Raw(upper[at:at + size]))
    return found


@conversation(protocol=["udp", "ping", "tcp"], order=["in_order", "reversed", "first_last"])
def fragments(c, protocol, order):
    arrange = {"in_order": lambda p: p, "reversed": lambda p: p[::-1], "first_last": lambda p: p[1:] + p[:1]}[order]
    f = Flow(c, protocol, target_port=80)
    if protocol == "tcp":
        f.handshake()
        forth, back = f.forth_packet(("PA", 1001, 5001, 900)), f.back_packet(("PA", 5001, 1901, 900))
    else:
        forth, back = f.forth_packet(b"q" * 900), f.back_packet(b"a" * 900)
    c.say(*arrange(pieces(c, forth, 400)))
    c.say(*arrange(pieces(c, back, 400)))


@conversation(sayer=["opener", "responder"])
def fragments_of_tcp_are_acknowledged(c, sayer):
    f = c.tcp(target_port=80).handshake()
    if sayer == "opener":
        c.say(*pieces(c, f.forth_packet(("PA", 1001, 5001, 900)), 400))
        f.back("A", 5001, 1901)
        f.forth("PA", 1901, 5001, 10)
    else:
        c.say(*pieces(c, f.back_packet(("PA", 5001, 1001, 900)), 400))
        f.forth("A", 1001, 5901)
        f.back("PA", 5901, 1001, 10)


@conversation()
def fragments_of_two_inside_hosts(c):
    one, two = (c.udp(opener=host, target_port=80) for host in (c.inside, c.inside2))
    for f in (one, two):
        c.say(*pieces(c, f.forth_packet(b"q" * 900), 400))


@conversation(fault=["missing_first", "missing_last", "overlap", "duplicate"])
def fragments_with_a_fault(c, fault):
    f = c.udp(target_port=80)
    parts = pieces(c, f.forth_packet(b"q" * 900), 400)
    if fault == "missing_first":
        parts = parts[1:]
    elif fault == "missing_last":
        parts = parts[:-1]
    elif fault == "duplicate":
        parts = [parts[0], parts[1], parts[1], parts[2]]
    else:
        again = pieces(c, f.forth_packet(b"q" * 900), 424)
        parts = [parts[0], parts[1], again[1], parts[2]]
    c.say(*parts)


@conversation(checksum=["none", "wrong"])
def udp_checksums(c, checksum):
    value = 0 if checksum == "none" else 0x1234
    f = c.udp(target_port=53)
    f.forth(chksum=value)
    f.back(chksum=value)
    f.forth()
    f.back(chksum=value)
    f.forth(chksum=value)


@conversation(where=["first", "later"])
def ping_with_wrong_checksum(c, where):
    field = {"chksum" if c.version == 4 else "cksum": 0x1234}
    f = c.ping(port=7)
    if where == "first":
        f.forth(**field)
    else:
        f.forth()
        f.back(**field)
        f.forth(**field)
    f.back()


@conversation(length=["short", "long", "zero"])
def udp_length(c, length):
    f = c.udp(target_port=53)
    f.forth(len={"short": 7, "long": 100, "zero": 0}[length])
    f.back()
    f.forth()
    f.back(len={"short": 7, "long": 100, "zero": 0}[length])


@conversation(versions=(4,), protocol=["tcp", "udp", "ping"])
def options_in_the_header(c, protocol):
    words = {"tcp": (("S", 1000), ("SA", 5000, 1001)), "udp": ((), ()), "ping": ((), ())}[protocol]
    f = Flow(c, protocol, target_port=80)
    f.forth(*words[0], ip=dict(options=[b"\x94\x04\x00\x00"]))
    f.back(*words[1], ip=dict(options=[b"\x01\x01\x01\x00"]))


@conversation(number=[50, 51, 253])
def other_protocols(c, number):
    field = "proto" if c.version == 4 else "nh"
    def say(source, destination):
        c.say(c.ip(source, destination, **{field: number}) / Raw(b"\0\0\x10\0" * 10))
    say(c.inside, c.outside)
    say(c.outside, c.external)
    say(c.inside2, c.outside)
    say(c.inside2, c.outside2)
    say(c.outside, c.external)


@conversation(protocol=["tcp", "udp"])
def hairpin_to_a_published_port(c, protocol):
    words = {"tcp": (("S", 1000), ("SA", 5000, 1001)), "udp": ((), ())}[protocol]
    f = Flow(c, protocol, opener=c.inside2, target=c.external, target_port=8080, responder=(c.inside, 80))
    f.forth(*words[0])
    f.back(*words[1])


@conversation()
def hairpin_to_a_mapping(c):
    f = c.udp(target_port=80)
    f.forth()
    g = c.udp(opener=c.inside2, port=50000, target=c.external, target_port=40000, responder=(c.inside, 40000))
    g.forth()
    g.back()


@conversation(protocol=["udp", "tcp", "ping"], seed=range(23))
def ports_at_random(c, protocol, seed):
    """Hosts inside that share ports, hosts outside that answer, repeat themselves or ask whom they should not."""
    chance = random.Random(seed)
    words = {"tcp": (("S", 1000), ("SA", 5000, 1001)), "udp": ((), ()), "ping": ((), ())}[protocol]
    flows = []
    for _ in range(24):
        kinds = ["new"] + ["again", "answer", "answer"] * (flows != []) + ["published"] * (protocol != "ping")
        kind = chance.choice(kinds)
        if kind == "published":
            f = Flow(c, protocol, opener=chance.choice([c.outside, c.outside2]), port=chance.choice([40000, 40001, 80]),
                     target=c.external, target_port=8080, responder=(c.inside, 80))
        elif kind == "new":
            f = Flow(c, protocol, opener=chance.choice([c.inside, c.inside2]), port=chance.choice([40000, 40001, 8080]),
                     target=chance.choice([c.outside, c.outside2, c.beyond]), target_port=chance.choice([80, 81]))
        else:
            f = chance.choice(flows)
        if kind == "answer":
            f.back(*words[1])
        else:
            f.forth(*words[0])
            flows.append(f)
