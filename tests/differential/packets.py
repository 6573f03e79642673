#!/usr/bin/python3
"""Sends every case through a Linux router or bridge and prints what came out, as JSON. Frames are built with scapy."""
import json
import os
import sys
import time

from cases import BRIDGED, ROUTED
from kernel import BRIDGE_PORTS, ROUTER, chatter, collect, namespaces, open_port, set_up_bridge, set_up_router


def play(cases, ports):
    results = []
    for name, side, frame, wait in cases:
        collect(ports, 0.0005, chatter)
        ports[side].send(frame)
        results.append({"name": name, "side": side, "sent": frame.hex(), "received": collect(ports, wait, chatter)})
    return results


def main():
    with namespaces():
        set_up_router()
        set_up_bridge()
        time.sleep(0.5)
        routed = play(ROUTED, {name: open_port(name) for name in ROUTER})
        bridged = play(BRIDGED, {name: open_port(name) for name in BRIDGE_PORTS})
        json.dump({"routed": routed, "bridged": bridged, "kernel": os.uname().release}, sys.stdout)


main()
