/* Handles and threads: two threads with handles of their own, one handle that goes from thread to thread, and one that several
 * threads look at. How often each is done is the argument; with a second one, they also do what they must not. */
#define NETSTACK_EXAMPLE_WITHOUT_MAIN
#include "../examples/two_hosts.c"

#include "check.h"

#include <pthread.h>

static long times = 1000;

static void *example(void *nothing)
{
    for (long at = 0; at < times; at++)
        CHECK(two_hosts(NULL) == 0);
    return nothing;
}

static void *carry_on(void *handle)
{
    netstack_switch *sw = handle;
    uint8_t frame[60], room[100];
    netstack_frame in = {frame, sizeof frame};
    netstack_buffer out = {room, sizeof room, 0};
    size_t count = 0;
    uint16_t port = 9;
    broadcast(frame, sizeof frame);
    DONE(netstack_switch_handle_frames(sw, 0, 0, &in, 1, &count));
    DONE(netstack_switch_poll_transmit(sw, &out, 1, &port, &count));
    CHECK(count == 1 && port == 1);
    return handle;
}

static void *give_up(void *handle)
{
    DONE(netstack_switch_free(handle));
    return NULL;
}

static void *look(void *handle)
{
    const netstack_switch *sw = handle;
    uint8_t frame[60];
    broadcast(frame, sizeof frame);
    for (long at = 0; at < times; at++) {
        netstack_counters counters;
        uint64_t deadline, cursor = 0;
        netstack_connection connections[2];
        size_t count;
        char *text = NULL;
        counters.struct_size = sizeof counters;
        DONE(netstack_switch_counters(sw, NETSTACK_ALL_PORTS, &counters));
        DONE(netstack_switch_poll_timeout(sw, &deadline));
        DONE(netstack_switch_connections(sw, 0, &cursor, connections, 2, &count));
        DONE(netstack_switch_trace_text(sw, 0, 0, frame, sizeof frame, &text));
        DONE(netstack_string_free(text));
        DONE(netstack_switch_check(sw, NULL));
    }
    return NULL;
}

static void together(void *(*work)(void *), void *argument, int threads)
{
    pthread_t started[4];
    for (int at = 0; at < threads; at++)
        CHECK(pthread_create(&started[at], NULL, work, argument) == 0);
    for (int at = 0; at < threads; at++)
        CHECK(pthread_join(started[at], NULL) == 0);
}

/* What must not be done: several threads change one switch. Each call is done, or refused, and nothing is harmed. */
static void *interfere(void *handle)
{
    netstack_switch *sw = handle;
    uint8_t frame[60];
    netstack_frame in = {frame, sizeof frame};
    broadcast(frame, sizeof frame);
    for (long at = 0; at < 100 * times; at++) {
        size_t count = 0;
        netstack_counters counters;
        uint32_t got = netstack_switch_handle_frames(sw, 0, (uint16_t)(at % 2), &in, 1, &count);
        CHECK(got == NETSTACK_RESULT_BUSY || (got == NETSTACK_RESULT_OK && count == 1));
        counters.struct_size = sizeof counters;
        got = netstack_switch_counters(sw, NETSTACK_ALL_PORTS, &counters);
        CHECK(got == NETSTACK_RESULT_BUSY || got == NETSTACK_RESULT_OK);
    }
    return NULL;
}

int main(int count, char **arguments)
{
    netstack_switch *sw;
    if (count > 1)
        times = atol(arguments[1]);
    together(example, NULL, 2);
    sw = new_bridge();
    together(carry_on, sw, 1);
    carry_on(sw);
    together(carry_on, sw, 1);
    together(look, sw, 4);
    if (count > 2) {
        together(interfere, sw, 4);
        DONE(netstack_switch_check(sw, NULL));
    }
    together(give_up, sw, 1);
    puts("threads: ok");
    return 0;
}
