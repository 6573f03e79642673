"""An SCTP association: by the kernel's own sockets where it has the protocol, else by scapy over raw ones.

sctp.py serve PORT               answers each message with the address that it sees
sctp.py ask ADDRESS PORT OWN     asks from a port of its own, and prints the answer or the error
"""

import socket
import sys

SCTP_NUMBER = 132


def kernel_has_it():
    try:
        socket.socket(socket.AF_INET6, socket.SOCK_STREAM, SCTP_NUMBER).close()
        return True
    except OSError:
        return False


def plain(address):
    return address.split("%")[0].replace("::ffff:", "")


def serve_by_kernel(port):
    listener = socket.socket(socket.AF_INET6, socket.SOCK_STREAM, SCTP_NUMBER)
    listener.bind(("::", port))
    listener.listen()
    while True:
        peer, address = listener.accept()
        if peer.recv(100) == b"who":
            peer.sendall(plain(address[0]).encode())
        peer.close()


def ask_by_kernel(address, port, own):
    to = socket.getaddrinfo(address, port)[0]
    asker = socket.socket(to[0], socket.SOCK_STREAM, SCTP_NUMBER)
    asker.bind(("", own))
    asker.settimeout(5)
    asker.connect(to[4])
    asker.sendall(b"who")
    return asker.recv(100).decode()


def raw(family):
    raw_socket = socket.socket(family, socket.SOCK_RAW, SCTP_NUMBER)
    raw_socket.settimeout(5)
    return raw_socket


def read(octets, family):
    """The SCTP packet in what a raw socket gives, which has IPv4's header and not IPv6's. Its checksum must be right."""
    from scapy.layers.sctp import SCTP

    packet = SCTP(octets[(octets[0] & 15) * 4:] if family == socket.AF_INET else octets)
    anew = packet.copy()
    del anew.chksum
    assert SCTP(bytes(anew)).chksum == packet.chksum, f"wrong checksum: {packet.summary()}"
    return packet


def serve_by_scapy(port):
    import select

    from scapy.layers.sctp import (SCTP, SCTPChunkCookieAck, SCTPChunkCookieEcho, SCTPChunkData, SCTPChunkInit,
                                   SCTPChunkInitAck, SCTPChunkParamStateCookie)

    tags = {}
    sockets = [raw(family) for family in (socket.AF_INET, socket.AF_INET6)]
    while True:
        for ready in select.select(sockets, [], [])[0]:
            octets, address = ready.recvfrom(4096)
            asked = read(octets, ready.family)
            if asked.dport != port:
                continue
            if SCTPChunkInit in asked:
                tags[address[0], asked.sport] = asked[SCTPChunkInit].init_tag
                cookie = [SCTPChunkParamStateCookie(cookie=b"c" * 12)]
                chunk = SCTPChunkInitAck(init_tag=7, a_rwnd=65536, n_out_streams=1, n_in_streams=1, init_tsn=1,
                                         params=cookie)
            elif SCTPChunkCookieEcho in asked:
                chunk = SCTPChunkCookieAck()
            elif SCTPChunkData in asked and asked.tag == 7:
                chunk = SCTPChunkData(tsn=1, data=plain(address[0]).encode())
            else:
                continue
            answer = SCTP(sport=port, dport=asked.sport, tag=tags[address[0], asked.sport]) / chunk
            ready.sendto(bytes(answer), (address[0], 0))


def ask_by_scapy(address, port, own):
    from scapy.layers.sctp import (SCTP, SCTPChunkAbort, SCTPChunkCookieAck, SCTPChunkCookieEcho, SCTPChunkData,
                                   SCTPChunkInit, SCTPChunkInitAck)

    to = socket.getaddrinfo(address, 0)[0]
    asker = raw(to[0])
    # What comes from elsewhere is not seen, and an error about what was sent is.
    asker.connect((address, 0))

    def exchange(tag, chunk, answered_by):
        asker.send(bytes(SCTP(sport=own, dport=port, tag=tag) / chunk))
        while True:
            answer = read(asker.recv(4096), to[0])
            if (answer.sport, answer.dport) == (port, own) and answered_by in answer:
                assert answer.tag == 9, f"tag {answer.tag}"
                return answer[answered_by]

    start = SCTPChunkInit(init_tag=9, a_rwnd=65536, n_out_streams=1, n_in_streams=1, init_tsn=1)
    tag = exchange(0, start, SCTPChunkInitAck).init_tag
    exchange(tag, SCTPChunkCookieEcho(cookie=b"c" * 12), SCTPChunkCookieAck)
    told = exchange(tag, SCTPChunkData(tsn=1, data=b"who"), SCTPChunkData).data
    asker.send(bytes(SCTP(sport=own, dport=port, tag=tag) / SCTPChunkAbort()))
    return bytes(told).decode()


if sys.argv[1] == "serve":
    (serve_by_kernel if kernel_has_it() else serve_by_scapy)(int(sys.argv[2]))
else:
    try:
        ask = ask_by_kernel if kernel_has_it() else ask_by_scapy
        print(ask(sys.argv[2], int(sys.argv[3]), int(sys.argv[4])))
    except OSError as error:
        print(type(error).__name__)
