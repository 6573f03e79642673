/* The sender of datagrams: as many as the machine takes, or at a rate, asleep while nothing is due. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>

#include "load.h"

/* So long it sleeps when nothing is due; what has become due meanwhile is sent at once. */
#define NAP_NS 20000

static unsigned char bytes[BATCH][DATAGRAM_SIZE];
static struct mmsghdr headers[BATCH];
static struct iovec places[BATCH];

/* Sends `count` datagrams from `number` on, and says how many were taken. */
static uint64_t send_some(int fd, uint64_t number, unsigned count, uint32_t began, uint64_t *refused)
{
	for (unsigned i = 0; i < count; i++) {
		struct datagram datagram = {{MARK_DATAGRAM, number + i}, began};
		memcpy(bytes[i], &datagram, sizeof datagram);
	}
	int taken = sendmmsg(fd, headers, count, 0);
	if (taken >= 0)
		return (uint64_t)taken;
	/* A port that is not open yet, or a full queue: neither ends the measurement, both are counted. */
	if (errno != ECONNREFUSED && errno != ENOBUFS && errno != EAGAIN)
		fail("sendmmsg");
	++*refused;
	return 0;
}

int send_datagrams(const char *address, uint16_t port, double seconds, double rate)
{
	struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(port)};
	struct timespec nap = {0, NAP_NS};
	uint64_t sent = 0, refused = 0, elapsed = 0, whole = (uint64_t)(seconds * 1e9);
	int fd = socket(AF_INET, SOCK_DGRAM, 0);
	if (fd < 0 || inet_pton(AF_INET, address, &to.sin_addr) != 1)
		fail(address);
	if (connect(fd, (struct sockaddr *)&to, sizeof to) < 0)
		fail("connect");
	prctl(PR_SET_TIMERSLACK, 1);
	for (unsigned i = 0; i < BATCH; i++) {
		places[i] = (struct iovec){bytes[i], DATAGRAM_SIZE};
		headers[i] = (struct mmsghdr){.msg_hdr = {.msg_iov = &places[i], .msg_iovlen = 1}};
	}
	uint64_t start = now_ns();
	uint32_t began = now_ms();
	while ((elapsed = now_ns() - start) < whole) {
		unsigned count = BATCH;
		if (rate > 0) {
			uint64_t due = (uint64_t)((double)elapsed * rate / 1e9);
			if (due <= sent) {
				nanosleep(&nap, NULL);
				continue;
			}
			count = due - sent < BATCH ? (unsigned)(due - sent) : BATCH;
		}
		sent += send_some(fd, sent, count, began, &refused);
	}
	printf("{\"sent\": %lu, \"refused\": %lu, \"seconds\": %.6f}\n", sent, refused, (double)elapsed / 1e9);
	return 0;
}
