/* AF_XDP without a library: frames that veths in one network namespace receive are copied into the other's ring. */
#define _GNU_SOURCE
#include <errno.h>
#include <linux/bpf.h>
#include <linux/if_link.h>
#include <linux/if_xdp.h>
#include <net/if.h>
#include <poll.h>
#include <stdatomic.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "bare.h"

/* Powers of two. Half of the chunks are for frames that come, half for those that go. */
#define CHUNK 2048u
#define RING 1024u

struct queue {
	_Atomic uint32_t *producer, *consumer, *flags;
	void *slots;
};

struct port {
	int fd;
	unsigned char *memory;
	struct queue fill, done, received, sent;
	uint64_t idle[RING];
	unsigned idle_count;
};

static int bpf(int command, union bpf_attr *attributes)
{
	return (int)syscall(__NR_bpf, command, attributes, sizeof *attributes);
}

/* Has whatever a device receives on a queue redirected to the socket that is in the map for it. */
static void attach(int fd, unsigned device)
{
	union bpf_attr map = {.map_type = BPF_MAP_TYPE_XSKMAP, .key_size = 4, .value_size = 4, .max_entries = 1};
	int sockets = bpf(BPF_MAP_CREATE, &map);
	uint32_t first = 0;
	union bpf_attr entry = {.map_fd = (uint32_t)sockets, .key = (uintptr_t)&first, .value = (uintptr_t)&fd};
	struct bpf_insn code[] = {
		{BPF_LDX | BPF_MEM | BPF_W, 2, 1, 16, 0}, /* r2 = context->rx_queue_index */
		{BPF_LD | BPF_IMM | BPF_DW, 1, BPF_PSEUDO_MAP_FD, 0, sockets},
		{0, 0, 0, 0, 0},
		{BPF_ALU64 | BPF_MOV | BPF_K, 3, 0, 0, XDP_PASS},
		{BPF_JMP | BPF_CALL, 0, 0, 0, BPF_FUNC_redirect_map},
		{BPF_JMP | BPF_EXIT, 0, 0, 0, 0},
	};
	union bpf_attr program = {
		.prog_type = BPF_PROG_TYPE_XDP,
		.insns = (uintptr_t)code,
		.insn_cnt = sizeof code / sizeof *code,
		.license = (uintptr_t) "GPL",
	};
	if (sockets < 0 || bpf(BPF_MAP_UPDATE_ELEM, &entry) < 0)
		fail("a map of AF_XDP sockets");
	int loaded = bpf(BPF_PROG_LOAD, &program);
	if (loaded < 0)
		fail("an XDP program");
	union bpf_attr link = {.link_create = {.prog_fd = (uint32_t)loaded, .target_ifindex = device, .attach_type = BPF_XDP}};
	link.link_create.flags = XDP_FLAGS_DRV_MODE;
	/* The link lasts as long as its descriptor: as this process. */
	if (bpf(BPF_LINK_CREATE, &link) < 0)
		fail("XDP on a veth");
}

static struct queue map_queue(int fd, int option, off_t place, const struct xdp_ring_offset *at, size_t slot)
{
	unsigned size = RING;
	if (setsockopt(fd, SOL_XDP, option, &size, sizeof size) < 0)
		fail("a ring of AF_XDP");
	unsigned char *memory = mmap(NULL, at->desc + RING * slot, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, fd, place);
	if (memory == MAP_FAILED)
		fail("mmap");
	return (struct queue){(void *)(memory + at->producer), (void *)(memory + at->consumer), (void *)(memory + at->flags),
			      memory + at->desc};
}

/* How many slots the kernel has filled that are not taken yet. */
static uint32_t filled(const struct queue *queue)
{
	return atomic_load_explicit(queue->producer, memory_order_acquire) -
	       atomic_load_explicit(queue->consumer, memory_order_relaxed);
}

static void put(const struct queue *queue, uint32_t count)
{
	uint32_t at = atomic_load_explicit(queue->producer, memory_order_relaxed);
	atomic_store_explicit(queue->producer, at + count, memory_order_release);
}

static void take(const struct queue *queue, uint32_t count)
{
	uint32_t at = atomic_load_explicit(queue->consumer, memory_order_relaxed);
	atomic_store_explicit(queue->consumer, at + count, memory_order_release);
}

static void open_port(struct port *port, const char *device)
{
	size_t size = 2 * (size_t)RING * CHUNK;
	port->memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
	port->fd = socket(AF_XDP, SOCK_RAW, 0);
	if (port->fd < 0 || port->memory == MAP_FAILED)
		fail("AF_XDP");
	struct xdp_umem_reg region = {.addr = (uintptr_t)port->memory, .len = size, .chunk_size = CHUNK};
	if (setsockopt(port->fd, SOL_XDP, XDP_UMEM_REG, &region, sizeof region) < 0)
		fail("memory of AF_XDP");
	struct xdp_mmap_offsets at;
	socklen_t length = sizeof at;
	if (getsockopt(port->fd, SOL_XDP, XDP_MMAP_OFFSETS, &at, &length) < 0)
		fail("rings of AF_XDP");
	port->fill = map_queue(port->fd, XDP_UMEM_FILL_RING, (off_t)XDP_UMEM_PGOFF_FILL_RING, &at.fr, sizeof(uint64_t));
	port->done = map_queue(port->fd, XDP_UMEM_COMPLETION_RING, (off_t)XDP_UMEM_PGOFF_COMPLETION_RING, &at.cr, sizeof(uint64_t));
	port->received = map_queue(port->fd, XDP_RX_RING, XDP_PGOFF_RX_RING, &at.rx, sizeof(struct xdp_desc));
	port->sent = map_queue(port->fd, XDP_TX_RING, XDP_PGOFF_TX_RING, &at.tx, sizeof(struct xdp_desc));
	for (uint32_t i = 0; i < RING; i++) {
		((uint64_t *)port->fill.slots)[i] = (uint64_t)i * CHUNK;
		port->idle[port->idle_count++] = (uint64_t)(RING + i) * CHUNK;
	}
	put(&port->fill, RING);
	struct sockaddr_xdp address = {.sxdp_family = AF_XDP, .sxdp_ifindex = if_nametoindex(device), .sxdp_flags = XDP_COPY | XDP_USE_NEED_WAKEUP};
	if (bind(port->fd, (struct sockaddr *)&address, sizeof address) < 0)
		fail(device);
	attach(port->fd, address.sxdp_ifindex);
}

/* Takes back the chunks of frames that have left. */
static void reclaim(struct port *port)
{
	uint32_t count = filled(&port->done), at = atomic_load_explicit(port->done.consumer, memory_order_relaxed);
	for (uint32_t i = 0; i < count; i++)
		port->idle[port->idle_count++] = ((uint64_t *)port->done.slots)[(at + i) % RING];
	take(&port->done, count);
}

static void move(struct port *from, struct port *to)
{
	uint32_t count = filled(&from->received), sent = 0;
	uint32_t at = atomic_load_explicit(from->received.consumer, memory_order_relaxed);
	uint32_t back = atomic_load_explicit(from->fill.producer, memory_order_relaxed);
	uint32_t next = atomic_load_explicit(to->sent.producer, memory_order_relaxed);
	if (!count)
		return;
	reclaim(to);
	for (uint32_t i = 0; i < count; i++) {
		const struct xdp_desc *frame = &((struct xdp_desc *)from->received.slots)[(at + i) % RING];
		/* Where there is no room the frame is dropped. */
		if (to->idle_count) {
			uint64_t chunk = to->idle[--to->idle_count];
			memcpy(to->memory + chunk, from->memory + frame->addr, frame->len);
			((struct xdp_desc *)to->sent.slots)[(next + sent++) % RING] = (struct xdp_desc){chunk, frame->len, 0};
		}
		((uint64_t *)from->fill.slots)[(back + i) % RING] = frame->addr & ~(uint64_t)(CHUNK - 1);
	}
	take(&from->received, count);
	put(&from->fill, count);
	put(&to->sent, sent);
	/* In copy mode a system call sends what is in the ring, some at a time. */
	while (filled(&to->sent))
		if (sendto(to->fd, NULL, 0, MSG_DONTWAIT, NULL, 0) < 0 && errno != EAGAIN && errno != EBUSY && errno != ENOBUFS)
			fail("sendto");
}

_Noreturn void forward_by_xdp(const char *const devices[2])
{
	static struct port ports[2];
	open_port(&ports[0], devices[0]);
	open_port(&ports[1], devices[1]);
	puts("ready");
	fflush(stdout);
	struct pollfd waits[2] = {{ports[0].fd, POLLIN, 0}, {ports[1].fd, POLLIN, 0}};
	for (;;) {
		if (poll(waits, 2, -1) < 0)
			fail("poll");
		move(&ports[0], &ports[1]);
		move(&ports[1], &ports[0]);
	}
}
