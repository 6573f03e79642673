/* Frames, packets, times and arguments that mean nothing, by the hundred thousand, from a seed: whatever comes back, it is no
 * failure of the library's, and every frame is accounted for. */
#include "check.h"

static uint64_t state = 0x9e3779b97f4a7c15;

static uint64_t draw(void)
{
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return state;
}

static uint64_t below(uint64_t bound)
{
    return draw() % bound;
}

/* The library must not fail; anything else may be said. */
#define ANY(call)                                                                                            \
    do {                                                                                                     \
        uint32_t got_ = (uint32_t)(call);                                                                    \
        if (got_ == NETSTACK_RESULT_PANIC || got_ == NETSTACK_RESULT_INVALID_HANDLE) {                       \
            fprintf(stderr, "%s:%d: %s is %u\n", __FILE__, __LINE__, #call, (unsigned)got_);                 \
            exit(1);                                                                                         \
        }                                                                                                    \
    } while (0)

static const char json[] =
    "{\"segments\":["
    "{\"id\":0,\"name\":\"a\",\"mtu\":1500,\"gateway\":{\"mac\":\"02:00:00:00:ff:01\","
    "\"addresses\":[\"10.0.0.1/24\",\"fd00::1/64\"],\"probe\":true}},"
    "{\"id\":1,\"name\":\"b\",\"mtu\":1400,\"gateway\":{\"mac\":\"02:00:00:00:ff:01\","
    "\"addresses\":[\"10.1.0.1/24\",\"fd00:1::1/64\"]}}],"
    "\"ports\":["
    "{\"id\":0,\"name\":\"p0\",\"vlan\":{\"access\":0},"
    "\"station\":{\"managed\":{\"mac\":\"02:00:00:00:00:0a\",\"addresses\":[\"10.0.0.10\",\"fd00::10\"]}}},"
    "{\"id\":1,\"name\":\"p1\",\"vlan\":{\"access\":1},\"loop_guard\":true},"
    "{\"id\":2,\"name\":\"p2\",\"vlan\":{\"trunk\":{\"native\":0,\"tagged\":[[7,1]]}},\"storm\":{\"rate\":100,\"burst\":9}}],"
    "\"nat\":{\"pools\":[{\"name\":\"out\",\"addresses\":[\"10.1.0.1\"]}],"
    "\"source\":[{\"matches\":{\"egress\":1},\"action\":{\"pool\":\"out\"}}]}}";

/* Octets that are nearly a frame. */
static size_t frame(uint8_t *octets)
{
    static const uint8_t heads[3][14] = {
        {2, 0, 0, 0, 0xff, 1, 2, 0, 0, 0, 0, 0x0a, 8, 0},
        {255, 255, 255, 255, 255, 255, 2, 0, 0, 0, 0, 0x0b, 8, 6},
        {2, 0, 0, 0, 0xff, 1, 2, 0, 0, 0, 0, 0x0a, 0x86, 0xdd},
    };
    size_t length = below(8) == 0 ? below(1600) : 14 + below(120);
    for (size_t at = 0; at < length; at++)
        octets[at] = (uint8_t)(below(4) == 0 ? draw() : 0);
    memcpy(octets, heads[below(3)], length < 14 ? length : 14);
    if (length > 34 && octets[12] == 8 && octets[13] == 0) {
        uint32_t sum = 0;
        octets[14] = 0x45;
        octets[16] = (uint8_t)((length - 14) >> 8);
        octets[17] = (uint8_t)(length - 14);
        octets[20] &= 0x5f;
        octets[22] = 64;
        octets[23] = (uint8_t[]){6, 17, 1}[below(3)];
        memcpy(octets + 26, "\x0a\0\0\x0a\x0a\1\0", 7);
        octets[33] = (uint8_t)below(12);
        octets[24] = octets[25] = 0;
        for (int at = 14; at < 34; at += 2)
            sum += (uint32_t)octets[at] << 8 | octets[at + 1];
        sum = (sum & 0xffff) + (sum >> 16);
        sum = ~((sum & 0xffff) + (sum >> 16));
        octets[24] = (uint8_t)(sum >> 8);
        octets[25] = (uint8_t)sum;
    }
    return length;
}

/* A time after this one, now and then long after. */
static uint64_t later(uint64_t now)
{
    switch (below(50)) {
    case 0:
        return now + below((uint64_t)1000000 * 86400 * 30);
    case 1:
        return now + below((uint64_t)1000000 * 60);
    default:
        return now + below(1000);
    }
}

static void one(netstack_switch *sw, netstack_host *host, netstack_batch *batch, uint64_t now)
{
    uint8_t octets[1600], room[3000];
    netstack_frame in = {octets, frame(octets)};
    netstack_buffer out = {room, below(4) == 0 ? below(100) : sizeof room, 0};
    netstack_view view;
    netstack_offload offload;
    netstack_event event;
    netstack_host_event told_event;
    size_t count;
    uint16_t port;
    bool told;
    char *text = NULL;
    switch (below(14)) {
    case 0:
    case 1:
    case 2:
        ANY(netstack_switch_handle_frames(sw, now, (uint16_t)below(4), &in, 1, &count));
        break;
    case 3:
        ANY(netstack_batch_push(batch, octets, in.len));
        break;
    case 4:
        for (size_t at = 0; at < sizeof offload; at++)
            ((uint8_t *)&offload)[at] = (uint8_t)below(below(2) == 0 ? 4 : 256);
        ANY(netstack_batch_set_offload(batch, below(8), &offload));
        break;
    case 5:
        ANY(netstack_switch_handle_batch(sw, now, (uint16_t)below(4), batch));
        break;
    case 6:
        ANY(netstack_switch_poll_transmit(sw, &out, 1, &port, &count));
        break;
    case 7:
        ANY(netstack_switch_poll_batch(sw, batch, &port, &count));
        break;
    case 8:
        ANY(netstack_switch_handle_timeout(sw, now));
        ANY(netstack_switch_poll_event(sw, &event, &told));
        break;
    case 9:
        ANY(netstack_switch_trace_json(sw, now, (uint16_t)below(4), octets, in.len, &text));
        ANY(netstack_string_free(text));
        break;
    case 10:
        ANY(netstack_host_handle_batch(host, now, batch));
        ANY(netstack_host_poll_event(host, &told_event, &told));
        break;
    case 11:
        ANY(netstack_host_handle_timeout(host, now));
        ANY(netstack_host_poll_batch(host, batch, &count));
        break;
    case 12:
        ANY(netstack_batch_reserve(batch, below(3), below(70000), &view, &count));
        ANY(netstack_batch_set_length(batch, below(70), below(70000)));
        break;
    default:
        ANY(netstack_batch_clear(batch));
        break;
    }
}

static void sockets(netstack_host *host, uint64_t now)
{
    netstack_endpoint endpoint;
    uint64_t socket = below(40);
    uint8_t octets[64] = {0};
    size_t count;
    uint32_t flags;
    for (size_t at = 0; at < sizeof endpoint; at++)
        ((uint8_t *)&endpoint)[at] = (uint8_t)(below(4) == 0 ? draw() : 0);
    if (below(2) == 0) {
        DONE(netstack_endpoint_parse("10.0.0.10:80", &endpoint));
        endpoint.port = (uint16_t)below(4);
    }
    switch (below(9)) {
    case 0:
        ANY(netstack_host_tcp_connect(host, now, &endpoint, &socket));
        break;
    case 1:
        ANY(netstack_host_tcp_listen(host, &endpoint, &socket));
        break;
    case 2:
        ANY(netstack_host_tcp_send(host, now, socket, octets, sizeof octets, &count));
        break;
    case 3:
        ANY(netstack_host_tcp_receive(host, now, socket, octets, sizeof octets, &count));
        break;
    case 4:
        ANY(netstack_host_udp_bind(host, &endpoint, &socket, NULL));
        break;
    case 5:
        ANY(netstack_host_udp_send(host, now, socket, octets, below(65), &endpoint));
        break;
    case 6:
        ANY(netstack_host_poll(host, socket, &flags));
        break;
    case 7:
        ANY(netstack_host_tcp_shutdown(host, now, socket));
        break;
    default:
        ANY(netstack_host_close(host, now, below(10) == 0 ? socket : 0));
        break;
    }
}

int main(int count, char **arguments)
{
    static const uint8_t seed[32] = {9};
    static const char *address = "10.0.0.10/24";
    long rounds = count > 1 ? atol(arguments[1]) : 100000;
    netstack_limits limits;
    netstack_host_options options;
    netstack_config *config;
    netstack_switch *sw;
    netstack_host *host;
    netstack_batch *batch;
    netstack_nat *nat;
    uint64_t now = 0;
    char *error = NULL;
    DONE(netstack_limits_init(&limits));
    limits.connections = limits.flows = limits.neighbors = limits.fdb_entries = 64;
    limits.parked = limits.queue_frames = 32;
    DONE(netstack_config_from_json(json, strlen(json), &config, &error));
    DONE(netstack_switch_new(&limits, seed, &sw));
    DONE(netstack_switch_install(sw, config, &error));
    DONE(netstack_config_free(config));
    DONE(netstack_host_options_init(&options));
    options.mac[0] = 2;
    options.mac[5] = 0x0a;
    options.addresses = &address;
    options.address_count = 1;
    options.gateway_v4 = "10.0.0.1";
    options.tcp_connections = options.udp_sockets = 8;
    DONE(netstack_host_new(&options, seed, &host, &error));
    DONE(netstack_batch_new(&batch));
    DONE(netstack_nat_new("{}", 2, 64, seed, &nat, &error));
    for (long round = 0; round < rounds; round++) {
        uint8_t octets[1600];
        uint32_t verdict;
        size_t length = frame(octets);
        now = later(now);
        one(sw, host, batch, now);
        sockets(host, now);
        if (length > 14)
            ANY(netstack_nat_translate(nat, now, 1, 2, octets + 14, length - 14, &verdict));
        if (round % 64 == 0) {
            ANY(netstack_nat_handle_timeout(nat, now));
            DONE(netstack_switch_check(sw, &error));
        }
    }
    if (rounds >= 100000) {
        netstack_counters counters;
        counters.struct_size = sizeof counters;
        DONE(netstack_switch_counters(sw, NETSTACK_ALL_PORTS, &counters));
        CHECK(counters.forwarded > 0 && counters.dropped > 0 && counters.consumed > 0 && counters.originated > 0);
    }
    DONE(netstack_nat_free(nat));
    DONE(netstack_batch_free(batch));
    DONE(netstack_host_free(host));
    DONE(netstack_switch_free(sw));
    puts("nonsense: ok");
    return 0;
}
