/*
 * netstack: an embeddable network stack. Bridge, ARP and neighbour discovery, routing, connection tracking, address
 * translation and load balancing behind one object, a switch, which takes in batches of frames and a time and gives back
 * batches of frames. It does no I/O and reads no clock unless it is told to.
 *
 * THREADS. A handle may be used by one thread at a time, and moved from one to another. Functions that take a pointer to a
 * const handle may run at the same time as each other, on any threads. Whoever breaks these rules is told BUSY, or finds
 * that he was lucky. The library starts no thread but those of netstack_driver_start, one each, and installs no signal
 * handler and no logger.
 *
 * CALLBACKS run within the call that they were given to, unless it is said otherwise, on the same thread. The handles of
 * that call are in use meanwhile: every function answers BUSY for them. A callback must return; it must not throw, nor
 * jump out.
 *
 * OWNERSHIP. Every handle that a function writes to an argument is the caller's, who frees it with the function of its
 * kind; free functions take NULL as well. Arguments are read during the call and not kept, handles aside of which it is
 * said that they are taken: these are the library's once the call has succeeded. Texts that a function writes as `char **`
 * are freed with netstack_string_free. A handle that was freed or taken is recognised (INVALID_HANDLE), as one of another
 * kind is (WRONG_HANDLE), for as long as not some thousand others were freed after it; do not rely on it.
 *
 * BORROWED BUFFERS, the views of a batch, are good until the next call with that batch.
 *
 * TIME is the caller's: `now_us` is in microseconds since a moment of his choice, the same for all calls with one object,
 * and never goes back. NETSTACK_NEVER stands for no deadline. A driver has a clock of its own.
 *
 * CHANCE is the caller's too: 32 octets as a seed, and the same seed and calls give the same frames, to the octet. A seed
 * that is NULL is drawn from the operating system.
 *
 * ERRORS. Functions return a netstack_result, OK or a code that says what was wrong; then nothing was done, and nothing
 * written but what the function names. Where there is an argument `char **error`, it may be NULL; otherwise it gets words
 * for people, or NULL when all is well. If the library itself fails (a bug), words go to standard error, the call returns
 * PANIC, and so does every later call with the handles that this one was changing; free them. Nothing else is ever written
 * anywhere but where it is asked for.
 *
 * STRUCTS that begin with `struct_size` may grow in later versions: set it to the size that your compiler knows, or let
 * the init function do so. Zeros behind what this version knows are ignored, anything else there is refused.
 *
 * ABI. There is no promise before version 1.0: the shared library carries its whole version in its name, so that a program
 * runs with the version that it was built with.
 *
 * Made from the documentation of the Rust sources: not to be edited.
 */

#ifndef NETSTACK_H
#define NETSTACK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* The version of this header; netstack_version() is that of the library. */
#define NETSTACK_VERSION "0.1.0"
#define NETSTACK_VERSION_MAJOR 0
#define NETSTACK_VERSION_MINOR 1
#define NETSTACK_VERSION_PATCH 0
/* Its parts in one number, to be compared: 1002003 is 1.2.3. */
#define NETSTACK_VERSION_NUMBER 1000

/**
 * Most frames that a batch holds. It also counts as full once it holds 48 KiB.
 */
#define NETSTACK_BATCH_FRAMES 64

/**
 * All ports together, in place of a port's number.
 */
#define NETSTACK_ALL_PORTS UINT32_MAX

/**
 * No interface, where one leaves by is not known.
 */
#define NETSTACK_NO_INTERFACE UINT32_MAX

/**
 * No deadline.
 */
#define NETSTACK_NEVER UINT64_MAX

/**
 * What became of a call. Numbers are never given to another meaning.
 */
enum netstack_result
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : uint32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
    /**
     * It was done.
     */
    NETSTACK_RESULT_OK = 0,
    /**
     * A pointer is NULL that must not be.
     */
    NETSTACK_RESULT_NULL_POINTER = 1,
    /**
     * What is given as a handle is none: it was freed, given away, or never was one.
     */
    NETSTACK_RESULT_INVALID_HANDLE = 2,
    /**
     * The handle is one of another kind.
     */
    NETSTACK_RESULT_WRONG_HANDLE = 3,
    /**
     * The handle is in use at this moment: by a callback's caller, or by another thread.
     */
    NETSTACK_RESULT_BUSY = 4,
    /**
     * The library failed inside. The handles that the call changed answer with this from now on; free them.
     */
    NETSTACK_RESULT_PANIC = 5,
    /**
     * An argument is out of its range, or does not fit the others.
     */
    NETSTACK_RESULT_INVALID_ARGUMENT = 6,
    /**
     * A buffer is too small.
     */
    NETSTACK_RESULT_BUFFER_TOO_SMALL = 7,
    /**
     * A text is not UTF-8.
     */
    NETSTACK_RESULT_NOT_UTF8 = 8,
    /**
     * JSON that cannot be read.
     */
    NETSTACK_RESULT_INVALID_JSON = 9,
    /**
     * A configuration with faults.
     */
    NETSTACK_RESULT_INVALID_CONFIG = 10,
    /**
     * There is nothing of that name or number.
     */
    NETSTACK_RESULT_NOT_FOUND = 11,
    /**
     * There is one of that name or number already.
     */
    NETSTACK_RESULT_ALREADY_EXISTS = 12,
    /**
     * Not now: nothing has come, there is no room, or the handshake is not over.
     */
    NETSTACK_RESULT_WOULD_BLOCK = 13,
    /**
     * This side was closed, so nothing more can be sent.
     */
    NETSTACK_RESULT_CLOSED = 14,
    /**
     * The socket is closed, or never was one of this host.
     */
    NETSTACK_RESULT_STALE_SOCKET = 15,
    /**
     * The other side refused the connection.
     */
    NETSTACK_RESULT_REFUSED = 16,
    /**
     * The other side reset the connection.
     */
    NETSTACK_RESULT_RESET = 17,
    /**
     * The other side did not answer in time.
     */
    NETSTACK_RESULT_TIMED_OUT = 18,
    /**
     * The other side cannot be reached.
     */
    NETSTACK_RESULT_UNREACHABLE = 19,
    /**
     * This side aborted the connection.
     */
    NETSTACK_RESULT_ABORTED = 20,
    /**
     * There is no way to the destination: no address of its family, or no gateway.
     */
    NETSTACK_RESULT_NO_ROUTE = 21,
    /**
     * The address is none of the host's.
     */
    NETSTACK_RESULT_ADDRESS_NOT_OURS = 22,
    /**
     * The address and port are in use, or no port is free.
     */
    NETSTACK_RESULT_ADDRESS_IN_USE = 23,
    /**
     * As many as the limits allow.
     */
    NETSTACK_RESULT_TABLE_FULL = 24,
    /**
     * Longer than one packet or frame can be.
     */
    NETSTACK_RESULT_TOO_LONG = 25,
    /**
     * The device's other end is gone.
     */
    NETSTACK_RESULT_DEVICE_GONE = 26,
    /**
     * The operating system refused.
     */
    NETSTACK_RESULT_OS = 27,
    /**
     * The operating system wants more rights for this.
     */
    NETSTACK_RESULT_PERMISSION = 28,
    /**
     * The driver has stopped.
     */
    NETSTACK_RESULT_STOPPED = 29,
    /**
     * Backends that make no table: one twice, two address families, or too many.
     */
    NETSTACK_RESULT_INVALID_BACKENDS = 30,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum netstack_result netstack_result;
#else
typedef uint32_t netstack_result;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/**
 * What devices take over from software, to be added up.
 */
enum netstack_device_flag
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : uint32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
    /**
     * Nothing.
     */
    NETSTACK_DEVICE_FLAG_NONE = 0,
    /**
     * Finishes L4 checksums.
     */
    NETSTACK_DEVICE_FLAG_CHECKSUM = 1,
    /**
     * Cuts TCP super-frames over IPv4.
     */
    NETSTACK_DEVICE_FLAG_TSO4 = 2,
    /**
     * Cuts TCP super-frames over IPv6.
     */
    NETSTACK_DEVICE_FLAG_TSO6 = 4,
    /**
     * Cuts UDP super-frames.
     */
    NETSTACK_DEVICE_FLAG_USO = 8,
    /**
     * All of it.
     */
    NETSTACK_DEVICE_FLAG_ALL = 15,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum netstack_device_flag netstack_device_flag;
#else
typedef uint32_t netstack_device_flag;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/**
 * Which way a frame goes, seen from the switch.
 */
enum netstack_direction
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : uint32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
    /**
     * Into it.
     */
    NETSTACK_DIRECTION_INBOUND = 1,
    /**
     * Out of it.
     */
    NETSTACK_DIRECTION_OUTBOUND = 2,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum netstack_direction netstack_direction;
#else
typedef uint32_t netstack_direction;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/**
 * What changed. Behind each kind: which fields of netstack_event say something.
 */
enum netstack_event_kind
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : uint32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
    /**
     * Something that this version of the ABI has no number for.
     */
    NETSTACK_EVENT_KIND_OTHER = 0,
    /**
     * A learned MAC address appeared on another port: segment, mac, other_port (where it was), port.
     */
    NETSTACK_EVENT_KIND_MAC_MOVED = 1,
    /**
     * So many more moved: value.
     */
    NETSTACK_EVENT_KIND_MAC_MOVES_UNTOLD = 2,
    /**
     * Storm control drops frames: port.
     */
    NETSTACK_EVENT_KIND_STORM = 3,
    /**
     * Two ports are part of a loop: port (blocked), other_port, value (microseconds for which it is).
     */
    NETSTACK_EVENT_KIND_LOOP_DETECTED = 4,
    /**
     * A port is open again: port.
     */
    NETSTACK_EVENT_KIND_LOOP_CLEARED = 5,
    /**
     * Somebody else claims an address in use: segment, address, mac, port.
     */
    NETSTACK_EVENT_KIND_ADDRESS_CONFLICT = 6,
    /**
     * A gateway's address is in use elsewhere and stays unused: segment, address, mac, port.
     */
    NETSTACK_EVENT_KIND_DUPLICATE_ADDRESS = 7,
    /**
     * A gateway's address is in use from here on: segment, address.
     */
    NETSTACK_EVENT_KIND_ADDRESS_READY = 8,
    /**
     * The MAC table, or a port's share, is full: port.
     */
    NETSTACK_EVENT_KIND_FDB_FULL = 9,
    /**
     * A neighbour has another MAC address: segment, address, mac.
     */
    NETSTACK_EVENT_KIND_NEIGHBOR_CHANGED = 10,
    /**
     * A neighbour did not answer: segment, address.
     */
    NETSTACK_EVENT_KIND_NEIGHBOR_FAILED = 11,
    /**
     * The neighbour table is full: segment.
     */
    NETSTACK_EVENT_KIND_NEIGHBOR_TABLE_FULL = 12,
    /**
     * A connection was refused: address (who wanted it), reason.
     */
    NETSTACK_EVENT_KIND_CONNECTION_REFUSED = 13,
    /**
     * A service did not take a packet: address (who asked), destination, l4_port, reason.
     */
    NETSTACK_EVENT_KIND_SERVICE_REFUSED = 14,
    /**
     * A configuration was installed: value (its generation).
     */
    NETSTACK_EVENT_KIND_INSTALLED = 15,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum netstack_event_kind netstack_event_kind;
#else
typedef uint32_t netstack_event_kind;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/**
 * What happened. Behind each kind: which fields of netstack_host_event say something.
 */
enum netstack_host_event_kind
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : uint32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
    /**
     * Something that this version of the ABI has no number for.
     */
    NETSTACK_HOST_EVENT_KIND_OTHER = 0,
    /**
     * A socket may be good for something: socket, ready.
     */
    NETSTACK_HOST_EVENT_KIND_SOCKET = 1,
    /**
     * The answer to a ping: address (who), id, sequence, value (its hop limit), length (of its payload).
     */
    NETSTACK_HOST_EVENT_KIND_ECHO_REPLY = 2,
    /**
     * A packet came to nothing: address (who says so), icmp, value (its code, or the MTU that fits), protocol, source,
     * destination.
     */
    NETSTACK_HOST_EVENT_KIND_ICMP_ERROR = 3,
    /**
     * A neighbour did not answer: address.
     */
    NETSTACK_HOST_EVENT_KIND_NEIGHBOR_FAILED = 4,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum netstack_host_event_kind netstack_host_event_kind;
#else
typedef uint32_t netstack_host_event_kind;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/**
 * What becomes of a packet.
 */
enum netstack_nat_verdict
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : uint32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
    /**
     * It may leave as it is.
     */
    NETSTACK_NAT_VERDICT_PASS = 0,
    /**
     * It was translated and may leave.
     */
    NETSTACK_NAT_VERDICT_TRANSLATED = 1,
    /**
     * It is no packet, or contradicts itself: drop it.
     */
    NETSTACK_NAT_VERDICT_MALFORMED = 2,
    /**
     * It belongs to no connection and may open none: drop it.
     */
    NETSTACK_NAT_VERDICT_INVALID = 3,
    /**
     * The connection that it would open cannot begin, for want of room or of ports: drop it.
     */
    NETSTACK_NAT_VERDICT_REFUSED = 4,
    /**
     * It cannot be translated: drop it.
     */
    NETSTACK_NAT_VERDICT_UNFIT = 5,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum netstack_nat_verdict netstack_nat_verdict;
#else
typedef uint32_t netstack_nat_verdict;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/**
 * How one of several backends is chosen.
 */
enum netstack_policy
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : uint32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
    /**
     * By the flow's hash, from a table: few flows move when backends come and go.
     */
    NETSTACK_POLICY_MAGLEV = 0,
    /**
     * At random.
     */
    NETSTACK_POLICY_RANDOM = 1,
    /**
     * One after the other.
     */
    NETSTACK_POLICY_ROUND_ROBIN = 2,
    /**
     * By the flow's hash, without a table: no flow moves without need.
     */
    NETSTACK_POLICY_RENDEZVOUS = 3,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum netstack_policy netstack_policy;
#else
typedef uint32_t netstack_policy;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/**
 * What a socket is good for now, to be added up.
 */
enum netstack_ready_flag
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : uint32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
    /**
     * Something can be read, or the end of it; a listener has a connection to accept.
     */
    NETSTACK_READY_FLAG_READABLE = 1,
    /**
     * Something can be sent.
     */
    NETSTACK_READY_FLAG_WRITABLE = 2,
    /**
     * The connection is over: nothing more is sent, and what is left can be read.
     */
    NETSTACK_READY_FLAG_ENDED = 4,
    /**
     * It failed; sending and receiving say why.
     */
    NETSTACK_READY_FLAG_FAILED = 8,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum netstack_ready_flag netstack_ready_flag;
#else
typedef uint32_t netstack_ready_flag;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/**
 * How a TAP is opened.
 */
enum netstack_tap_mode
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : uint32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
    /**
     * With offload if the kernel has it, otherwise plain.
     */
    NETSTACK_TAP_MODE_AUTO = 0,
    /**
     * Finished frames of at most the MTU.
     */
    NETSTACK_TAP_MODE_PLAIN = 1,
    /**
     * Partial checksums and super-frames in both directions.
     */
    NETSTACK_TAP_MODE_OFFLOAD = 2,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum netstack_tap_mode netstack_tap_mode;
#else
typedef uint32_t netstack_tap_mode;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/**
 * The states of a TCP connection (RFC 9293 section 3.3.2).
 */
enum netstack_tcp_state
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : uint32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
    /**
     * Over, or forgotten.
     */
    NETSTACK_TCP_STATE_CLOSED = 0,
    /**
     * LISTEN.
     */
    NETSTACK_TCP_STATE_LISTEN = 1,
    /**
     * SYN-SENT.
     */
    NETSTACK_TCP_STATE_SYN_SENT = 2,
    /**
     * SYN-RECEIVED.
     */
    NETSTACK_TCP_STATE_SYN_RECEIVED = 3,
    /**
     * ESTABLISHED.
     */
    NETSTACK_TCP_STATE_ESTABLISHED = 4,
    /**
     * FIN-WAIT-1.
     */
    NETSTACK_TCP_STATE_FIN_WAIT1 = 5,
    /**
     * FIN-WAIT-2.
     */
    NETSTACK_TCP_STATE_FIN_WAIT2 = 6,
    /**
     * CLOSE-WAIT.
     */
    NETSTACK_TCP_STATE_CLOSE_WAIT = 7,
    /**
     * CLOSING.
     */
    NETSTACK_TCP_STATE_CLOSING = 8,
    /**
     * LAST-ACK.
     */
    NETSTACK_TCP_STATE_LAST_ACK = 9,
    /**
     * TIME-WAIT.
     */
    NETSTACK_TCP_STATE_TIME_WAIT = 10,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum netstack_tcp_state netstack_tcp_state;
#else
typedef uint32_t netstack_tcp_state;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/**
 * Frames on their way between devices, switches, hosts and the caller, and free buffers for more. One that is used again
 * and again allocates nothing.
 */
typedef struct netstack_batch netstack_batch;

/**
 * What a switch is to be: ports, segments, routes, translation, services. Plain data until a switch installs it.
 */
typedef struct netstack_config netstack_config;

/**
 * Something that frames come from and go to.
 */
typedef struct netstack_device netstack_device;

/**
 * A switch, devices, hosts and a clock, on a thread of their own.
 */
typedef struct netstack_driver netstack_driver;

/**
 * A host: one network interface with addresses, and TCP and UDP sockets.
 */
typedef struct netstack_host netstack_host;

/**
 * Backends of one address family, and the way to choose one: made once, then never changed. Whoever has the same key and
 * the same backends chooses alike, on any machine.
 */
typedef struct netstack_maglev netstack_maglev;

/**
 * Tracking and translation of both address families.
 */
typedef struct netstack_nat netstack_nat;

/**
 * A switch: bridge, neighbours, router, connections and services in one object.
 */
typedef struct netstack_switch netstack_switch;

/**
 * An IPv4 or IPv6 address.
 */
typedef struct {
    /**
     * 4 or 6; 0 where there is no address.
     */
    uint8_t family;
    /**
     * The address in network order; of IPv4 the first four octets, the others are 0.
     */
    uint8_t octets[16];
} netstack_address;

/**
 * An address and an L4 port.
 */
typedef struct {
    /**
     * The address.
     */
    netstack_address address;
    /**
     * The port, in the machine's order.
     */
    uint16_t port;
} netstack_endpoint;

/**
 * A frame in a buffer of the library: good until the next call with its batch.
 */
typedef struct {
    /**
     * Its octets, from the Ethernet header on, without FCS.
     */
    uint8_t *data;
    /**
     * How many.
     */
    size_t len;
} netstack_view;

/**
 * Checksum and segmentation state of a frame: what a virtio-net header says.
 */
typedef struct {
    /**
     * 0: the L4 checksum is complete. 1: a device has verified it. 2: the field holds the sum of the pseudo-header, and
     * the sum from `checksum_start` on is to be added.
     */
    uint8_t checksum;
    /**
     * 0: one packet. 1, 2: a TCP super-frame over IPv4, IPv6. 3: one of UDP.
     */
    uint8_t segmentation;
    /**
     * Whether CWR is to be set on the first segment alone; 0 or 1.
     */
    uint8_t ecn;
    /**
     * Where summing begins, in octets from the frame's first.
     */
    uint16_t checksum_start;
    /**
     * Where the checksum is, in octets from there.
     */
    uint16_t checksum_offset;
    /**
     * Octets of payload in each segment of a super-frame.
     */
    uint16_t segment_size;
} netstack_offload;

/**
 * A connection as it is now.
 */
typedef struct {
    /**
     * IP protocol number.
     */
    uint8_t protocol;
    /**
     * Whether there was an answer; 0 or 1.
     */
    uint8_t answered;
    /**
     * Whether it is kept when the table is full; 0 or 1.
     */
    uint8_t assured;
    /**
     * Its protocol's state as Linux's tools write it, ending in NUL; empty where the protocol has none.
     */
    char state[24];
    /**
     * How long it is kept if it stays silent, in microseconds.
     */
    uint64_t remaining_us;
    /**
     * Where packets of who opened it come from. Of an ICMP query the port is its identifier.
     */
    netstack_endpoint source;
    /**
     * Where they go, as they come.
     */
    netstack_endpoint destination;
    /**
     * Where answers come from, as they come. Where these two are not the inverse of those, packets are translated.
     */
    netstack_endpoint reply_source;
    /**
     * Where answers go, as they come.
     */
    netstack_endpoint reply_destination;
} netstack_connection;

/**
 * Frames of a switch or of one of its ports.
 */
typedef struct {
    /**
     * The size of this struct, set by the caller.
     */
    size_t struct_size;
    /**
     * Frames that entered.
     */
    uint64_t rx_frames;
    /**
     * Octets of those.
     */
    uint64_t rx_bytes;
    /**
     * Frames handed out.
     */
    uint64_t tx_frames;
    /**
     * Octets of those.
     */
    uint64_t tx_bytes;
    /**
     * Frames that entered and were forwarded to one port.
     */
    uint64_t forwarded;
    /**
     * Frames that entered and were flooded.
     */
    uint64_t flooded;
    /**
     * Frames that entered and were for the switch itself.
     */
    uint64_t consumed;
    /**
     * Frames that entered and had to wait for a neighbour.
     */
    uint64_t parked;
    /**
     * Frames that entered and were dropped; netstack_switch_drops says why.
     */
    uint64_t dropped;
    /**
     * Frames that the switch made itself: answers, questions, errors.
     */
    uint64_t originated;
    /**
     * Frames on their way out that were dropped.
     */
    uint64_t egress_dropped;
    /**
     * Frames that left as those of their flow before them, without a decision. Of all ports together; else 0.
     */
    uint64_t known;
    /**
     * Connections that services have given a backend. Of all ports together; else 0.
     */
    uint64_t balanced;
    /**
     * Frames in output queues now. Of all ports together; else 0.
     */
    uint64_t queued;
    /**
     * Frames waiting for neighbours now. Of all ports together; else 0.
     */
    uint64_t waiting;
    /**
     * Events that nobody polled in time. Of all ports together; else 0.
     */
    uint64_t events_lost;
} netstack_counters;

/**
 * A count by name.
 */
typedef struct {
    /**
     * What is counted; ends in NUL.
     */
    char name[40];
    /**
     * How many.
     */
    uint64_t count;
} netstack_count;

/**
 * Gets a driver's switch lent, on the driver's thread, and its time in microseconds. The handle is good until it returns.
 */
typedef void (*netstack_switch_callback)(void *userdata, netstack_switch *sw, uint64_t now_us);

/**
 * Gets a host of a driver lent, on the driver's thread, and the driver's time in microseconds. The handle is good until it
 * returns.
 */
typedef void (*netstack_host_callback)(void *userdata, netstack_host *host, uint64_t now_us);

/**
 * Something that changed.
 */
typedef struct {
    /**
     * One of netstack_event_kind.
     */
    uint32_t kind;
    /**
     * A broadcast domain.
     */
    uint16_t segment;
    /**
     * A port of the switch.
     */
    uint16_t port;
    /**
     * Another one.
     */
    uint16_t other_port;
    /**
     * An L4 port.
     */
    uint16_t l4_port;
    /**
     * A MAC address.
     */
    uint8_t mac[6];
    /**
     * An address.
     */
    netstack_address address;
    /**
     * Another one.
     */
    netstack_address destination;
    /**
     * A number.
     */
    uint64_t value;
    /**
     * Why, as counters have it; ends in NUL.
     */
    char reason[40];
} netstack_event;

/**
 * What a host is made from.
 */
typedef struct {
    /**
     * The size of this struct.
     */
    size_t struct_size;
    /**
     * Its MAC address.
     */
    uint8_t mac[6];
    /**
     * The largest IP packet, in octets: 576 to 65535; 0 for 1500.
     */
    uint16_t mtu;
    /**
     * How TCP reacts to loss: 0 as RFC 5681 says, 1 not at all, for links that lose nothing.
     */
    uint32_t congestion;
    /**
     * Its addresses with the prefixes that are on the link, each a text such as "10.0.0.2/24".
     */
    const char *const *addresses;
    /**
     * How many those are.
     */
    size_t address_count;
    /**
     * The next hop of IPv4 packets to elsewhere, or NULL.
     */
    const char *gateway_v4;
    /**
     * The next hop of IPv6 packets to elsewhere, or NULL.
     */
    const char *gateway_v6;
    /**
     * TCP connections in any state; 0 for the default.
     */
    uint32_t tcp_connections;
    /**
     * Connections of one listener that wait to be accepted; 0 for the default.
     */
    uint32_t backlog;
    /**
     * UDP sockets; 0 for the default.
     */
    uint32_t udp_sockets;
    /**
     * Octets of receive buffer of a connection; 0 for the default.
     */
    size_t receive_buffer;
    /**
     * Octets of send buffer of a connection; 0 for the default.
     */
    size_t send_buffer;
} netstack_host_options;

/**
 * A frame of the caller, to be copied in.
 */
typedef struct {
    /**
     * Its octets, from the Ethernet header on, without FCS.
     */
    const uint8_t *data;
    /**
     * How many.
     */
    size_t len;
} netstack_frame;

/**
 * A buffer of the caller, for a frame to be copied to.
 */
typedef struct {
    /**
     * Where.
     */
    uint8_t *data;
    /**
     * How many octets it holds.
     */
    size_t capacity;
    /**
     * How many the frame has: written by the library.
     */
    size_t len;
} netstack_buffer;

/**
 * Something that happened.
 */
typedef struct {
    /**
     * One of netstack_host_event_kind.
     */
    uint32_t kind;
    /**
     * What the socket is good for: a sum of NETSTACK_READY_FLAG_*.
     */
    uint32_t ready;
    /**
     * The socket.
     */
    uint64_t socket;
    /**
     * An address.
     */
    netstack_address address;
    /**
     * A ping's identifier.
     */
    uint16_t id;
    /**
     * A ping's sequence number.
     */
    uint16_t sequence;
    /**
     * What went wrong: 1 unreachable, 2 too big, 3 time exceeded, 4 a parameter problem.
     */
    uint16_t icmp;
    /**
     * IP protocol number of the packet that it is about.
     */
    uint16_t protocol;
    /**
     * A number.
     */
    uint32_t value;
    /**
     * A length in octets.
     */
    size_t length;
    /**
     * Where the packet came from.
     */
    netstack_endpoint source;
    /**
     * Where it went.
     */
    netstack_endpoint destination;
} netstack_host_event;

/**
 * Tells that something about a socket has changed: `ready` is a sum of NETSTACK_READY_FLAG_*.
 */
typedef void (*netstack_ready_callback)(void *userdata, uint64_t socket, uint32_t ready);

/**
 * Who answers clients.
 */
typedef struct {
    /**
     * Its address.
     */
    netstack_address address;
    /**
     * Its L4 port.
     */
    uint16_t port;
    /**
     * Its part of new connections, as against the others'; none if 0.
     */
    uint32_t weight;
} netstack_backend;

/**
 * A service: where clients ask, who answers, and how it is balanced. netstack_service_init makes it one by Maglev, without
 * affinity, whose clients are seen as they are and told when nobody is there.
 */
typedef struct {
    /**
     * The size of this struct.
     */
    size_t struct_size;
    /**
     * What it is known by; ends in NUL.
     */
    const char *name;
    /**
     * Where clients ask.
     */
    const netstack_endpoint *frontends;
    /**
     * How many those are.
     */
    size_t frontend_count;
    /**
     * Who answers.
     */
    const netstack_backend *backends;
    /**
     * How many those are.
     */
    size_t backend_count;
    /**
     * 6 for TCP, 17 for UDP, 132 for SCTP.
     */
    uint32_t protocol;
    /**
     * One of netstack_policy.
     */
    uint32_t policy;
    /**
     * Not 0: backends see an address of the pool that "services.masquerade" names in place of the client's.
     */
    uint32_t masquerade;
    /**
     * Not 0: when there is no backend, packets are dropped without a word.
     */
    uint32_t drop_when_empty;
    /**
     * Not 0: a connection whose backend is gone is reset.
     */
    uint32_t reset_gone;
    /**
     * For how long a client comes back to the backend that it had, in microseconds; 0 for not at all.
     */
    uint64_t affinity_us;
} netstack_service;

/**
 * How much a switch may hold: of each 0 for the default, and 16777216 at most.
 */
typedef struct {
    /**
     * The size of this struct.
     */
    size_t struct_size;
    /**
     * Learned MAC addresses.
     */
    uint32_t fdb_entries;
    /**
     * Learned MAC addresses of one port.
     */
    uint32_t fdb_entries_per_port;
    /**
     * Neighbours.
     */
    uint32_t neighbors;
    /**
     * Frames waiting for one neighbour.
     */
    uint32_t parked_per_neighbor;
    /**
     * Frames waiting for all neighbours.
     */
    uint32_t parked;
    /**
     * Frames in one port's output queue.
     */
    uint32_t queue_frames;
    /**
     * Octets in one port's output queue.
     */
    size_t queue_bytes;
    /**
     * Events kept until polled.
     */
    uint32_t events;
    /**
     * ICMP errors in a second.
     */
    uint32_t icmp_errors_per_second;
    /**
     * Connections tracked, of each address family.
     */
    uint32_t connections;
    /**
     * Clients whose backend is remembered.
     */
    uint32_t affinities;
    /**
     * Flows whose next frames need no decision.
     */
    uint32_t flows;
    /**
     * Not 0: no flow is remembered, and `flows` means nothing.
     */
    uint32_t no_flows;
} netstack_limits;

/**
 * Gets a frame that leaves by a port: `data` is good until it returns.
 */
typedef void (*netstack_drain_callback)(void *userdata, uint16_t port, const uint8_t *data, size_t len);

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

/**
 * Writes what a result means, in English and ending in NUL, into `buffer` of `capacity` octets.
 * `length` gets the text's length without the NUL; it may be NULL.
 * BUFFER_TOO_SMALL: the text does not fit; `length` is written, `buffer` is not.
 * NOT_FOUND: there is no such result.
 */
netstack_result netstack_result_message(uint32_t result, char *buffer, size_t capacity, size_t *length);

/**
 * Reads an address such as "10.0.0.1" or "fd00::1".
 */
netstack_result netstack_address_parse(const char *text, netstack_address *address);

/**
 * Reads an address and a port such as "10.0.0.1:80" or "[fd00::1]:80".
 */
netstack_result netstack_endpoint_parse(const char *text, netstack_endpoint *endpoint);

/**
 * Writes an address as text, ending in NUL; 46 octets are enough. `length` may be NULL.
 * BUFFER_TOO_SMALL: `length` is written, `buffer` is not.
 */
netstack_result netstack_address_format(const netstack_address *address,
                                        char *buffer,
                                        size_t capacity,
                                        size_t *length);

/**
 * Writes an address and a port as text, ending in NUL; 54 octets are enough. `length` may be NULL.
 * BUFFER_TOO_SMALL: `length` is written, `buffer` is not.
 */
netstack_result netstack_endpoint_format(const netstack_endpoint *endpoint,
                                         char *buffer,
                                         size_t capacity,
                                         size_t *length);

/**
 * A batch without frames.
 */
netstack_result netstack_batch_new(netstack_batch **batch);

/**
 * Frees a batch with its frames; NULL is allowed.
 */
netstack_result netstack_batch_free(netstack_batch *batch);

/**
 * Adds up to `count` frames of `length` octets each, for the caller to write, and says in `views` where they are and in
 * `added` how many there are: fewer when the batch is full. What they hold at first means nothing.
 * TOO_LONG: a frame has at most 65600 octets.
 */
netstack_result netstack_batch_reserve(netstack_batch *batch,
                                       size_t count,
                                       size_t length,
                                       netstack_view *views,
                                       size_t *added);

/**
 * Adds a copy of a frame.
 * TOO_LONG: a frame has at most 65600 octets. TABLE_FULL: the batch is full.
 */
netstack_result netstack_batch_push(netstack_batch *batch, const uint8_t *data, size_t length);

/**
 * Makes a frame shorter, or longer as far as its buffer goes; what is new in it means nothing.
 * NOT_FOUND: there is no frame at this place. TOO_LONG: its buffer is shorter.
 */
netstack_result netstack_batch_set_length(netstack_batch *batch, size_t index, size_t length);

/**
 * Says where the frames are, in order, for as many as `capacity`; `count` gets how many there are.
 */
netstack_result netstack_batch_frames(netstack_batch *batch,
                                      netstack_view *views,
                                      size_t capacity,
                                      size_t *count);

/**
 * How many frames there are.
 */
netstack_result netstack_batch_count(const netstack_batch *batch, size_t *count);

/**
 * Takes all frames out and keeps their buffers for the next.
 */
netstack_result netstack_batch_clear(netstack_batch *batch);

/**
 * What is known of a frame's checksum, and whether it is a super-frame.
 * NOT_FOUND: there is no frame at this place.
 */
netstack_result netstack_batch_offload(const netstack_batch *batch, size_t index, netstack_offload *offload);

/**
 * Says what is known of a frame's checksum, and whether it is a super-frame. A frame that is new has a complete checksum
 * and is none.
 * NOT_FOUND: there is no frame at this place. INVALID_ARGUMENT: a number that means nothing, or segments of 0 octets.
 */
netstack_result netstack_batch_set_offload(netstack_batch *batch,
                                           size_t index,
                                           const netstack_offload *offload);

/**
 * Begins to write every frame that enters or leaves a switch to a pcapng file, with finished checksums. `epoch_us` is the
 * time since the UNIX epoch at which the caller's time was 0.
 * ALREADY_EXISTS: it is being captured. OS: `error` says why the file cannot be written.
 */
netstack_result netstack_switch_capture(netstack_switch *sw,
                                        const char *path,
                                        uint64_t epoch_us,
                                        char **error);

/**
 * Ends a capture. `packets` gets how many were written; it may be NULL.
 * NOT_FOUND: there is none. OS: not everything could be written.
 */
netstack_result netstack_switch_capture_end(netstack_switch *sw, uint64_t *packets);

/**
 * A configuration without ports.
 */
netstack_result netstack_config_new(netstack_config **config);

/**
 * Reads a configuration from JSON of `length` octets, in the same schema and with the same errors as the Rust crate.
 * INVALID_JSON: `error` says what is wrong, and where.
 */
netstack_result netstack_config_from_json(const char *json,
                                          size_t length,
                                          netstack_config **config,
                                          char **error);

/**
 * Writes a configuration as JSON.
 */
netstack_result netstack_config_to_json(const netstack_config *config, char **json);

/**
 * A second configuration like this one.
 */
netstack_result netstack_config_clone(const netstack_config *config, netstack_config **clone);

/**
 * Frees a configuration; NULL is allowed.
 */
netstack_result netstack_config_free(netstack_config *config);

/**
 * Whether a switch would install it.
 * INVALID_CONFIG: `error` names everything that is wrong, a line each.
 */
netstack_result netstack_config_check(const netstack_config *config, char **error);

/**
 * Adds a broadcast domain that packets of up to `mtu` octets fit.
 * ALREADY_EXISTS: there is one with this number.
 */
netstack_result netstack_config_add_segment(netstack_config *config,
                                            uint16_t segment,
                                            const char *name,
                                            uint16_t mtu);

/**
 * Gives a segment an interface of the router, with a MAC address of 6 octets. Addresses are added afterwards.
 * NOT_FOUND: no such segment. ALREADY_EXISTS: it has one.
 */
netstack_result netstack_config_set_gateway(netstack_config *config, uint16_t segment, const uint8_t *mac);

/**
 * Gives the router's interface on a segment an address with the prefix that is on this link, such as "10.0.0.1/24".
 * NOT_FOUND: no such segment, or it has no gateway.
 */
netstack_result netstack_config_add_gateway_address(netstack_config *config,
                                                    uint16_t segment,
                                                    const char *address);

/**
 * Adds a route to a prefix such as "0.0.0.0/0", through a segment, by way of a gateway; `gateway` is NULL where the
 * destinations themselves are on the segment.
 */
netstack_result netstack_config_add_route(netstack_config *config,
                                          const char *prefix,
                                          uint16_t segment,
                                          const char *gateway);

/**
 * Adds a port on one segment, with anybody behind it: frames come and leave untagged, addresses are learned.
 * ALREADY_EXISTS: there is one with this number.
 */
netstack_result netstack_config_add_port(netstack_config *config,
                                         uint16_t port,
                                         const char *name,
                                         uint16_t segment);

/**
 * Adds something from JSON: `list` is "ports", "segments" or "routes", and the JSON is that of one member of this list.
 * INVALID_JSON: `error` says what is wrong. NOT_FOUND: no such list.
 */
netstack_result netstack_config_add_json(netstack_config *config,
                                         const char *list,
                                         const char *json,
                                         size_t length,
                                         char **error);

/**
 * Takes the member at a place out of a list: "ports", "segments", "routes", or of "nat" the "pools", "source" or
 * "destination" rules. Those behind it move up.
 * NOT_FOUND: no such list, or it is shorter.
 */
netstack_result netstack_config_remove(netstack_config *config,
                                       const char *list,
                                       size_t index);

/**
 * Writes some of the connections of a switch, up to `capacity`, which must be 2 or more. `cursor` is 0 at first and gets
 * where to go on; it is 0 again at the end. Connections that are there all the while are seen once.
 */
netstack_result netstack_switch_connections(const netstack_switch *sw,
                                            uint64_t now_us,
                                            uint64_t *cursor,
                                            netstack_connection *connections,
                                            size_t capacity,
                                            size_t *count);

/**
 * How many connections there are, of both families.
 */
netstack_result netstack_switch_connection_count(const netstack_switch *sw, size_t *count);

/**
 * Writes the counters of a port, or of NETSTACK_ALL_PORTS, as far as counters->struct_size goes.
 * NOT_FOUND: there never was such a port.
 */
netstack_result netstack_switch_counters(const netstack_switch *sw,
                                         uint32_t port,
                                         netstack_counters *counters);

/**
 * Writes why frames of a port, or of NETSTACK_ALL_PORTS, were dropped, the most frequent reason first. `count` gets how
 * many reasons there are, which may be more than `capacity`.
 * NOT_FOUND: there never was such a port.
 */
netstack_result netstack_switch_drops(const netstack_switch *sw,
                                      uint32_t port,
                                      netstack_count *drops,
                                      size_t capacity,
                                      size_t *count);

/**
 * Whether every frame is accounted for: what entered, what left, what was dropped and what waits add up.
 * INVALID_ARGUMENT: they do not, which is a bug; `error` says where.
 */
netstack_result netstack_switch_check(const netstack_switch *sw, char **error);

/**
 * A link in memory that holds up to `capacity` batches (at least 1) in each direction, for packets of up to `mtu` octets.
 * `flags` say what either end takes without software's help, as a sum of NETSTACK_DEVICE_FLAG_*. Either end may move to
 * another thread.
 */
netstack_result netstack_device_memory_pair(size_t capacity,
                                            size_t mtu,
                                            uint32_t flags,
                                            netstack_device **left,
                                            netstack_device **right);

/**
 * Makes the TAP interface `name` in the network namespace of this thread, or joins it if it is persistent and free. It is
 * down and has no address. `mode` is one of netstack_tap_mode.
 * PERMISSION, ALREADY_EXISTS, INVALID_ARGUMENT, OS: `error` says why, and what to do.
 */
netstack_result netstack_device_tap_open(const char *name,
                                         uint32_t mode,
                                         netstack_device **device,
                                         char **error);

/**
 * Makes a device of a TAP's descriptor that somebody else opened. The descriptor is duplicated: the caller's stays his, but is
 * non-blocking from then on.
 * `mtu` is the interface's.
 * INVALID_ARGUMENT, OS: `error` says why.
 */
netstack_result netstack_device_tap_from_fd(int32_t descriptor,
                                            uint32_t mode,
                                            size_t mtu,
                                            netstack_device **device,
                                            char **error);

/**
 * Frees a device; NULL is allowed. The other end of a link finds that this one is gone, an interface vanishes.
 */
netstack_result netstack_device_free(netstack_device *device);

/**
 * Receives frames until the batch is full or nothing waits, behind those that it holds. `count` gets how many. Never
 * blocks.
 * DEVICE_GONE: the other end is gone, and nothing is left of what it sent.
 */
netstack_result netstack_device_receive(netstack_device *device,
                                        netstack_batch *batch,
                                        size_t *count);

/**
 * Sends the frames of a batch, which is empty afterwards. `sent` gets how many the device took; it refuses what does not
 * fit its queue. `sent` may be NULL.
 * DEVICE_GONE: the other end is gone.
 */
netstack_result netstack_device_send(netstack_device *device,
                                     netstack_batch *batch,
                                     uint64_t *sent);

/**
 * The descriptor that becomes readable when frames wait; it stays the device's. Before a link in memory is waited for
 * this way, netstack_device_prepare_sleep has to say that one may.
 */
netstack_result netstack_device_descriptor(const netstack_device *device,
                                           int32_t *descriptor);

/**
 * Says that the caller is about to wait for the descriptor. `may_sleep` gets false when frames wait already.
 */
netstack_result netstack_device_prepare_sleep(netstack_device *device, bool *may_sleep);

/**
 * What the device takes over from software, as a sum of NETSTACK_DEVICE_FLAG_*: what to give to
 * netstack_config_set_offload for its port.
 */
netstack_result netstack_device_offload(const netstack_device *device, uint32_t *flags);

/**
 * Which mode a TAP was opened in, PLAIN or OFFLOAD of netstack_tap_mode, and its name, which ends in NUL; `name` may be
 * NULL, otherwise it has room for `capacity` octets, of which 16 are enough.
 * INVALID_ARGUMENT: it is no TAP.
 */
netstack_result netstack_device_tap(const netstack_device *device,
                                    uint32_t *mode,
                                    char *name,
                                    size_t capacity);

/**
 * Starts a thread that turns a switch. The switch is taken.
 * OS: no thread or no descriptor is left; the switch is freed.
 */
netstack_result netstack_driver_start(netstack_switch *sw, netstack_driver **driver);

/**
 * Ends the thread and frees the driver with its switch, devices and hosts; NULL is allowed.
 * BUSY: called in a callback of the driver.
 */
netstack_result netstack_driver_free(netstack_driver *driver);

/**
 * Puts a device on a port of the switch. The device is taken; one that is there already is freed.
 * OS: the device cannot be waited for; it is freed.
 */
netstack_result netstack_driver_attach(netstack_driver *driver, uint16_t port, netstack_device *device);

/**
 * Takes the device off a port and frees it.
 * NOT_FOUND: there is none.
 */
netstack_result netstack_driver_detach(netstack_driver *driver, uint16_t port);

/**
 * Puts a host behind a port of the switch, by a link in memory, on the driver's thread. The host is taken. `id` gets its
 * number for netstack_driver_with_host.
 */
netstack_result netstack_driver_add_host(netstack_driver *driver,
                                         uint16_t port,
                                         netstack_host *host,
                                         uint32_t *id);

/**
 * Calls back on the driver's thread, between two batches, with the switch, and waits until that has returned. Frames wait
 * meanwhile, so be short. What the callback touches must be fit for two threads.
 * BUSY: called in a callback of the driver. STOPPED: the thread has ended. PANIC: a call in the callback did, and the thread
 * ends.
 */
netstack_result netstack_driver_with_switch(netstack_driver *driver,
                                            netstack_switch_callback callback,
                                            void *userdata);

/**
 * The same with a host.
 * NOT_FOUND: there is no host of this number.
 */
netstack_result netstack_driver_with_host(netstack_driver *driver,
                                          uint32_t id,
                                          netstack_host_callback callback,
                                          void *userdata);

/**
 * The driver's time in microseconds, and what to add to it for microseconds since the UNIX epoch. Either may be NULL.
 */
netstack_result netstack_driver_now(const netstack_driver *driver,
                                    uint64_t *now_us,
                                    uint64_t *epoch_us);

/**
 * What the driver pays for a short way from frame to frame: 0 for a twentieth of a core at most (the default), 1 for a
 * core as long as there is traffic, 2 for nothing.
 */
netstack_result netstack_driver_set_latency(netstack_driver *driver,
                                            uint32_t latency);

/**
 * Takes the number of a port whose device is gone and was taken off. `told` gets whether there is one.
 */
netstack_result netstack_driver_poll_gone(netstack_driver *driver, uint16_t *port, bool *told);

/**
 * Takes the oldest event that was not told yet. `told` gets whether there was one.
 */
netstack_result netstack_switch_poll_event(netstack_switch *sw, netstack_event *event, bool *told);

/**
 * Makes options those of a host without addresses, whose MAC address is missing.
 */
netstack_result netstack_host_options_init(netstack_host_options *options);

/**
 * A host. `seed` is 32 octets or NULL.
 * INVALID_CONFIG: `error` says what is wrong with the options.
 */
netstack_result netstack_host_new(const netstack_host_options *options,
                                  const uint8_t *seed,
                                  netstack_host **host,
                                  char **error);

/**
 * Frees a host with its sockets; NULL is allowed. The other sides are not told.
 */
netstack_result netstack_host_free(netstack_host *host);

/**
 * Takes in frames, copying them. `accepted` gets how many were: all of them, or those before the one for which it fails.
 * TOO_LONG: a frame has at most 65600 octets.
 */
netstack_result netstack_host_handle_frames(netstack_host *host,
                                            uint64_t now_us,
                                            const netstack_frame *frames,
                                            size_t count,
                                            size_t *accepted);

/**
 * Takes in the frames of a batch without copying them. The batch is empty afterwards.
 */
netstack_result netstack_host_handle_batch(netstack_host *host, uint64_t now_us, netstack_batch *batch);

/**
 * Does what is due. The work of one call is bounded: while netstack_host_poll_timeout says that something is due, call
 * again.
 */
netstack_result netstack_host_handle_timeout(netstack_host *host,
                                             uint64_t now_us);

/**
 * When netstack_host_handle_timeout has something to do next; NETSTACK_NEVER if nothing is pending.
 */
netstack_result netstack_host_poll_timeout(const netstack_host *host, uint64_t *deadline);

/**
 * Copies frames that leave into buffers, one into each. `count` gets how many; with 0 nothing is to be sent.
 * BUFFER_TOO_SMALL: `count` frames were copied, and buffers[count].len says how long the next is, which stays.
 */
netstack_result netstack_host_poll_transmit(netstack_host *host,
                                            netstack_buffer *buffers,
                                            size_t capacity,
                                            size_t *count);

/**
 * Moves frames that leave into a batch, which must be empty. `count` gets how many; with 0 nothing is to be sent.
 * INVALID_ARGUMENT: the batch is not empty.
 */
netstack_result netstack_host_poll_batch(netstack_host *host,
                                         netstack_batch *batch,
                                         size_t *count);

/**
 * Sends an echo request with an identifier, a sequence number and a payload. The answer is an event.
 * NO_ROUTE, TOO_LONG.
 */
netstack_result netstack_host_ping(netstack_host *host,
                                   uint64_t now_us,
                                   const netstack_address *destination,
                                   uint16_t id,
                                   uint16_t sequence,
                                   const uint8_t *payload,
                                   size_t length);

/**
 * Takes the next event. `told` gets whether there was one.
 */
netstack_result netstack_host_poll_event(netstack_host *host, netstack_host_event *event, bool *told);

/**
 * What a socket is good for now, as a sum of NETSTACK_READY_FLAG_*.
 * STALE_SOCKET: it was closed.
 */
netstack_result netstack_host_poll(const netstack_host *host, uint64_t socket, uint32_t *flags);

/**
 * Has the library call back about sockets from now on, at the end of each call that takes frames or time; NULL ends that.
 * The host is in use meanwhile, so note what is told and act on it later. Events about other things are dropped while
 * there is a callback. Of a host that a driver turns it is called on the driver's thread.
 */
netstack_result netstack_host_on_ready(netstack_host *host,
                                       netstack_ready_callback callback,
                                       void *userdata);

/**
 * An eventfd that becomes readable when netstack_host_poll_event may have something to tell, and is read when that says
 * that there is nothing; not while there is a callback. It stays the host's. For a host that a driver turns, or a loop that waits for descriptors.
 * OS: no descriptor is left.
 */
netstack_result netstack_host_descriptor(netstack_host *host,
                                         int32_t *descriptor);

/**
 * A table of these backends by one of netstack_policy, under a key of 16 octets. `size` is the number of slots of Maglev's
 * table, a prime; 0 for one that suits the number of backends.
 * INVALID_BACKENDS: `error` says what is wrong with them, or with the size.
 */
netstack_result netstack_maglev_new(const netstack_backend *backends,
                                    size_t count,
                                    uint32_t policy,
                                    uint32_t size,
                                    const uint8_t *key,
                                    netstack_maglev **maglev,
                                    char **error);

/**
 * Frees a table; NULL is allowed.
 */
netstack_result netstack_maglev_free(netstack_maglev *maglev);

/**
 * The hash of a flow under the table's key.
 */
netstack_result netstack_maglev_hash(const netstack_maglev *maglev,
                                     const netstack_endpoint *source,
                                     const netstack_endpoint *destination,
                                     uint8_t protocol,
                                     uint64_t *hash);

/**
 * The backend for a flow's hash. `draw` is for policies that have no use for the hash: random of all 64 bits, or one more
 * each time.
 * NOT_FOUND: no backend has a weight.
 */
netstack_result netstack_maglev_select(const netstack_maglev *maglev,
                                       uint64_t hash,
                                       uint64_t draw,
                                       netstack_backend *backend);

/**
 * Writes the backends, in order of their addresses, and beside each its part of new connections: slots, turns or weight.
 * `count` gets how many there are. Either list may be NULL.
 */
netstack_result netstack_maglev_shares(const netstack_maglev *maglev,
                                       netstack_backend *backends,
                                       uint64_t *parts,
                                       size_t capacity,
                                       size_t *count);

/**
 * A translator for up to `capacity` connections of each family, from JSON: that of "nat" in a configuration, where what
 * rules call a segment is the number of an interface. `seed` is 32 octets or NULL.
 * INVALID_JSON, INVALID_CONFIG: `error` says what is wrong.
 */
netstack_result netstack_nat_new(const char *json,
                                 size_t length,
                                 size_t capacity,
                                 const uint8_t *seed,
                                 netstack_nat **nat,
                                 char **error);

/**
 * Frees a translator; NULL is allowed.
 */
netstack_result netstack_nat_free(netstack_nat *nat);

/**
 * Takes an IP packet that came in by one interface and leaves by another, or by NETSTACK_NO_INTERFACE, and translates it
 * in place. `verdict` gets one of netstack_nat_verdict. What follows the packet in `data` is left alone.
 */
netstack_result netstack_nat_translate(netstack_nat *nat,
                                       uint64_t now_us,
                                       uint32_t ingress,
                                       uint32_t egress,
                                       uint8_t *data,
                                       size_t length,
                                       uint32_t *verdict);

/**
 * Ends connections whose time is up, a bounded piece of it.
 */
netstack_result netstack_nat_handle_timeout(netstack_nat *nat, uint64_t now_us);

/**
 * When netstack_nat_handle_timeout has something to do next; NETSTACK_NEVER if nothing is pending.
 */
netstack_result netstack_nat_poll_timeout(const netstack_nat *nat, uint64_t now_us, uint64_t *deadline);

/**
 * How many connections there are, of both families.
 */
netstack_result netstack_nat_count(const netstack_nat *nat, size_t *count);

/**
 * Writes some of the connections, as netstack_switch_connections does.
 */
netstack_result netstack_nat_connections(const netstack_nat *nat,
                                         uint64_t now_us,
                                         uint64_t *cursor,
                                         netstack_connection *connections,
                                         size_t capacity,
                                         size_t *count);

/**
 * Says that exactly one station is behind a port, with this MAC address of 6 octets: the switch answers ARP and neighbour
 * discovery for it, and drops what it sends under another name. Addresses are added afterwards.
 * NOT_FOUND: no such port.
 */
netstack_result netstack_config_set_station(netstack_config *config,
                                            uint16_t port,
                                            const uint8_t *mac);

/**
 * Gives the station behind a port an address, such as "10.0.0.2".
 * NOT_FOUND: no such port, or anybody may be behind it.
 */
netstack_result netstack_config_add_station_address(netstack_config *config,
                                                    uint16_t port,
                                                    const char *address);

/**
 * Makes frames of a VLAN (1 to 4094) on a port belong to a segment; they come and leave tagged. The port's own segment
 * stays that of untagged frames.
 * NOT_FOUND: no such port.
 */
netstack_result netstack_config_add_vlan(netstack_config *config,
                                         uint16_t port,
                                         uint16_t vlan,
                                         uint16_t segment);

/**
 * Says what the device behind a port takes over from software, as a sum of NETSTACK_DEVICE_FLAG_*. Without it frames
 * leave finished: checksums computed, no longer than the MTU. Of frames that leave unfinished only a batch says in what state
 * they are, so take them by netstack_switch_poll_batch.
 * NOT_FOUND: no such port.
 */
netstack_result netstack_config_set_offload(netstack_config *config,
                                            uint16_t port,
                                            uint32_t flags);

/**
 * Has connections tracked, as services and translation need it, with the times that the RFCs recommend. The functions
 * that add pools and rules do this by themselves.
 */
netstack_result netstack_config_track(netstack_config *config);

/**
 * Adds external addresses whose ports are given out, under a name that rules use. `addresses` are `count` texts.
 * ALREADY_EXISTS: there is a pool of this name.
 */
netstack_result netstack_config_add_pool(netstack_config *config,
                                         const char *name,
                                         const char *const *addresses,
                                         size_t count);

/**
 * Adds a rule: new connections from a prefix (NULL: from anywhere) that leave by a segment get ports of a pool.
 */
netstack_result netstack_config_add_masquerade(netstack_config *config,
                                               const char *sources,
                                               uint16_t egress,
                                               const char *pool);

/**
 * Adds a rule: new connections of an IP protocol (6 for TCP, 17 for UDP) to one endpoint go to another.
 */
netstack_result netstack_config_add_forward(netstack_config *config,
                                            uint8_t protocol,
                                            const netstack_endpoint *from,
                                            const netstack_endpoint *to);

/**
 * Adds a rule or a pool from JSON: `list` is "source", "destination" or "pools", and the JSON is that of one member of
 * this list in the configuration's "nat".
 * INVALID_JSON: `error` says what is wrong. NOT_FOUND: no such list.
 */
netstack_result netstack_config_add_nat_json(netstack_config *config,
                                             const char *list,
                                             const char *json,
                                             size_t length,
                                             char **error);

/**
 * Makes a service one of TCP without name, frontends and backends.
 */
netstack_result netstack_service_init(netstack_service *service);

/**
 * Adds a service, or puts it in the place of the one with its name. The configuration must track connections.
 * ALREADY_EXISTS: another service has one of the frontends. INVALID_BACKENDS: they make no table. INVALID_CONFIG: `error`
 * says why there can be no services.
 */
netstack_result netstack_switch_set_service(netstack_switch *sw,
                                            const netstack_service *service,
                                            char **error);

/**
 * The same from JSON, which is that of one member of "services.registry" in a configuration.
 * INVALID_JSON, INVALID_CONFIG: `error` says what is wrong. ALREADY_EXISTS: another service has one of the frontends.
 */
netstack_result netstack_switch_set_service_json(netstack_switch *sw,
                                                 const char *json,
                                                 size_t length,
                                                 char **error);

/**
 * Takes a service away. Connections that it has begun go on as far as their backends do.
 * NOT_FOUND: there is none of this name.
 */
netstack_result netstack_switch_remove_service(netstack_switch *sw, const char *name);

/**
 * Gives a service other backends. Connections to those that stay go on; those whose backend is gone move to another
 * where that can be, or end.
 * NOT_FOUND: there is none of this name. INVALID_BACKENDS: they make no table.
 */
netstack_result netstack_switch_set_backends(netstack_switch *sw,
                                             const char *name,
                                             const netstack_backend *backends,
                                             size_t count);

/**
 * Begins a TCP connection. It is established when its state says so; readiness tells when to ask.
 * NO_ROUTE, INVALID_ARGUMENT (port 0, or no unicast address), TABLE_FULL, ADDRESS_IN_USE (no port is free).
 */
netstack_result netstack_host_tcp_connect(netstack_host *host,
                                          uint64_t now_us,
                                          const netstack_endpoint *remote,
                                          uint64_t *socket);

/**
 * Listens for TCP on an address of the host, or on the unspecified address for all of that family.
 * ADDRESS_NOT_OURS, ADDRESS_IN_USE, INVALID_ARGUMENT (port 0), TABLE_FULL.
 */
netstack_result netstack_host_tcp_listen(netstack_host *host,
                                         const netstack_endpoint *local,
                                         uint64_t *socket);

/**
 * Takes an established connection from a listener. What has come by it already is told of afterwards.
 * WOULD_BLOCK: none waits.
 */
netstack_result netstack_host_tcp_accept(netstack_host *host, uint64_t listener, uint64_t *socket);

/**
 * Puts octets into a connection's send buffer. `sent` gets how many fitted.
 * WOULD_BLOCK: none, or the handshake is not over. CLOSED, REFUSED, RESET, TIMED_OUT, UNREACHABLE, ABORTED: nothing more
 * can be sent.
 */
netstack_result netstack_host_tcp_send(netstack_host *host,
                                       uint64_t now_us,
                                       uint64_t socket,
                                       const uint8_t *data,
                                       size_t length,
                                       size_t *sent);

/**
 * Takes octets that a connection has received. `received` gets how many; 0 is the end: the other side has closed.
 * WOULD_BLOCK: none wait. REFUSED, RESET, TIMED_OUT, UNREACHABLE, ABORTED: none will come.
 */
netstack_result netstack_host_tcp_receive(netstack_host *host,
                                          uint64_t now_us,
                                          uint64_t socket,
                                          uint8_t *buffer,
                                          size_t capacity,
                                          size_t *received);

/**
 * Closes a connection's side: what is in the send buffer goes out, then a FIN. The other side may go on sending.
 */
netstack_result netstack_host_tcp_shutdown(netstack_host *host,
                                           uint64_t now_us,
                                           uint64_t socket);

/**
 * Ends a connection at once with a RST and closes the socket.
 */
netstack_result netstack_host_tcp_abort(netstack_host *host, uint64_t now_us, uint64_t socket);

/**
 * A connection's state, one of netstack_tcp_state, its address and the other side's. The last two may be NULL.
 * NOT_FOUND: it is over and forgotten; the state is written.
 */
netstack_result netstack_host_tcp_state(const netstack_host *host,
                                        uint64_t socket,
                                        uint32_t *state,
                                        netstack_endpoint *local,
                                        netstack_endpoint *remote);

/**
 * Opens a UDP socket on an address of the host, or on the unspecified address for all of that family. Port 0 asks for a
 * free one; `bound` gets where it is, and may be NULL.
 * ADDRESS_NOT_OURS, ADDRESS_IN_USE, TABLE_FULL.
 */
netstack_result netstack_host_udp_bind(netstack_host *host,
                                       const netstack_endpoint *local,
                                       uint64_t *socket,
                                       netstack_endpoint *bound);

/**
 * Sends a datagram.
 * NO_ROUTE, TOO_LONG (nothing is fragmented), INVALID_ARGUMENT (port 0, or the other family).
 */
netstack_result netstack_host_udp_send(netstack_host *host,
                                       uint64_t now_us,
                                       uint64_t socket,
                                       const uint8_t *data,
                                       size_t length,
                                       const netstack_endpoint *destination);

/**
 * Takes the oldest datagram. `length` gets how many octets it has: what does not fit the buffer is lost. `from` is its
 * sender, `to` the host's address that it was sent to; either may be NULL.
 * WOULD_BLOCK: none waits.
 */
netstack_result netstack_host_udp_receive(netstack_host *host,
                                          uint64_t socket,
                                          uint8_t *buffer,
                                          size_t capacity,
                                          size_t *length,
                                          netstack_endpoint *from,
                                          netstack_address *to);

/**
 * Closes a socket of any kind; its number means nothing any more. A connection sends what is in its buffer, then a FIN;
 * connections that a listener has and nobody accepted are reset; datagrams that wait are lost.
 */
netstack_result netstack_host_close(netstack_host *host,
                                    uint64_t now_us,
                                    uint64_t socket);

/**
 * Makes all limits the default ones.
 */
netstack_result netstack_limits_init(netstack_limits *limits);

/**
 * A switch that carries nothing until a configuration is installed. `limits` may be NULL; `seed` is 32 octets or NULL.
 * Memory for its tables is taken at once.
 */
netstack_result netstack_switch_new(const netstack_limits *limits,
                                    const uint8_t *seed,
                                    netstack_switch **sw);

/**
 * Frees a switch; NULL is allowed.
 */
netstack_result netstack_switch_free(netstack_switch *sw);

/**
 * Installs a copy of a configuration. What does not differ from the one before stays as it is, connections too.
 * INVALID_CONFIG: `error` names everything that is wrong, a line each, and the switch goes on as before.
 */
netstack_result netstack_switch_install(netstack_switch *sw,
                                        const netstack_config *config,
                                        char **error);

/**
 * The configuration that is installed, to be changed and installed again.
 */
netstack_result netstack_switch_config(const netstack_switch *sw, netstack_config **config);

/**
 * Takes in frames that came by a port, copying them. `accepted` gets how many were: all of them, or those before the one
 * for which it fails.
 * TOO_LONG: a frame has at most 65600 octets.
 */
netstack_result netstack_switch_handle_frames(netstack_switch *sw,
                                              uint64_t now_us,
                                              uint16_t port,
                                              const netstack_frame *frames,
                                              size_t count,
                                              size_t *accepted);

/**
 * Takes in the frames of a batch, which came by a port, without copying them. The batch is empty afterwards.
 */
netstack_result netstack_switch_handle_batch(netstack_switch *sw,
                                             uint64_t now_us,
                                             uint16_t port,
                                             netstack_batch *batch);

/**
 * Does what is due. The work of one call is bounded: while netstack_switch_poll_timeout says that something is due, call
 * again.
 */
netstack_result netstack_switch_handle_timeout(netstack_switch *sw,
                                               uint64_t now_us);

/**
 * When netstack_switch_handle_timeout has something to do next; NETSTACK_NEVER if nothing is pending.
 */
netstack_result netstack_switch_poll_timeout(const netstack_switch *sw, uint64_t *deadline_us);

/**
 * Copies frames that leave by one port into buffers, one into each, and names the port. `count` gets how many; with 0
 * nothing is to be sent, and `port` is not written.
 * BUFFER_TOO_SMALL: `count` frames were copied, and buffers[count].len says how long the next is, which stays.
 */
netstack_result netstack_switch_poll_transmit(netstack_switch *sw,
                                              netstack_buffer *buffers,
                                              size_t capacity,
                                              uint16_t *port,
                                              size_t *count);

/**
 * Moves frames that leave by one port into a batch, which must be empty, and names the port. `count` gets how many; with 0
 * nothing is to be sent, and `port` is not written.
 * INVALID_ARGUMENT: the batch is not empty.
 */
netstack_result netstack_switch_poll_batch(netstack_switch *sw,
                                           netstack_batch *batch,
                                           uint16_t *port,
                                           size_t *count);

/**
 * Calls back with every frame that is to be sent, until there is none. `count` gets how many; it may be NULL. The switch
 * is in use meanwhile.
 */
netstack_result netstack_switch_drain(netstack_switch *sw,
                                      netstack_drain_callback callback,
                                      void *userdata,
                                      size_t *count);

/**
 * Frees a text that a function of this library gave away as `char **`. NULL is allowed.
 */
netstack_result netstack_string_free(char *text);

/**
 * Says where a frame from a port would go and why, a line for each decision. Nothing is changed.
 */
netstack_result netstack_switch_trace_text(const netstack_switch *sw,
                                           uint64_t now_us,
                                           uint16_t port,
                                           const uint8_t *data,
                                           size_t length,
                                           char **text);

/**
 * The same as JSON: "steps", each with "stage" and "text", "outcome", and "ports".
 */
netstack_result netstack_switch_trace_json(const netstack_switch *sw,
                                           uint64_t now_us,
                                           uint16_t port,
                                           const uint8_t *data,
                                           size_t length,
                                           char **json);

/**
 * The version of the linked library, such as "0.1.0": ends in NUL, static, never to be freed. NETSTACK_VERSION is that of
 * the header.
 */
const char *netstack_version(void);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

#endif  /* NETSTACK_H */
