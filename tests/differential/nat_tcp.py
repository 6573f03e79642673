"""Conversations over TCP. The opener's numbers begin at 1000 and the responder's at 5000; windows are 1000 octets."""
import random

from talk import conversation

HTTP = dict(target_port=80)


def published(c):
    """A flow from outside to the port that is published for the inside host."""
    return c.tcp(opener=c.outside, target=c.external, target_port=8080, responder=(c.inside, 80))


def opened(c, by):
    return c.tcp(**HTTP) if by == "inside" else published(c)


@conversation(by=["inside", "outside"])
def tcp_opens_talks_and_closes(c, by):
    f = opened(c, by).handshake()
    f.forth("PA", 1001, 5001, 100)
    f.back("A", 5001, 1101)
    f.back("PA", 5001, 1101, 500)
    f.forth("A", 1101, 5501)
    f.forth("FA", 1101, 5501)
    f.back("A", 5501, 1102)
    f.back("FA", 5501, 1102)
    f.forth("A", 1102, 5502)


@conversation(first=["forth", "back"])
def tcp_half_closed(c, first):
    f = c.tcp(**HTTP).handshake()
    if first == "forth":
        f.forth("FA", 1001, 5001)
        f.back("A", 5001, 1002)
        for part in range(3):
            f.back("PA", 5001 + 300 * part, 1002, 300)
            f.forth("A", 1002, 5301 + 300 * part)
        f.back("FA", 5901, 1002)
        f.forth("A", 1002, 5902)
    else:
        f.back("FA", 5001, 1001)
        f.forth("A", 1001, 5002)
        for part in range(3):
            f.forth("PA", 1001 + 300 * part, 5002, 300)
            f.back("A", 5002, 1301 + 300 * part)
        f.forth("FA", 1901, 5002)
        f.back("A", 5002, 1902)


@conversation()
def tcp_both_close_at_once(c):
    f = c.tcp(**HTTP).handshake()
    f.forth("FA", 1001, 5001)
    f.back("FA", 5001, 1001)
    f.forth("A", 1002, 5002)
    f.back("A", 5002, 1002)
    f.back("A", 5002, 1002)


@conversation(by=["inside", "outside"], teller=["opener", "responder"],
              number=["exact", "one_above", "in_window", "last_of_window", "above_window", "below", "far_below"])
def tcp_reset(c, by, teller, number):
    f = opened(c, by).handshake()
    offset = {"exact": 0, "one_above": 1, "in_window": 500, "last_of_window": 1000, "above_window": 1002, "below": -1,
              "far_below": -100000}[number]
    if teller == "opener":
        f.forth("R", 1001 + offset)
    else:
        f.back("R", 5001 + offset)
    f.forth("PA", 1001, 5001, 10)
    f.back("PA", 5001, 1011, 10)
    f.forth("A", 1011, 5011)


@conversation(teller=["opener", "responder"])
def tcp_reset_with_an_acknowledgement(c, teller):
    f = c.tcp(**HTTP).handshake()
    f.forth("RA", 1001, 5001) if teller == "opener" else f.back("RA", 5001, 1001)
    f.back("PA", 5001, 1001, 10)
    f.forth("PA", 1001, 5001, 10)


@conversation()
def tcp_reset_in_window_and_a_challenge(c):
    f = c.tcp(**HTTP).handshake()
    f.back("R", 5100)
    f.forth("A", 1001, 5001)
    f.back("R", 5001)
    f.forth("PA", 1001, 5001, 10)


@conversation(acknowledged=[1001, 1002, 1007, 999])
def tcp_refused(c, acknowledged):
    f = c.tcp(**HTTP)
    f.forth("S", 1000)
    f.back("RA", 0, acknowledged)
    f.back("RA", 0, 1001)
    f.forth("S", 3000)
    f.back("SA", 9000, 3001)
    f.forth("A", 3001, 9001)


@conversation()
def tcp_syn_again_and_again(c):
    f = c.tcp(**HTTP)
    for _ in range(4):
        f.forth("S", 1000)
    f.back("SA", 5000, 1001)
    f.back("SA", 5000, 1001)
    f.forth("S", 1000)
    f.forth("A", 1001, 5001)
    f.forth("S", 1000)
    f.back("A", 5001, 1001)


@conversation()
def tcp_syn_with_another_number(c):
    f = c.tcp(**HTTP)
    f.forth("S", 1000)
    f.forth("S", 70000)
    f.back("SA", 5000, 1001)
    f.back("SA", 5000, 70001)
    f.forth("A", 70001, 5001)
    f.forth("PA", 70001, 5001, 10)


@conversation()
def tcp_simultaneous_open(c):
    f = c.tcp(**HTTP)
    f.forth("S", 1000)
    f.back("S", 5000)
    f.forth("SA", 1000, 5001)
    f.back("SA", 5000, 1001)
    f.forth("A", 1001, 5001)
    f.back("PA", 5001, 1001, 10)
    f.forth("PA", 1001, 5011, 10)


@conversation()
def tcp_simultaneous_open_one_syn_ack(c):
    f = c.tcp(**HTTP)
    f.forth("S", 1000)
    f.back("S", 5000)
    f.forth("SA", 1000, 5001)
    f.back("A", 5001, 1001)
    f.forth("PA", 1001, 5001, 10)
    f.back("PA", 5001, 1011, 10)


@conversation(sayer=["opener", "responder"], where=["far_above", "just_above", "overhanging", "old", "ancient"])
def tcp_data_out_of_window(c, sayer, where):
    f = c.tcp(**HTTP).handshake()
    offset = {"far_above": 5000, "just_above": 1001, "overhanging": 900, "old": -200, "ancient": -200000}[where]
    if sayer == "opener":
        f.forth("PA", 1001 + offset, 5001, 200)
        f.back("A", 5001, 1001)
    else:
        f.back("PA", 5001 + offset, 1001, 200)
        f.forth("A", 1001, 5001)
    f.forth("PA", 1001, 5001, 10)
    f.back("PA", 5001, 1011, 10)


@conversation(sayer=["opener", "responder"], what=["unsent", "old", "older", "ancient"])
def tcp_acknowledges(c, sayer, what):
    f = c.tcp(**HTTP).handshake()
    offset = {"unsent": 5000, "old": -500, "older": -65900, "ancient": -66100}[what]
    if sayer == "opener":
        f.forth("A", 1001, 5001 + offset)
    else:
        f.back("A", 5001, 1001 + offset)
    f.forth("PA", 1001, 5001, 10)
    f.back("PA", 5001, 1011, 10)


@conversation()
def tcp_windows_are_scaled(c):
    f = c.tcp(**HTTP)
    options = [("MSS", 1200), ("WScale", 7), ("SAckOK", b""), ("Timestamp", (1, 0))]
    f.forth("S", 1000, options=options)
    f.back("SA", 5000, 1001, options=options)
    f.forth("A", 1001, 5001, window=100)
    f.back("PA", 15001, 1001, 100, window=100)
    f.back("PA", 5001 + 12800, 1001, 100, window=100)
    f.back("PA", 5001 + 12801 + 12800, 1001, 100, window=100)
    f.forth("A", 1001, 5001, window=100, options=[("NOP", None), ("NOP", None), ("SAck", (15001, 15101))])
    f.forth("A", 1001, 5001, window=100, options=[("NOP", None), ("NOP", None), ("SAck", (95001, 95101))])
    f.forth("PA", 1001, 5001, 10, window=100)


@conversation(offerer=["opener", "responder", "neither"])
def tcp_windows_are_not_scaled(c, offerer):
    f = c.tcp(**HTTP)
    scale = dict(options=[("MSS", 1200), ("WScale", 7)])
    f.forth("S", 1000, **(scale if offerer == "opener" else {}))
    f.back("SA", 5000, 1001, **(scale if offerer == "responder" else {}))
    f.forth("A", 1001, 5001, window=100)
    f.back("PA", 5001 + 500, 1001, 100, window=100)
    f.back("PA", 5001, 1001, 100, window=100)
    f.forth("A", 1001, 5101, window=100)


@conversation()
def tcp_zero_window_and_probes(c):
    f = c.tcp(**HTTP).handshake()
    f.back("A", 5001, 1001, window=0)
    f.forth("A", 1001, 5001, 1)
    f.back("A", 5001, 1001, window=0)
    f.forth("A", 1001, 5001, 1)
    f.back("A", 5001, 1002, window=1000)
    f.forth("PA", 1002, 5001, 500)


@conversation()
def tcp_keep_alives(c):
    f = c.tcp(**HTTP).handshake()
    for _ in range(5):
        f.forth("A", 1000, 5001)
        f.back("A", 5001, 1001)
    f.back("A", 5000, 1001, 1)
    f.forth("A", 1001, 5001)


@conversation(sayer=["inside", "outside"], flags=["A", "PA", "FA", "SA", "R", "RA"])
def tcp_in_the_middle(c, sayer, flags):
    f = c.tcp(**HTTP)
    length = 10 if flags == "PA" else 0
    if sayer == "outside":
        f.back(flags, 5001, 1001, length)
    f.forth(flags, 1001, 5001, length)
    f.back("A", 5001, 1001 + length)
    f.back("PA", 5001, 1001 + length, 100)
    f.forth("A", 1001 + length, 5101)
    f.forth("PA", 90000, 5101, 100)
    f.back("PA", 90000, 1001, 100)
    f.forth("R", 1001 + length)


@conversation()
def tcp_picked_up_keep_alive(c):
    f = c.tcp(**HTTP)
    f.forth("A", 1000, 5001)
    f.back("A", 5001, 1001)
    f.forth("A", 1000, 5001)
    f.back("A", 5001, 1001)
    f.forth("PA", 1001, 5001, 10)


@conversation(flags=["", "F", "P", "U", "SF", "SR", "SRA", "FR", "FRA", "SFA", "FSRPAU", "SP", "SU", "SE", "SC", "SEC", "RU", "SAU"])
def tcp_flags(c, flags):
    f = c.tcp(**HTTP)
    f.forth(flags, 900, 0)
    f = c.tcp(port=40001, **HTTP).handshake()
    f.forth(flags, 1001, 5001)
    f.back(flags, 5001, 1001)
    f.forth("PA", 1001, 5001, 10)


@conversation(state=["time_wait", "reset_by_opener", "reset_by_responder", "last_ack", "established", "refused"],
              syn=["higher", "lower"])
def tcp_same_ports_again(c, state, syn):
    f = c.tcp(**HTTP)
    if state == "refused":
        f.forth("S", 1000)
        f.back("RA", 0, 1001)
    else:
        f.handshake()
    if state in ("time_wait", "last_ack"):
        f.forth("FA", 1001, 5001)
        f.back("FA", 5001, 1002)
        if state == "time_wait":
            f.forth("A", 1002, 5002)
    elif state == "reset_by_opener":
        f.forth("R", 1001)
    elif state == "reset_by_responder":
        f.back("R", 5001)
    number = 80000 if syn == "higher" else 500
    f.forth("S", number)
    f.back("SA", 30000, number + 1)
    f.forth("A", number + 1, 30001)
    f.back("PA", 30001, number + 1, 10)
    f.forth("PA", number + 1, 30011, 10)


@conversation()
def tcp_responder_uses_the_ports_again(c):
    f = published(c).handshake()
    f.back("FA", 5001, 1001)
    f.forth("FA", 1001, 5002)
    f.back("A", 5002, 1002)
    f.back("S", 90000)
    f.forth("SA", 70000, 90001)
    f.back("A", 90001, 70001)
    f.back("PA", 90001, 70001, 10)


@conversation()
def tcp_syn_on_an_established_connection_is_challenged(c):
    f = c.tcp(**HTTP).handshake()
    f.forth("S", 60000)
    f.back("A", 5001, 1001)
    f.forth("R", 1001)
    f.forth("S", 60000)
    f.back("SA", 7000, 60001)
    f.forth("A", 60001, 7001)
    f.forth("PA", 60001, 7001, 10)


@conversation()
def tcp_syn_in_last_ack_is_challenged(c):
    f = c.tcp(**HTTP).handshake()
    f.forth("FA", 1001, 5001)
    f.back("FA", 5001, 1002)
    f.forth("S", 60000)
    f.back("A", 5002, 1002)
    f.forth("R", 1002)
    f.forth("S", 60000)
    f.back("SA", 7000, 60001)
    f.forth("A", 60001, 7001)


@conversation()
def tcp_an_old_syn_ack_first(c):
    f = c.tcp(**HTTP)
    f.forth("S", 1000)
    f.back("SA", 90000, 500)
    f.forth("R", 500)
    f.forth("S", 1000)
    f.back("SA", 5000, 1001)
    f.forth("A", 1001, 5001)
    f.forth("PA", 1001, 5001, 10)


@conversation()
def tcp_data_with_the_syn(c):
    f = c.tcp(**HTTP)
    f.forth("S", 1000, 0, 100)
    f.back("SA", 5000, 1101, 50)
    f.forth("A", 1101, 5051)
    f.forth("PA", 1101, 5051, 10)


@conversation()
def tcp_numbers_wrap(c):
    f = c.tcp(**HTTP)
    f.forth("S", 2**32 - 200)
    f.back("SA", 2**32 - 100, 2**32 - 199)
    f.forth("A", 2**32 - 199, 2**32 - 99)
    f.forth("PA", 2**32 - 199, 2**32 - 99, 400)
    f.back("A", 2**32 - 99, 201)
    f.back("PA", 2**32 - 99, 201, 300)
    f.forth("A", 201, 201)
    f.forth("FA", 201, 201)
    f.back("FA", 201, 202)
    f.forth("A", 202, 202)


@conversation(fault=["checksum", "offset_small", "offset_large", "short"], where=["syn", "data", "reset"])
def tcp_malformed(c, fault, where):
    fields = {"checksum": dict(chksum=0x1234), "offset_small": dict(dataofs=4), "offset_large": dict(dataofs=15),
              "short": {}}[fault]
    f = c.tcp(**HTTP)
    if where != "syn":
        f.handshake()
    if fault == "short":
        packet = bytes(f.forth_packet(("S" if where == "syn" else "A", 1000, 0, 0)))
        cut = type(f.forth_packet(("A", 1, 1, 0)))(packet[:-8])
        if c.version == 4:
            cut.len, cut.chksum = len(packet) - 8, None
        else:
            cut.plen = 12
        c.say(cut)
    elif where == "syn":
        f.forth("S", 1000, **fields)
    elif where == "data":
        f.forth("PA", 1001, 5001, 10, **fields)
    else:
        f.back("R", 5001, 0, **fields)
    f.back("SA", 5000, 1001)
    f.back("PA", 5001, 1001, 10)
    f.forth("PA", 1001, 5001, 10)


@conversation(seed=range(25))
def tcp_at_random(c, seed):
    """Segments that honest, confused and hostile ends might send, mostly near to what would be right. Where the trackers
    differ on purpose it does not go: RSTs near to what is expected, beginnings in the middle, SYNs from both."""
    chance = random.Random(seed)
    f = c.tcp(**HTTP)
    options = [("WScale", chance.choice([0, 3, 7])), ("SAckOK", b"")] if chance.random() < 0.5 else []
    f.forth("S", 1000, options=options)
    f.back("SA", 5000, 1001, options=options)
    f.forth("A", 1001, 5001)
    # What each side sends next; the opener first.
    following = [1001, 5001]
    for _ in range(14):
        sayer = chance.choice([0, 1])
        flags = chance.choices(["A", "PA", "FA", "S", "SA", "R"], [30, 35, 12, 4 * (1 - sayer), 6, 6])[0]
        near = chance.choices([0, 1, -1, 300, 1500, -1500, 70000, -70000], [75, 4, 4, 4, 4, 4, 3, 3])[0]
        near = near if flags != "R" else chance.choice([-70000, 2**30])
        acknowledged = chance.choices([0, -1, 400, -400, 90000, -90000], [80, 4, 4, 4, 2, 2])[0]
        length = chance.choice([1, 100, 900, 1000]) if flags == "PA" else 0
        window = chance.choices([1000, 0, 10, 65535], [80, 5, 5, 10])[0]
        (f.back if sayer else f.forth)(
            flags, following[sayer] + near, following[1 - sayer] + acknowledged if "A" in flags else 0, length,
            window=window, **(dict(options=options) if "S" in flags else {}))
        if near == 0:
            following[sayer] += length + ("F" in flags)
