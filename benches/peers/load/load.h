/* What both ends of the load generator agree on. */
#ifndef LOAD_H
#define LOAD_H

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

/* A request, its answer, and the part of a datagram that is checked. */
#define MARK_REQUEST 0x71756572u
#define MARK_ANSWER 0x77736e61u
#define MARK_DATAGRAM 0x67746164u

struct __attribute__((packed)) message {
	uint32_t mark;
	uint64_t number;
};

/* What a datagram begins with: the message, and when its sender began, in milliseconds: what was sent before its receiver began
 * is of an earlier measurement, and has been held up on its way. */
struct __attribute__((packed)) datagram {
	struct message message;
	uint32_t began;
};

/* Octets of a request and of an answer. */
#define MESSAGE_SIZE 64
/* Octets of a datagram: with its headers and the Ethernet checksum, a frame of 64. */
#define DATAGRAM_SIZE 18
/* Datagrams for one system call. */
#define BATCH 32

static inline uint64_t now_ns(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static inline uint32_t now_ms(void)
{
	return (uint32_t)(now_ns() / 1000000u);
}

static inline _Noreturn void fail(const char *what)
{
	perror(what);
	exit(1);
}

int serve(uint16_t port);
int send_datagrams(const char *address, uint16_t port, double seconds, double rate);
int ping(const char *address, double seconds);
int ask(const char *address, uint16_t port, double seconds, unsigned connections, int anew);

#endif
