/* The client of requests: each connection has one request on its way at a time. With `anew` every request has its own
 * connection, which the client closes. At the end nothing new is begun, and what is on its way is waited for: so the
 * server has answered exactly as many as the client counts. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "load.h"

/* So long an answer may take before the measurement has failed. */
#define PATIENCE_NS 5000000000u
/* Latencies are counted in steps of 100 ns up to 20 ms. */
#define STEP_NS 100
#define STEPS 200000

struct asker {
	int fd;
	uint64_t number, since;
	unsigned char bytes[MESSAGE_SIZE];
	size_t filled;
};

static struct sockaddr_in to;
static int waiter, anew;
static uint64_t next_number, done, broken, wrong;
static uint32_t latencies[STEPS];

static void send_request(struct asker *a)
{
	unsigned char bytes[MESSAGE_SIZE] = {0};
	struct message message = {MARK_REQUEST, a->number = next_number++};
	memcpy(bytes, &message, sizeof message);
	a->filled = 0;
	if (!anew)
		a->since = now_ns();
	if (write(a->fd, bytes, MESSAGE_SIZE) != MESSAGE_SIZE)
		broken++;
}

static void open_connection(struct asker *a)
{
	int one = 1;
	struct epoll_event event = {.events = anew ? EPOLLOUT : EPOLLIN, .data.ptr = a};
	a->since = now_ns();
	a->fd = socket(AF_INET, SOCK_STREAM | (anew ? SOCK_NONBLOCK : 0), 0);
	if (a->fd < 0)
		fail("socket");
	setsockopt(a->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
	if (connect(a->fd, (struct sockaddr *)&to, sizeof to) < 0 && errno != EINPROGRESS)
		fail("connect");
	if (epoll_ctl(waiter, EPOLL_CTL_ADD, a->fd, &event) < 0)
		fail("epoll_ctl");
}

/* A connection stands, or could not be made. */
static void connected(struct asker *a)
{
	struct epoll_event event = {.events = EPOLLIN, .data.ptr = a};
	int error = 0;
	socklen_t length = sizeof error;
	getsockopt(a->fd, SOL_SOCKET, SO_ERROR, &error, &length);
	if (error) {
		errno = error;
		fail("connect");
	}
	epoll_ctl(waiter, EPOLL_CTL_MOD, a->fd, &event);
	send_request(a);
}

static void count_answer(struct asker *a)
{
	struct message message;
	uint64_t step = (now_ns() - a->since) / STEP_NS;
	memcpy(&message, a->bytes, sizeof message);
	if (message.mark != MARK_ANSWER || message.number != a->number)
		wrong++;
	latencies[step < STEPS ? step : STEPS - 1]++;
	done++;
}

/* Reads what has come, and says whether the answer is whole. */
static int read_answer(struct asker *a)
{
	ssize_t got = read(a->fd, a->bytes + a->filled, MESSAGE_SIZE - a->filled);
	if (got <= 0) {
		if (got < 0 && errno == EAGAIN)
			return 0;
		broken++;
		fail("an answer");
	}
	a->filled += (size_t)got;
	if (a->filled < MESSAGE_SIZE)
		return 0;
	count_answer(a);
	return 1;
}

/* One connection needs no epoll, and a request no more system calls than a write and a read. */
static void run_one(struct asker *a, uint64_t end)
{
	do {
		send_request(a);
		while (!read_answer(a))
			;
	} while (now_ns() < end);
}

static void run_all(struct asker *askers, unsigned count, uint64_t end)
{
	struct epoll_event events[256];
	unsigned open = count;
	for (unsigned i = 0; i < count && !anew; i++)
		send_request(&askers[i]);
	while (open) {
		int ready = epoll_wait(waiter, events, 256, 100);
		uint64_t now = now_ns();
		if (now > end + PATIENCE_NS) {
			errno = ETIMEDOUT;
			fail("answers");
		}
		for (int i = 0; i < ready; i++) {
			struct asker *a = events[i].data.ptr;
			if (events[i].events & EPOLLOUT) {
				connected(a);
			} else if (read_answer(a)) {
				if (anew)
					close(a->fd);
				if (now >= end)
					open--;
				else if (anew)
					open_connection(a);
				else
					send_request(a);
			}
		}
	}
}

static double percentile(double share)
{
	uint64_t below = 0;
	for (unsigned i = 0; i < STEPS; i++)
		if ((below += latencies[i]) >= (uint64_t)((double)done * share))
			return (i + 0.5) * STEP_NS / 1000.0;
	return 0;
}

int ask(const char *address, uint16_t port, double seconds, unsigned connections, int each_anew)
{
	struct asker *askers = calloc(connections, sizeof *askers);
	anew = each_anew;
	to = (struct sockaddr_in){.sin_family = AF_INET, .sin_port = htons(port)};
	waiter = epoll_create1(0);
	if (!askers || !connections || waiter < 0 || inet_pton(AF_INET, address, &to.sin_addr) != 1)
		fail(address);
	for (unsigned i = 0; i < connections && !anew; i++)
		open_connection(&askers[i]);
	uint64_t start = now_ns(), end = start + (uint64_t)(seconds * 1e9);
	for (unsigned i = 0; i < connections && anew; i++)
		open_connection(&askers[i]);
	if (connections == 1 && !anew)
		run_one(askers, end);
	else
		run_all(askers, connections, end);
	double elapsed = (double)(now_ns() - start) / 1e9;
	for (unsigned i = 0; i < connections && !anew; i++)
		close(askers[i].fd);
	printf("{\"done\": %lu, \"broken\": %lu, \"wrong\": %lu, \"seconds\": %.6f, \"p50_us\": %.2f, \"p99_us\": %.2f}\n",
	       done, broken, wrong, elapsed, percentile(0.5), percentile(0.99));
	return 0;
}
