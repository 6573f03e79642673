/* Echo requests without a pause: the next one goes when the last one is answered. `ping -f` does the same, and tells
 * whole microseconds. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <linux/icmp.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include "load.h"

#define PAYLOAD 56
#define STEP_NS 100
#define STEPS 200000

struct __attribute__((packed)) echo {
	struct icmphdr head;
	unsigned char payload[PAYLOAD];
};

static uint32_t latencies[STEPS];

static uint16_t checksum(const void *bytes, size_t length)
{
	uint32_t sum = 0;
	for (size_t i = 0; i < length; i += 2) {
		uint16_t word;
		memcpy(&word, (const unsigned char *)bytes + i, 2);
		sum += word;
	}
	sum = (sum >> 16) + (sum & 0xffff);
	return (uint16_t)~(sum + (sum >> 16));
}

static int open_socket(const char *address)
{
	struct sockaddr_in to = {.sin_family = AF_INET};
	struct icmp_filter only_replies = {~(1u << ICMP_ECHOREPLY)};
	struct timeval patience = {1, 0};
	int fd = socket(AF_INET, SOCK_RAW, IPPROTO_ICMP);
	if (fd < 0 || inet_pton(AF_INET, address, &to.sin_addr) != 1)
		fail(address);
	setsockopt(fd, SOL_RAW, ICMP_FILTER, &only_replies, sizeof only_replies);
	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
	if (connect(fd, (struct sockaddr *)&to, sizeof to) < 0)
		fail("connect");
	return fd;
}

/* Waits for the answer to this request, and says whether it came, unchanged. */
static int answered(int fd, const struct echo *request)
{
	unsigned char packet[2048];
	for (;;) {
		ssize_t got = recv(fd, packet, sizeof packet, 0);
		if (got < 0)
			return errno == EINTR;
		size_t header = (size_t)(packet[0] & 15) * 4;
		struct echo reply;
		if ((size_t)got != header + sizeof reply)
			continue;
		memcpy(&reply, packet + header, sizeof reply);
		if (reply.head.un.echo.id != request->head.un.echo.id ||
		    reply.head.un.echo.sequence != request->head.un.echo.sequence)
			continue;
		return !memcmp(reply.payload, request->payload, PAYLOAD);
	}
}

int ping(const char *address, double seconds)
{
	struct echo request = {.head = {.type = ICMP_ECHO}};
	uint64_t start = now_ns(), end = start + (uint64_t)(seconds * 1e9), now = start, whole = 0;
	uint64_t done = 0, lost = 0, below = 0;
	int fd = open_socket(address);
	request.head.un.echo.id = htons((uint16_t)getpid());
	for (uint16_t number = 1; now < end; number++) {
		uint64_t since = now_ns();
		request.head.un.echo.sequence = htons(number);
		memcpy(request.payload, &since, sizeof since);
		request.head.checksum = 0;
		request.head.checksum = checksum(&request, sizeof request);
		if (send(fd, &request, sizeof request, 0) < 0)
			fail("send");
		int came = answered(fd, &request);
		now = now_ns();
		if (!came) {
			lost++;
			continue;
		}
		uint64_t step = (now - since) / STEP_NS;
		latencies[step < STEPS ? step : STEPS - 1]++;
		whole += now - since;
		done++;
	}
	unsigned step = 0;
	while (step < STEPS - 1 && (below += latencies[step]) * 100 < done * 99)
		step++;
	printf("{\"done\": %lu, \"lost\": %lu, \"mean_us\": %.3f, \"p99_us\": %.2f}\n", done, lost,
	       done ? (double)whole / (double)done / 1000 : 0, (step + 0.5) * STEP_NS / 1000.0);
	return 0;
}
