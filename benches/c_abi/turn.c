/* The turn of a driver in C: what `Bed::turn` of this crate is in Rust. `c_abi/run` builds it into a shared object. */
#include <netstack.h>
#include <stdlib.h>
#include <string.h>

/* The time at which everything happens; it stands still. */
#define NOW ((uint64_t)1000000000)
#define MOST 64

struct bed {
    netstack_switch *sw;
    netstack_batch *batch;
    uint64_t received;
};

struct bed *bed_new(const char *json, size_t length);
void bed_turn_lent(struct bed *bed, uint16_t port, const uint8_t *sample, size_t length, size_t frames);
void bed_turn_copied(struct bed *bed, uint16_t port, const uint8_t *sample, size_t length, size_t frames);
uint64_t bed_received(const struct bed *bed);

static void must(uint32_t result)
{
    if (result != NETSTACK_RESULT_OK)
        abort();
}

struct bed *bed_new(const char *json, size_t length)
{
    static const uint8_t seed[32] = {1};
    struct bed *bed = calloc(1, sizeof *bed);
    netstack_config *config;
    if (bed == NULL)
        abort();
    must(netstack_config_from_json(json, length, &config, NULL));
    must(netstack_switch_new(NULL, seed, &bed->sw));
    must(netstack_switch_install(bed->sw, config, NULL));
    must(netstack_config_free(config));
    must(netstack_batch_new(&bed->batch));
    return bed;
}

/* Frames in buffers of the library's, in and out. */
void bed_turn_lent(struct bed *bed, uint16_t port, const uint8_t *sample, size_t length, size_t frames)
{
    netstack_view views[MOST];
    size_t count, at;
    uint16_t out;
    must(netstack_batch_reserve(bed->batch, frames, length, views, &count));
    for (at = 0; at < count; at++)
        memcpy(views[at].data, sample, length);
    must(netstack_switch_handle_batch(bed->sw, NOW, port, bed->batch));
    for (;;) {
        must(netstack_switch_poll_batch(bed->sw, bed->batch, &out, &count));
        if (count == 0)
            break;
        bed->received += count;
        must(netstack_batch_clear(bed->batch));
    }
}

/* Frames in buffers of the caller's, copied in and out. */
void bed_turn_copied(struct bed *bed, uint16_t port, const uint8_t *sample, size_t length, size_t frames)
{
    static uint8_t room[MOST][2048];
    netstack_frame in[MOST];
    netstack_buffer out[MOST];
    size_t count, at;
    uint16_t leaves;
    for (at = 0; at < frames; at++) {
        in[at].data = sample;
        in[at].len = length;
        out[at].data = room[at];
        out[at].capacity = sizeof room[at];
    }
    must(netstack_switch_handle_frames(bed->sw, NOW, port, in, frames, &count));
    for (;;) {
        must(netstack_switch_poll_transmit(bed->sw, out, frames, &leaves, &count));
        if (count == 0)
            break;
        bed->received += count;
    }
}

uint64_t bed_received(const struct bed *bed)
{
    return bed->received;
}
