"""Conversations in which ICMP errors appear."""
from scapy.all import (ICMP, Raw, ICMPv6DestUnreach, ICMPv6PacketTooBig, ICMPv6ParamProblem, ICMPv6TimeExceeded,
                       IPv6ExtHdrHopByHop, PadN)

from talk import Flow, conversation

KINDS = {4: {"port": dict(type=3, code=3), "host": dict(type=3, code=1), "too_big": dict(type=3, code=4, nexthopmtu=1300),
             "exceeded": dict(type=11, code=0), "parameter": dict(type=12, code=0), "quench": dict(type=4, code=0),
             "redirect": dict(type=5, code=1), "unassigned": dict(type=3, code=13)},
         6: {"port": ICMPv6DestUnreach(code=4), "host": ICMPv6DestUnreach(code=3), "too_big": ICMPv6PacketTooBig(mtu=1300),
             "exceeded": ICMPv6TimeExceeded(), "parameter": ICMPv6ParamProblem(), "unassigned": ICMPv6DestUnreach(code=1)}}


def error(c, kind, source, about, octets, ip=None, header=None, **fields):
    """An error from `source` to who sent the packet `about`, as it arrived; quotes so many octets of its upper layer."""
    quoted = bytes(about)
    length = (quoted[0] & 15) * 4 if c.version == 4 else 40
    quoted = quoted[:length + octets]
    if header:
        quoted = header(quoted)
    if c.version == 4:
        message = ICMP(**{**KINDS[4][kind], **fields}) / Raw(quoted)
    else:
        message = KINDS[6][kind].copy() / Raw(quoted)
        for name, value in fields.items():
            setattr(message, "cksum" if name == "chksum" else name, value)
    return c.ip(source, about.src, **(ip or {})) / message


def begun(c, protocol, size=600, **arguments):
    """A flow whose first packet, of so many octets, has reached its target."""
    f = Flow(c, protocol, target_port=80, **arguments)
    if protocol == "tcp":
        f.handshake()
        f.forth("PA", 1001, 5001, size)
    else:
        f.forth(b"q" * size)
    return f


@conversation(protocol=["tcp", "udp", "ping"], octets=[8, 28, 548], sayer=["target", "hop"])
def error_from_outside(c, protocol, octets, sayer):
    f = begun(c, protocol)
    c.say(error(c, "port" if sayer == "target" else "exceeded", c.outside if sayer == "target" else c.hop, f.heard, octets))
    f.back(*(("A", 5001, 1601) if protocol == "tcp" else ()))


@conversation(protocol=["tcp", "udp", "ping"], octets=[8, 28, 548])
def error_from_inside(c, protocol, octets):
    f = begun(c, protocol)
    f.back(*(("PA", 5001, 1601, 600) if protocol == "tcp" else (b"a" * 600,)))
    c.say(error(c, "port", c.inside, f.answered, octets))
    c.say(error(c, "exceeded", c.inside2, f.answered, octets))


@conversation(protocol=["tcp", "udp"], octets=[8, 28, 548])
def error_about_what_was_published(c, protocol, octets):
    f = Flow(c, protocol, opener=c.outside, target=c.external, target_port=8080, responder=(c.inside, 80))
    if protocol == "tcp":
        f.handshake()
        f.forth("PA", 1001, 5001, 600)
        f.back("PA", 5001, 1601, 600)
    else:
        f.forth(b"q" * 600)
        f.back(b"a" * 600)
    c.say(error(c, "port", c.inside, f.heard, octets))
    c.say(error(c, "exceeded", c.inside2, f.heard, octets))
    c.say(error(c, "port", c.outside, f.answered, octets))
    c.say(error(c, "exceeded", c.hop, f.answered, octets))


@conversation(kind=["port", "host", "too_big", "exceeded", "parameter", "unassigned"], side=["outside", "inside"])
def error_kinds(c, kind, side):
    f = begun(c, "udp")
    f.back(b"a" * 600)
    f.forth(b"q" * 600)
    about, source = (f.heard, c.hop) if side == "outside" else (f.answered, c.inside)
    c.say(error(c, kind, source, about, 548))
    f.back()
    f.forth()


@conversation(versions=(4,), kind=["quench", "redirect"])
def error_kinds_of_ipv4(c, kind):
    f = begun(c, "udp")
    c.say(error(c, kind, c.hop, f.heard, 28))
    f.back()


@conversation(versions=(4,), protocol=["tcp", "udp", "ping"], octets=[8, 28, 548])
def error_with_options(c, protocol, octets):
    options = dict(options=[b"\x94\x04\x00\x00"])
    f = begun(c, protocol)
    f.forth(*(("PA", 1001, 5001, 600) if protocol == "tcp" else (b"q" * 600,)), ip=options)
    c.say(error(c, "exceeded", c.hop, f.heard, octets))
    c.say(error(c, "exceeded", c.hop, f.heard, octets, ip=options))
    f.back(*(("PA", 5001, 1601, 600) if protocol == "tcp" else (b"a" * 600,)), ip=options)
    c.say(error(c, "port", c.inside, f.answered, octets, ip=options))


@conversation(versions=(6,), octets=[16, 28, 548])
def error_with_extension_headers(c, octets):
    f = begun(c, "udp")
    packet = c.ip(c.inside, c.outside) / IPv6ExtHdrHopByHop(options=[PadN(optdata=b"\0\0\0\0")])
    out = c.say(packet / f.upper(f.opener[1], f.target[1], b"q" * 600, False))
    heard = [packet for port, packet in out if port == "b"][0]
    c.say(error(c, "exceeded", c.hop, heard, octets))


@conversation(fault=["quoted_header", "quoted_port", "quoted_address", "checksum", "quoted_length", "quoted_ttl"])
def error_with_a_fault(c, fault):
    at = {"quoted_header": 10, "quoted_port": 20, "quoted_address": 19, "quoted_length": 3, "quoted_ttl": 8}
    at6 = {"quoted_header": 7, "quoted_port": 40, "quoted_address": 39, "quoted_length": 5, "quoted_ttl": 7}

    def broken(quoted):
        octets = bytearray(quoted)
        octets[(at if c.version == 4 else at6)[fault]] ^= 1
        return bytes(octets)
    f = begun(c, "udp")
    arguments = dict(chksum=0x1234) if fault == "checksum" else dict(header=broken)
    c.say(error(c, "exceeded", c.hop, f.heard, 28, **arguments))
    f.back()


@conversation(protocol=["tcp", "udp"], octets=[0, 4, 7])
def error_that_quotes_too_little(c, protocol, octets):
    f = begun(c, protocol)
    c.say(error(c, "exceeded", c.hop, f.heard, octets))


@conversation(protocol=["tcp", "udp", "ping"])
def error_about_nothing(c, protocol):
    f = Flow(c, protocol, target_port=80)
    payload = ("A", 1, 1, 100) if protocol == "tcp" else b"q" * 100
    packet = c.ip(c.external, c.outside) / f.upper(40000, 80, payload, False)
    c.say(error(c, "port", c.outside, packet, 28))
    packet = c.ip(c.outside, c.inside) / f.upper(80, 40000, payload, False)
    c.say(error(c, "port", c.inside, packet, 28))


@conversation(protocol=["tcp", "udp", "ping"], what=["question", "answer"])
def time_is_exceeded_at_the_router(c, protocol, what):
    f = begun(c, protocol, size=100)
    ip = dict(ttl=1)
    if what == "question":
        f.forth(*(("PA", 1101, 5001, 100) if protocol == "tcp" else ()), ip=ip)
    else:
        f.back(*(("PA", 5001, 1101, 100) if protocol == "tcp" else ()), ip=ip)
    f.forth(*(("PA", 1101, 5001, 100) if protocol == "tcp" else ()))
    f.back(*(("PA", 5001, 1101, 100) if protocol == "tcp" else ()))


@conversation(protocol=["tcp", "udp", "ping"])
def time_is_exceeded_before_anything(c, protocol):
    f = Flow(c, protocol, target_port=80)
    f.forth(*(("S", 1000) if protocol == "tcp" else ()), ip=dict(ttl=1))
    f.forth(*(("S", 1000) if protocol == "tcp" else ()), ip=dict(ttl=2))
    c.say(error(c, "exceeded", c.hop, f.heard, 28))
    f.back(*(("SA", 5000, 1001) if protocol == "tcp" else ()))


@conversation(protocol=["tcp", "udp"], what=["question", "answer"])
def too_big_for_the_link(c, protocol, what):
    f = begun(c, protocol, size=100)
    size = 1260
    if what == "question":
        f.forth(*(("PA", 1101, 5001, size) if protocol == "tcp" else (b"q" * size,)))
    else:
        f = Flow(c, protocol, opener=c.outside, target=c.external, target_port=8080, responder=(c.inside, 80))
        f.forth(*(("S", 1000) if protocol == "tcp" else ()))
        f.back(*(("SA", 5000, 1001) if protocol == "tcp" else ()))
        f.forth(*(("A", 1001, 5001) if protocol == "tcp" else ()))
        f.back(*(("PA", 5001, 1001, size) if protocol == "tcp" else (b"a" * size,)))
    f.forth(*(("PA", 1101, 5001, 10) if protocol == "tcp" else ()))


@conversation(protocol=["tcp", "udp"])
def error_after_a_port_collision(c, protocol):
    one = begun(c, protocol, opener=c.inside)
    two = begun(c, protocol, opener=c.inside2)
    c.say(error(c, "port", c.outside, two.heard, 28))
    c.say(error(c, "exceeded", c.hop, one.heard, 28))


@conversation()
def error_does_not_end_a_connection(c):
    f = c.tcp(target_port=80)
    f.forth("S", 1000)
    for kind in ("host", "port", "unassigned"):
        c.say(error(c, kind, c.hop, f.heard, 28))
    f.back("SA", 5000, 1001)
    f.forth("A", 1001, 5001)
    f.forth("PA", 1001, 5001, 10)
    c.say(error(c, "port", c.outside, f.heard, 28))
    f.back("PA", 5001, 1011, 10)


@conversation()
def error_from_the_outside_about_what_the_outside_said(c):
    f = begun(c, "udp")
    f.back()
    packet = c.ip(c.outside, c.external) / f.upper(80, f.seen[1], b"answer", True)
    c.say(error(c, "port", c.hop, packet, 14))
