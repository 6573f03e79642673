#!/usr/bin/python3
"""SCTP associations, built and read by scapy.

`make` prints the packets of each family's conversations, as their senders send them, and the state that each leads to.
`read` takes a list of what became of them, and prints what is wrong with it.
"""
import json
import sys

from scapy.layers.inet import IP
from scapy.layers.inet6 import IPv6
from scapy.layers.sctp import (
    SCTP,
    SCTPChunkAbort,
    SCTPChunkCookieAck,
    SCTPChunkCookieEcho,
    SCTPChunkData,
    SCTPChunkHeartbeatAck,
    SCTPChunkHeartbeatReq,
    SCTPChunkInit,
    SCTPChunkInitAck,
    SCTPChunkParamHeartbeatInfo,
    SCTPChunkParamStateCookie,
    SCTPChunkSACK,
    SCTPChunkShutdown,
    SCTPChunkShutdownAck,
    SCTPChunkShutdownComplete,
)

FAMILIES = {
    "v4": (IP, "10.0.0.7", "192.0.2.1", "203.0.113.9"),
    "v6": (IPv6, "fd00::7", "2001:db8:1::1", "2001:db8::9"),
}
CLIENT_PORT, EXTERNAL_PORT, SERVER_PORT = 5000, 6000, 36412
CLIENT_TAG, SERVER_TAG = 0xC0FFEE01, 0x5EA50002

INFO = [SCTPChunkParamHeartbeatInfo(data=b"12345678")]
START = dict(a_rwnd=65536, n_out_streams=4, n_in_streams=4, init_tsn=1000)
OPENING = [
    ("client", 0, SCTPChunkInit(init_tag=CLIENT_TAG, **START), "CLOSED"),
    (
        "server",
        CLIENT_TAG,
        SCTPChunkInitAck(init_tag=SERVER_TAG, params=[SCTPChunkParamStateCookie(cookie=b"c" * 13)], **START),
        "COOKIE_WAIT",
    ),
    ("client", SERVER_TAG, SCTPChunkCookieEcho(cookie=b"c" * 13), "COOKIE_ECHOED"),
    ("server", CLIENT_TAG, SCTPChunkCookieAck(), "ESTABLISHED"),
]
# What nobody sent who knows the tags is refused, and changes nothing.
FORGED = [
    ("server", CLIENT_TAG ^ 1, SCTPChunkAbort(), None),
    ("client", SERVER_TAG ^ 1, SCTPChunkAbort(), None),
    ("server", CLIENT_TAG, SCTPChunkAbort(TCB=1), None),
    ("server", CLIENT_TAG ^ 1, SCTPChunkShutdown(cumul_tsn_ack=1000), None),
]
TALK = [
    ("client", SERVER_TAG, SCTPChunkData(tsn=1000, data=b"hello"), "ESTABLISHED"),
    ("server", CLIENT_TAG, SCTPChunkSACK(cumul_tsn_ack=1000, a_rwnd=65536), "ESTABLISHED"),
    ("server", CLIENT_TAG, SCTPChunkSACK(cumul_tsn_ack=1000) / SCTPChunkData(tsn=1000, data=b"x" * 700), "ESTABLISHED"),
    ("client", SERVER_TAG, SCTPChunkHeartbeatReq(params=INFO), "ESTABLISHED"),
    ("server", CLIENT_TAG, SCTPChunkHeartbeatAck(params=INFO), "ESTABLISHED"),
]
CLOSED_BY_CLIENT = [
    ("client", SERVER_TAG, SCTPChunkShutdown(cumul_tsn_ack=1000), "SHUTDOWN_SENT"),
    ("server", CLIENT_TAG, SCTPChunkShutdownAck(), "SHUTDOWN_ACK_SENT"),
    ("client", SERVER_TAG, SCTPChunkShutdownComplete(), "CLOSED"),
]
CLOSED_BY_SERVER = [
    ("server", CLIENT_TAG, SCTPChunkShutdown(cumul_tsn_ack=1000), "SHUTDOWN_RECD"),
    ("client", SERVER_TAG, SCTPChunkShutdownAck(), "SHUTDOWN_ACK_SENT"),
    ("server", CLIENT_TAG, SCTPChunkShutdownComplete(), "CLOSED"),
]
ABORTED = [("server", CLIENT_TAG, SCTPChunkAbort(), "CLOSED")]
# A server that knows nothing of it answers with the tag that it got (RFC 9260 section 8.4).
UNKNOWN = [("server", SERVER_TAG, SCTPChunkAbort(TCB=1), "CLOSED")]
CONVERSATIONS = [
    OPENING + FORGED + TALK + FORGED + CLOSED_BY_CLIENT,
    OPENING + TALK + CLOSED_BY_SERVER,
    OPENING + FORGED + ABORTED,
    OPENING + UNKNOWN,
]


def make():
    steps = []
    for family, (network, client, external, server) in FAMILIES.items():
        for number, conversation in enumerate(CONVERSATIONS):
            for side, tag, chunks, state in conversation:
                if side == "client":
                    ip, ports = network(src=client, dst=server), (CLIENT_PORT, SERVER_PORT)
                    seen = (external, EXTERNAL_PORT, server, SERVER_PORT)
                else:
                    ip, ports = network(src=server, dst=external), (SERVER_PORT, EXTERNAL_PORT)
                    seen = (server, SERVER_PORT, client, CLIENT_PORT)
                packet = ip / SCTP(sport=ports[0], dport=ports[1], tag=tag) / chunks
                steps.append({
                    "name": f"{family} {number} {side} {chunks.name}",
                    "family": family,
                    "conversation": number,
                    "side": side,
                    "sent": bytes(packet).hex(),
                    "state": state,
                    "seen": seen,
                    "tag": tag,
                    "chunks": bytes(packet[SCTP].payload).hex(),
                })
    return steps


def problems(step):
    octets = bytes.fromhex(step["left"])
    packet = FAMILIES[step["family"]][0](octets)
    if SCTP not in packet:
        return [f"no SCTP: {packet.summary()}"]
    sctp = packet[SCTP]
    found = []
    seen = [packet.src, sctp.sport, packet.dst, sctp.dport]
    if seen != step["seen"]:
        found.append(f"from and to: {seen}, not {step['seen']}")
    if sctp.tag != step["tag"]:
        found.append(f"tag {sctp.tag:#x}")
    if octets[-len(step["chunks"]) // 2:] != bytes.fromhex(step["chunks"]):
        found.append("the chunks have changed")
    # Built anew, with checksums that scapy computes.
    anew = packet.copy()
    del anew[SCTP].chksum
    if IP in anew:
        del anew[IP].chksum
    if bytes(anew) != octets:
        found.append(f"a checksum is wrong: {octets.hex()}, not {bytes(anew).hex()}")
    return found


if sys.argv[1:] == ["make"]:
    print(json.dumps(make()))
else:
    print(json.dumps([f"{step['name']}: {problem}" for step in json.load(sys.stdin) for problem in problems(step)]))
