"""The packets of the differential test, built with scapy: (name, port, octets, seconds to wait for answers)."""
import struct

from scapy.all import (ARP, Ether, ICMP, IP, IPv6, Raw, TCP, UDP, ICMPv6DestUnreach, ICMPv6EchoReply, ICMPv6EchoRequest,
                       ICMPv6ND_NA, ICMPv6ND_NS, ICMPv6NDOptDstLLAddr, ICMPv6NDOptSrcLLAddr, IPv6ExtHdrDestOpt,
                       IPv6ExtHdrFragment, IPv6ExtHdrHopByHop, IPv6ExtHdrRouting, PadN, SCTP, SCTPChunkInit, fragment)

WAIT = 0.04
# Until a neighbour that does not exist is given up: three solicitations a second apart.
WAIT_FAILED = 3.6

L2 = Ether(src="02:00:00:00:0a:02", dst="02:00:00:00:0a:01")
V4 = dict(src="10.1.0.2", dst="10.2.0.2", id=0x1234)
V6 = dict(src="fd00:1::2", dst="fd00:2::2")
U = UDP(sport=40000, dport=5000) / Raw(b"payload!")
T = TCP(sport=40000, dport=80, flags="S", seq=1000)
PING = ICMP(type=8, id=7, seq=1) / Raw(b"abcdefgh")
PING6 = ICMPv6EchoRequest(id=7, seq=1, data=b"abcdefgh")

ROUTED = []
BRIDGED = []


def case(name, packet, side="a", wait=WAIT):
    ROUTED.append((name, side, bytes(packet), wait))


def v4(name, payload, wait=WAIT, **fields):
    case(f"v4 {name}", L2 / IP(**{**V4, **fields}) / payload, wait=wait)


def v6(name, payload, wait=WAIT, **fields):
    case(f"v6 {name}", L2 / IPv6(**{**V6, **fields}) / payload, wait=wait)


def patched(packet, offset, value):
    """The packet's octets with some of them replaced."""
    data = bytearray(bytes(packet))
    data[offset:offset + len(value)] = value
    return bytes(data)


def both():
    """What is the same in both families."""
    for name, build, ping, ttl in (("v4", v4, PING, "ttl"), ("v6", v6, PING6, "hlim")):
        pre = "10." if name == "v4" else "fd00:"
        post = ".0.9" if name == "v4" else "::9"
        own = {"near": f"{pre}1" + (".0.1" if name == "v4" else "::1"), "far": f"{pre}2" + (".0.1" if name == "v4" else "::1")}
        build("udp", U)
        build("tcp syn", T)
        build("tcp data", TCP(sport=40000, dport=80, flags="PA", seq=1001, ack=2001) / Raw(b"x" * 1000))
        build("tcp with options", TCP(sport=40000, dport=80, flags="S", options=[("MSS", 1460), ("WScale", 7), ("SAckOK", b"")]))
        build("sctp", SCTP(sport=40000, dport=80) / SCTPChunkInit())
        build("echo", ping)
        build("unknown protocol", Raw(b"y" * 40), **({"proto": 253} if name == "v4" else {"nh": 253}))
        build("ttl 2", U, **{ttl: 2})
        build("ttl 1 udp", U, **{ttl: 1})
        build("ttl 1 tcp", T, **{ttl: 1})
        build("ttl 1 echo", ping, **{ttl: 1})
        build("ttl 0", U, **{ttl: 0})
        build("ttl 1 long", UDP(sport=1, dport=2) / Raw(b"q" * 1400), **{ttl: 1})
        build("via a gateway", U, dst=pre + "3" + post)
        build("blackhole", U, dst=pre + "4" + post)
        build("unreachable", U, dst=pre + "5" + post)
        build("prohibit", U, dst=pre + "6" + post)
        build("no route", U, dst=pre + "99" + post)
        build("back out of the same port", U, dst=pre + "1" + (".0.2" if name == "v4" else "::2"), src=pre + "9" + post)
        build("from elsewhere", U, src=pre + "9" + post)
        build("from own address", U, src=own["far"])
        build("echo to near address", ping, dst=own["near"])
        build("echo to far address", ping, dst=own["far"])
        build("udp to closed port", U, dst=own["near"])
        build("tcp syn to closed port", T, dst=own["near"])
        build("tcp ack to closed port", TCP(sport=40000, dport=80, flags="A", seq=5, ack=77), dst=own["near"])
        build("tcp data to closed port", TCP(sport=4, dport=80, flags="PA", seq=5, ack=77) / Raw(b"abc"), dst=own["near"])
        build("tcp fin to closed port", TCP(sport=4, dport=80, flags="F", seq=5), dst=own["near"])
        build("tcp rst to closed port", TCP(sport=40000, dport=80, flags="R", seq=5), dst=own["near"])
        build("unknown protocol to us", Raw(b"y" * 40), dst=own["near"], **({"proto": 253} if name == "v4" else {"nh": 253}))
        build("udp bad checksum to us", UDP(sport=1, dport=2, chksum=0x1111) / Raw(b"z"), dst=own["near"])
        build("tcp bad checksum to us", TCP(sport=1, dport=2, flags="S", chksum=0x1111), dst=own["near"])
        build("udp bad checksum routed", UDP(sport=1, dport=2, chksum=0x1111) / Raw(b"z"))
        case(f"{name} to another station's mac",
             Ether(src=L2.src, dst="02:00:00:00:0a:77") / (IP(**V4) if name == "v4" else IPv6(**V6)) / U)
        case(f"{name} to the broadcast mac", Ether(src=L2.src, dst="ff:ff:ff:ff:ff:ff") / (IP(**V4) if name == "v4" else IPv6(**V6)) / U)
        build("neighbour that does not exist", U, dst=pre + "2" + (".0.99" if name == "v4" else "::99"), wait=WAIT_FAILED)


def only_v4():
    v4("udp without checksum", UDP(sport=40000, dport=5000, chksum=0) / Raw(b"payload!"))
    v4("ttl 1 about an icmp error", ICMP(type=3, code=3) / IP(src="10.2.0.2", dst="10.1.0.2") / U, ttl=1)
    v4("padded", Raw(b""), proto=17)
    case("v4 ethernet padding", L2 / IP(**V4) / UDP(sport=1, dport=2) / Raw(b"") / Raw(b""))
    case("v4 trailing octets", bytes(L2 / IP(**V4) / U) + b"\0" * 20)
    v4("nop options", U, options=[b"\x01\x01\x01\x00"])
    v4("bad option length", U, options=[b"\x07\x01\x04\x00"])
    v4("loose source route", U, options=[b"\x83\x07\x04\x0a\x02\x00\x02\x00"])
    v4("router alert", U, options=[b"\x94\x04\x00\x00"])
    whole = L2 / IP(**V4) / U
    case("v4 bad header checksum", patched(whole, 24, b"\x12\x34"))
    case("v4 version 5", patched(whole, 14, b"\x55"))
    case("v4 header length 16", patched(whole, 14, b"\x44"))
    case("v4 total length too short", L2 / IP(**V4, len=16) / U)
    case("v4 total length too long", L2 / IP(**V4, len=200) / U)
    case("v4 truncated header", bytes(whole)[:30])
    for name, source in (("zero", "0.0.0.0"), ("loopback", "127.0.0.1"), ("multicast", "224.0.0.1"), ("broadcast", "255.255.255.255"),
                         ("class e", "240.0.0.1"), ("link-local", "169.254.0.9")):
        v4(f"source {name}", U, src=source)
    for name, destination in (("loopback", "127.0.0.1"), ("zero", "0.0.0.0"), ("limited broadcast", "255.255.255.255"),
                              ("directed broadcast", "10.2.0.255"), ("multicast", "224.1.1.1"), ("class e", "240.0.0.9")):
        v4(f"destination {name}", U, dst=destination)
    big = UDP(sport=1, dport=2) / Raw(bytes(range(256)) * 5 + b"tail")
    v4("too big with df", big, flags="DF")
    v4("too big without df", big)
    v4("too big without df, odd size", UDP(sport=1, dport=2) / Raw(b"m" * 1401))
    v4("too big with options without df", big, options=[b"\x01\x01\x01\x00"])
    v4("exactly the mtu", UDP(sport=1, dport=2) / Raw(b"e" * (1280 - 28)), flags="DF")
    pieces = fragment(IP(**V4) / UDP(sport=1, dport=2) / Raw(b"f" * 2000), fragsize=1000)
    for number, piece in enumerate(pieces):
        case(f"v4 fragment {number}", L2 / piece)
    v4("fragment too big is cut again", Raw(b"g" * 1400), proto=17, flags="MF", frag=10)
    v4("later fragment with ttl 1", Raw(b"g" * 16), proto=17, frag=10, ttl=1)
    v4("first fragment with ttl 1", UDP(sport=1, dport=2) / Raw(b"g" * 16), flags="MF", ttl=1)
    v4("echo reply to us", ICMP(type=0, id=7, seq=1) / Raw(b"abc"), dst="10.1.0.1")
    v4("echo with bad checksum to us", ICMP(type=8, chksum=0x1234) / Raw(b"abc"), dst="10.1.0.1")
    v4("truncated udp", Raw(b"abc"), proto=17)
    v4("truncated tcp", Raw(b"abcdefghijkl"), proto=6)
    arp = dict(hwsrc=L2.src, psrc="10.1.0.2")
    anyone = Ether(src=L2.src, dst="ff:ff:ff:ff:ff:ff")
    case("arp request for us", anyone / ARP(op=1, pdst="10.1.0.1", **arp))
    case("arp request by unicast", L2 / ARP(op=1, pdst="10.1.0.1", **arp))
    case("arp probe for us", anyone / ARP(op=1, pdst="10.1.0.1", hwsrc=L2.src, psrc="0.0.0.0"))
    case("arp request for another", anyone / ARP(op=1, pdst="10.1.0.50", **arp))
    case("arp request for the far address", anyone / ARP(op=1, pdst="10.2.0.1", **arp))
    case("arp announcement", anyone / ARP(op=1, pdst="10.1.0.2", **arp))
    case("arp reply nobody asked for", L2 / ARP(op=2, hwdst=L2.dst, pdst="10.1.0.1", **arp))
    case("arp truncated", bytes(anyone / ARP(op=1, pdst="10.1.0.1", **arp))[:36])
    case("arp of another hardware", anyone / ARP(op=1, hwtype=6, pdst="10.1.0.1", **arp))


def only_v6():
    v6("hl 1 about an icmp error", ICMPv6DestUnreach() / IPv6(src="fd00:2::2", dst="fd00:1::2") / U, hlim=1)
    v6("hop-by-hop with padding", IPv6ExtHdrHopByHop(options=[PadN(optdata=b"\0\0\0\0")]) / U)
    v6("destination options", IPv6ExtHdrDestOpt(options=[PadN(optdata=b"\0\0\0\0")]) / U)
    v6("routing header type 0", IPv6ExtHdrRouting(type=0, addresses=["fd00:9::9"]) / U)
    v6("fragment 0", IPv6ExtHdrFragment(id=9, m=1, offset=0) / UDP(sport=1, dport=2, len=64) / Raw(b"h" * 32))
    v6("fragment 1", IPv6ExtHdrFragment(id=9, m=0, offset=5, nh=17) / Raw(b"h" * 24))
    v6("atomic fragment", IPv6ExtHdrFragment(id=9, m=0, offset=0) / U)
    v6("later fragment with hl 1", IPv6ExtHdrFragment(id=9, m=0, offset=5, nh=17) / Raw(b"h" * 24), hlim=1)
    v6("no next header", Raw(b""), nh=59)
    whole = L2 / IPv6(**V6) / U
    case("v6 version 5", patched(whole, 14, b"\x50"))
    case("v6 payload length too long", L2 / IPv6(**V6, plen=200) / U)
    case("v6 trailing octets", bytes(whole) + b"\0" * 20)
    case("v6 truncated header", bytes(whole)[:40])
    for name, source in (("loopback", "::1"), ("unspecified", "::"), ("multicast", "ff02::1"), ("link-local", "fe80::2")):
        v6(f"source {name}", U, src=source)
    for name, destination in (("loopback", "::1"), ("link-local", "fe80::99"), ("multicast", "ff0e::1"), ("unspecified", "::")):
        v6(f"destination {name}", U, dst=destination)
    big = UDP(sport=1, dport=2) / Raw(b"k" * 1300)
    v6("too big", big)
    v6("exactly the mtu", UDP(sport=1, dport=2) / Raw(b"k" * (1280 - 48)))
    v6("echo reply to us", ICMPv6EchoReply(id=7, seq=1), dst="fd00:1::1")
    v6("echo with bad checksum to us", ICMPv6EchoRequest(id=7, cksum=0x1234), dst="fd00:1::1")
    v6("echo to link-local address", PING6, src="fe80::2", dst="fe80::ff:fe00:a01")
    solicited = Ether(src=L2.src, dst="33:33:ff:00:00:01")
    slla = ICMPv6NDOptSrcLLAddr(lladdr=L2.src)
    group = dict(src="fd00:1::2", dst="ff02::1:ff00:1", hlim=255)
    case("nd solicitation for us", solicited / IPv6(**group) / ICMPv6ND_NS(tgt="fd00:1::1") / slla)
    case("nd solicitation by unicast", L2 / IPv6(src="fd00:1::2", dst="fd00:1::1", hlim=255) / ICMPv6ND_NS(tgt="fd00:1::1") / slla)
    case("nd solicitation for us, hop limit 254", solicited / IPv6(**{**group, "hlim": 254}) / ICMPv6ND_NS(tgt="fd00:1::1") / slla)
    case("nd solicitation for another", solicited / IPv6(**group) / ICMPv6ND_NS(tgt="fd00:1::50") / slla)
    case("nd duplicate address detection of our address", solicited / IPv6(src="::", dst="ff02::1:ff00:1", hlim=255) / ICMPv6ND_NS(tgt="fd00:1::1"))
    case("nd advertisement nobody asked for", Ether(src=L2.src, dst="33:33:00:00:00:01") / IPv6(src="fd00:1::2", dst="ff02::1", hlim=255)
         / ICMPv6ND_NA(tgt="fd00:1::2", R=0, S=0, O=1) / ICMPv6NDOptDstLLAddr(lladdr=L2.src))
    case("nd solicitation with bad checksum", solicited / IPv6(**group) / ICMPv6ND_NS(tgt="fd00:1::1", cksum=1) / slla)


def bridged():
    def add(name, side, packet):
        BRIDGED.append((f"bridge {name}", side, bytes(packet), WAIT))

    def mac(number):
        return f"02:00:00:00:dd:{number:02x}"

    body = IP(src="10.9.0.1", dst="10.9.0.2") / U
    add("unknown unicast is flooded", "p0", Ether(src=mac(0), dst=mac(9)) / body)
    add("known unicast goes to one port", "p1", Ether(src=mac(1), dst=mac(0)) / body)
    add("broadcast is flooded", "p2", Ether(src=mac(2), dst="ff:ff:ff:ff:ff:ff") / body)
    add("ipv4 multicast is flooded", "p0", Ether(src=mac(0), dst="01:00:5e:01:02:03") / body)
    add("ipv6 multicast is flooded", "p0", Ether(src=mac(0), dst="33:33:00:00:00:fb") / IPv6(src="fe80::1", dst="ff02::fb") / U)
    add("to its own port is filtered", "p0", Ether(src=mac(5), dst=mac(0)) / body)
    add("a station moves", "p2", Ether(src=mac(1), dst=mac(0)) / body)
    add("to where it moved", "p0", Ether(src=mac(0), dst=mac(1)) / body)
    add("group source is dropped", "p0", Ether(src="03:00:00:00:00:01", dst=mac(1)) / body)
    add("zero source is dropped", "p0", Ether(src="00:00:00:00:00:00", dst=mac(1)) / body)
    for last in (0x00, 0x01, 0x02, 0x03, 0x0e, 0x0f, 0x10, 0x20):
        add(f"01-80-c2-00-00-{last:02x}", "p0", Ether(src=mac(0), dst=f"01:80:c2:00:00:{last:02x}", type=0x88b5) / Raw(b"r" * 50))
    add("unknown ethertype", "p0", Ether(src=mac(0), dst=mac(1), type=0x88b5) / Raw(b"r" * 50))
    add("802.3 llc", "p0", bytes.fromhex(mac(1).replace(":", "") + mac(0).replace(":", "")) + struct.pack("!H", 40) + b"\xaa\xaa\x03" + b"s" * 43)
    add("malformed ipv4 inside", "p0", Ether(src=mac(0), dst=mac(1), type=0x0800) / Raw(b"\x55" * 50))
    add("malformed ipv6 inside a multicast", "p0", Ether(src=mac(0), dst="33:33:00:00:00:fb", type=0x86dd) / Raw(b"\x55" * 50))
    add("ttl is untouched", "p0", Ether(src=mac(0), dst=mac(1)) / IP(src="10.9.0.1", dst="10.9.0.2", ttl=1) / U)


both()
only_v4()
only_v6()
bridged()
