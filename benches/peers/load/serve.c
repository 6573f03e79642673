/* The server: answers requests of any number of connections, and counts datagrams by their numbers. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "load.h"

#define CONNECTIONS 65536
/* A datagram's number has a bit here, by which one that comes twice is seen. */
#define NUMBERS (1u << 26)
/* So long nothing may come before what is on its way counts as lost. */
#define SILENCE_MS 100

static struct {
	uint64_t accepted, answered, closed, broken, wrong;
	uint64_t datagrams, twice, late, strange, stale;
	uint64_t first, last;
} counts;
static uint32_t began;

/* What has come of a connection's next request. */
static struct {
	unsigned char bytes[MESSAGE_SIZE];
	size_t filled;
} pending[CONNECTIONS];

static unsigned char *seen;
static int waiter;

static void watch(int fd)
{
	struct epoll_event event = {.events = EPOLLIN, .data.fd = fd};
	if (epoll_ctl(waiter, EPOLL_CTL_ADD, fd, &event) < 0)
		fail("epoll_ctl");
}

static int open_socket(int type, uint16_t port)
{
	struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port)};
	int one = 1, room = 4 << 20;
	int fd = socket(AF_INET, type | SOCK_NONBLOCK, 0);
	if (fd < 0)
		fail("socket");
	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
	if (type == SOCK_DGRAM && setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &room, sizeof room) < 0)
		fail("SO_RCVBUFFORCE");
	if (bind(fd, (struct sockaddr *)&address, sizeof address) < 0)
		fail("bind");
	if (type == SOCK_STREAM && listen(fd, 4096) < 0)
		fail("listen");
	return fd;
}

static void accept_all(int listener)
{
	for (;;) {
		int one = 1, fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK);
		if (fd < 0)
			return;
		if (fd >= CONNECTIONS) {
			close(fd);
			counts.broken++;
			continue;
		}
		setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
		pending[fd].filled = 0;
		counts.accepted++;
		watch(fd);
	}
}

static void answer(int fd)
{
	struct message message;
	memcpy(&message, pending[fd].bytes, sizeof message);
	pending[fd].filled = 0;
	if (message.mark != MARK_REQUEST)
		counts.wrong++;
	message.mark = MARK_ANSWER;
	memcpy(pending[fd].bytes, &message, sizeof message);
	/* So few octets always fit into the socket of somebody who waits for them. */
	if (write(fd, pending[fd].bytes, MESSAGE_SIZE) == MESSAGE_SIZE)
		counts.answered++;
	else
		counts.broken++;
}

static void read_requests(int fd)
{
	size_t filled = pending[fd].filled;
	ssize_t got = read(fd, pending[fd].bytes + filled, MESSAGE_SIZE - filled);
	if (got > 0) {
		pending[fd].filled += (size_t)got;
		if (pending[fd].filled == MESSAGE_SIZE)
			answer(fd);
	} else if (got == 0 || errno != EAGAIN) {
		got == 0 ? counts.closed++ : counts.broken++;
		close(fd);
	}
}

static void count_datagram(const unsigned char *bytes, size_t length, uint64_t now)
{
	static uint64_t highest;
	struct datagram datagram;
	memcpy(&datagram, bytes, sizeof datagram);
	struct message message = datagram.message;
	if (length != DATAGRAM_SIZE || message.mark != MARK_DATAGRAM || message.number >= NUMBERS) {
		counts.strange++;
		return;
	}
	if ((int32_t)(datagram.began - began) < 0) {
		counts.stale++;
		return;
	}
	counts.last = now;
	if (!counts.first)
		counts.first = now;
	unsigned char bit = (unsigned char)(1u << (message.number % 8));
	counts.twice += (seen[message.number / 8] & bit) != 0;
	seen[message.number / 8] |= bit;
	counts.late += message.number < highest;
	if (message.number > highest)
		highest = message.number;
	counts.datagrams++;
}

static void read_datagrams(int fd)
{
	static unsigned char bytes[2 * BATCH][2048];
	struct mmsghdr headers[2 * BATCH];
	struct iovec places[2 * BATCH];
	for (int i = 0; i < 2 * BATCH; i++) {
		places[i] = (struct iovec){bytes[i], sizeof bytes[i]};
		headers[i] = (struct mmsghdr){.msg_hdr = {.msg_iov = &places[i], .msg_iovlen = 1}};
	}
	int got = recvmmsg(fd, headers, 2 * BATCH, MSG_DONTWAIT, NULL);
	if (got <= 0)
		return;
	uint64_t now = now_ns();
	for (int i = 0; i < got; i++)
		count_datagram(bytes[i], headers[i].msg_len, now);
}

static int report(void)
{
	printf("{\"accepted\": %lu, \"answered\": %lu, \"closed\": %lu, \"broken\": %lu, \"wrong\": %lu, "
	       "\"datagrams\": %lu, \"twice\": %lu, \"late\": %lu, \"strange\": %lu, \"stale\": %lu, \"seconds\": %.6f}\n",
	       counts.accepted, counts.answered, counts.closed, counts.broken, counts.wrong, counts.datagrams,
	       counts.twice, counts.late, counts.strange, counts.stale, (double)(counts.last - counts.first) / 1e9);
	return 0;
}

int serve(uint16_t port)
{
	struct epoll_event events[256];
	int ending = 0;
	seen = calloc(NUMBERS / 8, 1);
	waiter = epoll_create1(0);
	if (!seen || waiter < 0)
		fail("start");
	int listener = open_socket(SOCK_STREAM, port), datagrams = open_socket(SOCK_DGRAM, port);
	watch(listener);
	watch(datagrams);
	watch(STDIN_FILENO);
	began = now_ms();
	puts("ready");
	fflush(stdout);
	for (;;) {
		int count = epoll_wait(waiter, events, 256, ending ? SILENCE_MS : -1);
		if (count < 0)
			fail("epoll_wait");
		if (count == 0)
			return report();
		for (int i = 0; i < count; i++) {
			int fd = events[i].data.fd;
			if (fd == listener)
				accept_all(listener);
			else if (fd == datagrams)
				read_datagrams(datagrams);
			else if (fd != STDIN_FILENO)
				read_requests(fd);
			else {
				ending = 1;
				epoll_ctl(waiter, EPOLL_CTL_DEL, STDIN_FILENO, NULL);
			}
		}
	}
}
