/* Reads by io_uring, without a library: the two rings, and for reads that stay armed a third one of buffers. */
#define _GNU_SOURCE
#include <errno.h>
#include <linux/io_uring.h>
#include <stdatomic.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include "bare.h"

/* Newer than the headers of some machines; the numbers are the kernel's. */
#define OP_READ_MULTISHOT 49
#define SETUP_SINGLE_ISSUER (1u << 12)
#define SETUP_DEFER_TASKRUN (1u << 13)
#define REGISTER_BUFFER_RING 22

/* Powers of two. Few buffers stay in the cache. */
#define ENTRIES 64
#define BUFFERS 32

struct buffer_slot {
	uint64_t address;
	uint32_t length;
	uint16_t number;
	uint16_t tail; /* of the ring, in its first slot */
};

struct buffer_registration {
	uint64_t address;
	uint32_t entries;
	uint16_t group;
	uint16_t flags;
	uint64_t reserved[3];
};

static int ring;
static struct io_uring_params params = {.flags = SETUP_SINGLE_ISSUER | SETUP_DEFER_TASKRUN};
static unsigned char *submissions, *completions;
static struct io_uring_sqe *entries;
static unsigned queued;

static struct buffer_slot *slots;
static uint16_t slots_tail;
static unsigned char *buffers;

static unsigned char *frame(unsigned number)
{
	return buffers + (size_t)number * FRAME_SIZE;
}

static void *map(size_t size, int fd, off_t what)
{
	int flags = fd < 0 ? MAP_PRIVATE | MAP_ANONYMOUS : MAP_SHARED;
	void *at = mmap(NULL, size, PROT_READ | PROT_WRITE, flags | MAP_POPULATE, fd, what);
	if (at == MAP_FAILED)
		fail("mmap");
	return at;
}

static void lacks(const char *what)
{
	fprintf(stderr, "this kernel has no %s\n", what);
	exit(77);
}

static void open_ring(void)
{
	ring = (int)syscall(__NR_io_uring_setup, ENTRIES, &params);
	if (ring < 0)
		lacks("io_uring with deferred work (6.1)");
	submissions = map(params.sq_off.array + ENTRIES * sizeof(uint32_t), ring, IORING_OFF_SQ_RING);
	completions = map(params.cq_off.cqes + params.cq_entries * sizeof(struct io_uring_cqe), ring,
			  IORING_OFF_CQ_RING);
	entries = map(ENTRIES * sizeof *entries, ring, IORING_OFF_SQES);
	buffers = map((size_t)BUFFERS * FRAME_SIZE, -1, 0);
}

static void give_back(unsigned number)
{
	struct buffer_slot *slot = &slots[slots_tail % BUFFERS];
	slot->address = (uint64_t)(uintptr_t)frame(number);
	slot->length = FRAME_SIZE;
	slot->number = (uint16_t)number;
	atomic_store_explicit((_Atomic uint16_t *)&slots[0].tail, ++slots_tail, memory_order_release);
}

static void offer_buffers(void)
{
	slots = map(BUFFERS * sizeof *slots, -1, 0);
	struct buffer_registration registration = {.address = (uint64_t)(uintptr_t)slots, .entries = BUFFERS};
	if (syscall(__NR_io_uring_register, ring, REGISTER_BUFFER_RING, &registration, 1) < 0)
		lacks("rings of buffers (5.19)");
	for (unsigned i = 0; i < BUFFERS; i++)
		give_back(i);
}

/* Queues a read of TAP `which`, whose completion says so. */
static void queue_read(const int taps[2], unsigned which, int multishot)
{
	_Atomic uint32_t *tail = (_Atomic uint32_t *)(submissions + params.sq_off.tail);
	uint32_t at = atomic_load_explicit(tail, memory_order_relaxed), slot = at % ENTRIES;
	struct io_uring_sqe *entry = &entries[slot];
	memset(entry, 0, sizeof *entry);
	entry->fd = taps[which];
	entry->user_data = which;
	entry->off = (uint64_t)-1;
	if (multishot) {
		entry->opcode = OP_READ_MULTISHOT;
		entry->flags = IOSQE_BUFFER_SELECT;
	} else {
		entry->opcode = IORING_OP_READ;
		entry->addr = (uint64_t)(uintptr_t)frame(which);
		entry->len = FRAME_SIZE;
	}
	((uint32_t *)(submissions + params.sq_off.array))[slot] = slot;
	atomic_store_explicit(tail, at + 1, memory_order_release);
	queued++;
}

/* The kernel takes a short frame without allocating pages for it only from a write that may not block. */
static void pass(int to, unsigned char *frame, size_t length)
{
	struct iovec whole = {frame, length};
	ssize_t taken = pwritev2(to, &whole, 1, -1, RWF_NOWAIT);
	if (taken < 0 && errno == EOPNOTSUPP)
		lacks("writes to a TAP that do not wait (6.4)");
	passed(taken);
}

/* Passes on what a read has brought, and has the next one made. */
static void complete(const int taps[2], const struct io_uring_cqe *done, int multishot)
{
	unsigned which = (unsigned)done->user_data;
	unsigned number = multishot ? done->flags >> IORING_CQE_BUFFER_SHIFT : which;
	if (done->res > 0) {
		pass(taps[1 - which], frame(number), (size_t)done->res);
		if (multishot)
			give_back(number);
	} else if (done->res == -EINVAL && multishot) {
		lacks("reads that stay armed (6.7)");
	} else if (done->res != -ENOBUFS && done->res != -EAGAIN) {
		errno = -done->res;
		fail("a read");
	}
	if (!(done->flags & IORING_CQE_F_MORE))
		queue_read(taps, which, multishot);
}

_Noreturn void forward_by_ring(const int taps[2], int multishot)
{
	open_ring();
	if (multishot)
		offer_buffers();
	for (unsigned which = 0; which < 2; which++)
		queue_read(taps, which, multishot);
	_Atomic uint32_t *head = (_Atomic uint32_t *)(completions + params.cq_off.head);
	_Atomic uint32_t *tail = (_Atomic uint32_t *)(completions + params.cq_off.tail);
	const struct io_uring_cqe *all = (const struct io_uring_cqe *)(completions + params.cq_off.cqes);
	for (;;) {
		unsigned submit = queued;
		queued = 0;
		if (syscall(__NR_io_uring_enter, ring, submit, 1, IORING_ENTER_GETEVENTS, NULL, 0) < 0)
			fail("io_uring_enter");
		uint32_t at = atomic_load_explicit(head, memory_order_relaxed);
		while (at != atomic_load_explicit(tail, memory_order_acquire)) {
			complete(taps, &all[at % params.cq_entries], multishot);
			atomic_store_explicit(head, ++at, memory_order_release);
		}
	}
}
