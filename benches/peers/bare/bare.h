/* A pair of TAPs, and ways to move frames from each to the other. */
#ifndef BARE_H
#define BARE_H

#include <stdio.h>
#include <stdlib.h>
#include <sys/types.h>

/* The largest super-frame with its virtio header, and some room. */
#define FRAME_SIZE (68 * 1024)
/* Frames that are read from one TAP before it is the other's turn. */
#define TURN 64

static inline _Noreturn void fail(const char *what)
{
	perror(what);
	exit(1);
}

/* Looks at what a write has said. A TAP that refuses a frame (it is down, or out of memory) has dropped it. */
void passed(ssize_t length);

_Noreturn void forward_polling(const int taps[2]);
_Noreturn void forward_spinning(const int taps[2]);
/* Between two devices of one network namespace that it does not make; it says by itself that it is ready. */
_Noreturn void forward_by_xdp(const char *const devices[2]);
/* Ends with status 77 where the kernel lacks what it needs. */
_Noreturn void forward_by_ring(const int taps[2], int multishot);

#endif
