/* Moves frames between two TAPs on one thread and looks into none of them: the least that a switch in user space can
 * cost, and so a bound for all of them.
 *
 *     bare HOW NAMESPACE NAMESPACE
 *
 * makes a TAP `eth0` in each of two named network namespaces. HOW is
 *
 *     poll       read and write, and poll when there is nothing to read
 *     spin       read and write without ever waiting
 *     multishot  io_uring, reads that stay armed
 *     single     io_uring, one read at a time for each TAP
 *     plain      as poll, without virtio headers: every frame is at most an MTU, with its checksum
 *
 *     bare xdp DEVICE DEVICE
 *
 * moves them by AF_XDP between two veths that are there, in the namespace that it runs in.
 *
 * It says `ready` when frames pass, and goes on until it is killed. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <poll.h>
#include <sched.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "bare.h"

static unsigned char buffer[FRAME_SIZE];

void passed(ssize_t length)
{
	if (length < 0 && errno != EIO && errno != ENOMEM && errno != ENOBUFS)
		fail("write");
}

/* Moves what there is, a turn's worth at most, and says how much it was. */
static int move(int from, int to)
{
	int moved;
	for (moved = 0; moved < TURN; moved++) {
		ssize_t length = read(from, buffer, sizeof buffer);
		if (length < 0) {
			if (errno != EAGAIN)
				fail("read");
			break;
		}
		passed(write(to, buffer, (size_t)length));
	}
	return moved;
}

_Noreturn void forward_polling(const int taps[2])
{
	struct pollfd waits[2] = {{taps[0], POLLIN, 0}, {taps[1], POLLIN, 0}};
	for (;;) {
		if (poll(waits, 2, -1) < 0)
			fail("poll");
		for (int i = 0; i < 2; i++)
			if (waits[i].revents & POLLIN)
				move(taps[i], taps[1 - i]);
	}
}

_Noreturn void forward_spinning(const int taps[2])
{
	for (;;) {
		move(taps[0], taps[1]);
		move(taps[1], taps[0]);
	}
}

static void enter(const char *path)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0 || setns(fd, CLONE_NEWNET) < 0)
		fail(path);
	close(fd);
}

static int make_tap(const char *namespace, int plain, int blocking)
{
	struct ifreq request = {.ifr_flags = IFF_TAP | IFF_NO_PI};
	char path[256];
	snprintf(path, sizeof path, "/run/netns/%s", namespace);
	enter(path);
	strcpy(request.ifr_name, "eth0");
	if (!plain)
		request.ifr_flags |= IFF_VNET_HDR;
	int fd = open("/dev/net/tun", O_RDWR | O_CLOEXEC | (blocking ? 0 : O_NONBLOCK));
	if (fd < 0 || ioctl(fd, TUNSETIFF, &request) < 0)
		fail("/dev/net/tun");
	unsigned long offloads = plain ? 0 : TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6;
	if (ioctl(fd, TUNSETOFFLOAD, offloads) < 0)
		fail("TUNSETOFFLOAD");
	return fd;
}

int main(int count, char **words)
{
	if (count != 4) {
		fprintf(stderr, "usage: bare poll|spin|multishot|single|plain NAMESPACE NAMESPACE, bare xdp DEVICE DEVICE\n");
		return 2;
	}
	const char *how = words[1];
	if (!strcmp(how, "xdp"))
		forward_by_xdp((const char *const[]){words[2], words[3]});
	int plain = !strcmp(how, "plain"), multishot = !strcmp(how, "multishot");
	/* A ring's read of a descriptor that never blocks would end at once instead of waiting. */
	int ring = multishot || !strcmp(how, "single");
	const int taps[2] = {make_tap(words[2], plain, ring), make_tap(words[3], plain, ring)};
	puts("ready");
	fflush(stdout);
	if (ring)
		forward_by_ring(taps, multishot);
	if (!strcmp(how, "spin"))
		forward_spinning(taps);
	forward_polling(taps);
}
