#!/usr/bin/env python3
"""Two hosts on one switch, in memory, from Python: its standard library and libnetstack, nothing else.

LD_LIBRARY_PATH=PREFIX/lib python3 two_hosts.py
"""

import ctypes
import json
import os
from ctypes import POINTER, byref, c_char_p, c_size_t, c_uint8, c_uint16, c_uint32, c_uint64, c_void_p

LIBRARY = ctypes.CDLL(os.environ.get("NETSTACK_LIBRARY", "libnetstack.so"))


class Address(ctypes.Structure):
    _fields_ = [("family", c_uint8), ("octets", c_uint8 * 16)]


class Endpoint(ctypes.Structure):
    _fields_ = [("address", Address), ("port", c_uint16)]


class HostOptions(ctypes.Structure):
    _fields_ = [
        ("struct_size", c_size_t),
        ("mac", c_uint8 * 6),
        ("mtu", c_uint16),
        ("congestion", c_uint32),
        ("addresses", POINTER(c_char_p)),
        ("address_count", c_size_t),
        ("gateway_v4", c_char_p),
        ("gateway_v6", c_char_p),
        ("tcp_connections", c_uint32),
        ("backlog", c_uint32),
        ("udp_sockets", c_uint32),
        ("receive_buffer", c_size_t),
        ("send_buffer", c_size_t),
    ]


# What functions take, as far as it is no pointer: ctypes takes numbers for C's int otherwise.
ARGUMENTS = {
    "netstack_config_from_json": [c_char_p, c_size_t, c_void_p, c_void_p],
    "netstack_config_free": [c_void_p],
    "netstack_switch_new": [c_void_p, c_char_p, c_void_p],
    "netstack_switch_install": [c_void_p, c_void_p, c_void_p],
    "netstack_switch_handle_batch": [c_void_p, c_uint64, c_uint16, c_void_p],
    "netstack_switch_poll_batch": [c_void_p, c_void_p, c_void_p, c_void_p],
    "netstack_switch_trace_text": [c_void_p, c_uint64, c_uint16, c_char_p, c_size_t, c_void_p],
    "netstack_switch_check": [c_void_p, c_void_p],
    "netstack_switch_free": [c_void_p],
    "netstack_batch_new": [c_void_p],
    "netstack_batch_free": [c_void_p],
    "netstack_host_options_init": [c_void_p],
    "netstack_host_new": [c_void_p, c_char_p, c_void_p, c_void_p],
    "netstack_host_handle_batch": [c_void_p, c_uint64, c_void_p],
    "netstack_host_poll_batch": [c_void_p, c_void_p, c_void_p],
    "netstack_host_udp_bind": [c_void_p, c_void_p, c_void_p, c_void_p],
    "netstack_host_udp_send": [c_void_p, c_uint64, c_uint64, c_char_p, c_size_t, c_void_p],
    "netstack_host_udp_receive": [c_void_p, c_uint64, c_void_p, c_size_t, c_void_p, c_void_p, c_void_p],
    "netstack_host_free": [c_void_p],
    "netstack_endpoint_parse": [c_char_p, c_void_p],
    "netstack_string_free": [c_void_p],
    "netstack_result_message": [c_uint32, c_char_p, c_size_t, c_void_p],
}
for name, types in ARGUMENTS.items():
    getattr(LIBRARY, name).argtypes = types
    getattr(LIBRARY, name).restype = c_uint32


def call(name, *arguments):
    """Calls a function; what is not OK is an exception."""
    result = getattr(LIBRARY, name)(*arguments)
    if result != 0:
        text = ctypes.create_string_buffer(128)
        LIBRARY.netstack_result_message(result, text, len(text), None)
        raise RuntimeError(f"{name}: {text.value.decode()}")


def handle(name, *arguments):
    """A new handle."""
    made = c_void_p()
    call(name, *arguments, byref(made))
    return made


def endpoint(text):
    value = Endpoint()
    call("netstack_endpoint_parse", text.encode(), byref(value))
    return value


def switch():
    text = json.dumps({
        "segments": [{"id": 0, "name": "lan", "mtu": 1500}],
        "ports": [{"id": n, "name": f"port-{n}", "vlan": {"access": 0}} for n in range(2)],
    }).encode()
    config, error = c_void_p(), c_void_p()
    call("netstack_config_from_json", text, len(text), byref(config), byref(error))
    made = handle("netstack_switch_new", None, bytes(32))
    call("netstack_switch_install", made, config, None)
    call("netstack_config_free", config)
    return made


def host(number, address):
    options = HostOptions()
    call("netstack_host_options_init", byref(options))
    assert options.struct_size == ctypes.sizeof(options), "this file and the library differ"
    options.mac[:] = [2, 0, 0, 0, 0, number]
    options.addresses = (c_char_p * 1)(address.encode())
    options.address_count = 1
    made = c_void_p()
    call("netstack_host_new", byref(options), bytes([number] * 32), byref(made), None)
    return made


def main():
    now, bridge = 1_000_000, switch()
    hosts = [host(1, "fd00::1/64"), host(2, "fd00::2/64")]
    batch = handle("netstack_batch_new")
    count, port = c_size_t(), c_uint16()

    def turn():
        for _ in range(8):
            for n, it in enumerate(hosts):
                call("netstack_host_poll_batch", it, batch, byref(count))
                call("netstack_switch_handle_batch", bridge, now, n, batch)
            call("netstack_switch_poll_batch", bridge, batch, byref(port), byref(count))
            while count.value > 0:
                call("netstack_host_handle_batch", hosts[port.value], now, batch)
                call("netstack_switch_poll_batch", bridge, batch, byref(port), byref(count))

    sockets = [c_uint64(), c_uint64()]
    call("netstack_host_udp_bind", hosts[0], byref(endpoint("[::]:0")), byref(sockets[0]), None)
    call("netstack_host_udp_bind", hosts[1], byref(endpoint("[fd00::2]:7")), byref(sockets[1]), None)
    question = b"hello from Python"
    call("netstack_host_udp_send", hosts[0], now, sockets[0], question, len(question),
         byref(endpoint("[fd00::2]:7")))
    turn()

    room, length, sender = ctypes.create_string_buffer(64), c_size_t(), Endpoint()

    def receive(n):
        call("netstack_host_udp_receive", hosts[n], sockets[n], room, len(room), byref(length), byref(sender), None)
        return room.raw[:length.value]

    heard = receive(1)
    call("netstack_host_udp_send", hosts[1], now, sockets[1], heard[::-1], len(heard), byref(sender))
    turn()
    print(receive(0).decode())

    frame = bytes([255] * 6 + [2, 0, 0, 0, 0, 9, 0x88, 0xb5] + [0] * 46)
    text = c_void_p()
    call("netstack_switch_trace_text", bridge, now, 0, frame, len(frame), byref(text))
    print(ctypes.string_at(text.value).decode())
    call("netstack_string_free", text)

    call("netstack_switch_check", bridge, None)
    for it in hosts:
        call("netstack_host_free", it)
    call("netstack_batch_free", batch)
    call("netstack_switch_free", bridge)


if __name__ == "__main__":
    main()
