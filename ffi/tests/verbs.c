#define _DEFAULT_SOURCE
/* The data path, devices, sockets, captures and traces, each way there is. */
#include "check.h"

#include <unistd.h>

#define SECOND ((uint64_t)1000000)

static void batches(void)
{
    netstack_switch *sw = new_bridge();
    netstack_batch *batch = NULL;
    netstack_view views[NETSTACK_BATCH_FRAMES];
    netstack_offload offload;
    netstack_counters counters;
    netstack_count drops[4];
    size_t count = 0;
    uint16_t port = 0;
    DONE(netstack_batch_new(&batch));
    for (unsigned round = 0; round < 100; round++) {
        DONE(netstack_batch_reserve(batch, 32, 60, views, &count));
        CHECK(count == 32);
        for (size_t at = 0; at < count; at++) {
            CHECK(views[at].len == 60);
            broadcast(views[at].data, views[at].len);
            views[at].data[20] = (uint8_t)at;
        }
        DONE(netstack_batch_set_length(batch, 31, 80));
        IS(TOO_LONG, netstack_batch_set_length(batch, 31, 100000));
        IS(NOT_FOUND, netstack_batch_set_length(batch, 32, 60));
        DONE(netstack_switch_handle_batch(sw, round, 0, batch));
        DONE(netstack_batch_count(batch, &count));
        CHECK(count == 0);
        DONE(netstack_switch_poll_batch(sw, batch, &port, &count));
        CHECK(count == 32 && port == 1);
        IS(INVALID_ARGUMENT, netstack_switch_poll_batch(sw, batch, &port, &count));
        DONE(netstack_batch_frames(batch, views, 2, &count));
        CHECK(count == 32 && views[1].len == 60 && views[1].data[20] == 1);
        DONE(netstack_batch_clear(batch));
        DONE(netstack_switch_poll_batch(sw, batch, &port, &count));
        CHECK(count == 0);
    }
    /* More than one batch holds. */
    DONE(netstack_batch_reserve(batch, NETSTACK_BATCH_FRAMES, 1500, views, &count));
    CHECK(count == 33);
    DONE(netstack_batch_offload(batch, 0, &offload));
    CHECK(offload.checksum == 0 && offload.segmentation == 0);
    offload.checksum = 2;
    offload.checksum_start = 34;
    offload.checksum_offset = 16;
    DONE(netstack_batch_set_offload(batch, 0, &offload));
    DONE(netstack_batch_offload(batch, 0, &offload));
    CHECK(offload.checksum == 2 && offload.checksum_start == 34);
    offload.segmentation = 9;
    IS(INVALID_ARGUMENT, netstack_batch_set_offload(batch, 0, &offload));
    IS(TABLE_FULL, netstack_batch_push(batch, views[0].data, 60));
    DONE(netstack_batch_clear(batch));
    DONE(netstack_batch_push(batch, (const uint8_t *)"short", 5));
    DONE(netstack_switch_handle_batch(sw, 100, 0, batch));

    memset(&counters, 0, sizeof counters);
    counters.struct_size = sizeof counters;
    DONE(netstack_switch_counters(sw, NETSTACK_ALL_PORTS, &counters));
    CHECK(counters.struct_size == sizeof counters);
    CHECK(counters.rx_frames == 3201 && counters.tx_frames == 3200 && counters.flooded == 3200);
    CHECK(counters.dropped == 1);
    DONE(netstack_switch_drops(sw, NETSTACK_ALL_PORTS, drops, 4, &count));
    CHECK(count == 1 && drops[0].count == 1 && strcmp(drops[0].name, "frame_too_short") == 0);
    IS(NOT_FOUND, netstack_switch_counters(sw, 77, &counters));
    /* An older header's struct: nothing is written behind its end. */
    memset(&counters, 0xaa, sizeof counters);
    counters.struct_size = offsetof(netstack_counters, rx_bytes);
    DONE(netstack_switch_counters(sw, 0, &counters));
    CHECK(counters.rx_frames == 3201 && counters.rx_bytes == 0xaaaaaaaaaaaaaaaa);
    DONE(netstack_switch_check(sw, NULL));
    DONE(netstack_batch_free(batch));
    DONE(netstack_switch_free(sw));
}

static void traces(const char *scratch)
{
    netstack_switch *sw = new_bridge();
    netstack_event event;
    uint8_t frame[60];
    netstack_frame in = {frame, sizeof frame};
    char *text = NULL, *error = NULL;
    char path[512];
    size_t count = 0;
    uint64_t packets = 0;
    bool told = false;
    broadcast(frame, sizeof frame);

    DONE(netstack_switch_trace_text(sw, 0, 0, frame, sizeof frame, &text));
    CHECK(strstr(text, "outcome    flooded to right") != NULL);
    DONE(netstack_string_free(text));
    DONE(netstack_switch_trace_json(sw, 0, 0, frame, sizeof frame, &text));
    CHECK(strstr(text, "\"outcome\":\"flooded to right\"") != NULL);
    DONE(netstack_string_free(text));

    snprintf(path, sizeof path, "%s/capture.pcapng", scratch);
    IS(OS, netstack_switch_capture(sw, "/does/not/exist", 0, &error));
    CHECK(error != NULL);
    DONE(netstack_string_free(error));
    DONE(netstack_switch_capture(sw, path, 1700000000 * SECOND, NULL));
    IS(ALREADY_EXISTS, netstack_switch_capture(sw, path, 0, NULL));
    DONE(netstack_switch_handle_frames(sw, SECOND, 0, &in, 1, &count));
    {
        uint8_t room[100];
        netstack_buffer out = {room, sizeof room, 0};
        uint16_t port = 0;
        DONE(netstack_switch_poll_transmit(sw, &out, 1, &port, &count));
        CHECK(count == 1);
    }
    DONE(netstack_switch_capture_end(sw, &packets));
    CHECK(packets == 2);
    IS(NOT_FOUND, netstack_switch_capture_end(sw, NULL));

    DONE(netstack_switch_poll_event(sw, &event, &told));
    CHECK(told && event.kind == NETSTACK_EVENT_KIND_INSTALLED && event.value == 1);
    DONE(netstack_switch_poll_event(sw, &event, &told));
    CHECK(!told);
    DONE(netstack_switch_free(sw));
}

static void configs(void)
{
    static const uint8_t mac[6] = {2, 0, 0, 0, 0, 1};
    netstack_config *config = NULL, *again = NULL;
    netstack_switch *sw = new_bridge();
    netstack_endpoint from, to;
    const char *addresses[] = {"192.0.2.1"};
    char *json = NULL, *other = NULL, *error = NULL;
    DONE(netstack_config_new(&config));
    DONE(netstack_config_add_segment(config, 0, "pods", 1500));
    DONE(netstack_config_add_segment(config, 1, "outside", 1400));
    IS(ALREADY_EXISTS, netstack_config_add_segment(config, 1, "outside", 1400));
    DONE(netstack_config_set_gateway(config, 0, mac));
    DONE(netstack_config_set_gateway(config, 1, mac));
    DONE(netstack_config_add_gateway_address(config, 0, "10.0.0.1/24"));
    DONE(netstack_config_add_gateway_address(config, 1, "192.0.2.1/24"));
    DONE(netstack_config_add_port(config, 0, "pod", 0));
    DONE(netstack_config_add_port(config, 1, "uplink", 1));
    DONE(netstack_config_set_station(config, 0, (const uint8_t[6]){2, 0, 0, 0, 0, 9}));
    DONE(netstack_config_add_station_address(config, 0, "10.0.0.9"));
    IS(NOT_FOUND, netstack_config_add_station_address(config, 1, "10.0.0.9"));
    DONE(netstack_config_add_vlan(config, 1, 100, 0));
    DONE(netstack_config_set_offload(config, 1, NETSTACK_DEVICE_FLAG_ALL));
    IS(INVALID_ARGUMENT, netstack_config_set_offload(config, 1, 16));
    DONE(netstack_config_add_route(config, "0.0.0.0/0", 1, "192.0.2.254"));
    DONE(netstack_config_add_pool(config, "outside", addresses, 1));
    DONE(netstack_config_add_masquerade(config, "10.0.0.0/24", 1, "outside"));
    DONE(netstack_endpoint_parse("192.0.2.1:8080", &from));
    DONE(netstack_endpoint_parse("10.0.0.9:80", &to));
    DONE(netstack_config_add_forward(config, 6, &from, &to));
    {
        static const char rule[] = "{\"matches\":{\"sources\":[\"10.9.0.0/16\"]},\"action\":\"keep\"}";
        static const char route[] = "{\"prefix\":\"10.8.0.0/16\",\"target\":\"blackhole\"}";
        DONE(netstack_config_add_nat_json(config, "source", rule, strlen(rule), NULL));
        DONE(netstack_config_add_json(config, "routes", route, strlen(route), NULL));
        IS(NOT_FOUND, netstack_config_add_json(config, "roots", route, strlen(route), NULL));
        IS(INVALID_JSON, netstack_config_add_json(config, "ports", route, strlen(route), &error));
        CHECK(error != NULL);
        DONE(netstack_string_free(error));
        error = NULL;
    }
    DONE(netstack_config_check(config, &error));
    CHECK(error == NULL);
    DONE(netstack_config_remove(config, "routes", 1));
    IS(NOT_FOUND, netstack_config_remove(config, "routes", 1));
    DONE(netstack_config_remove(config, "source", 1));
    IS(NOT_FOUND, netstack_config_remove(config, "destination", 1));
    IS(NOT_FOUND, netstack_config_remove(config, "sauce", 0));

    /* Out as JSON, in again, installed, and out of the switch: the same. */
    DONE(netstack_config_to_json(config, &json));
    DONE(netstack_config_from_json(json, strlen(json), &again, &error));
    DONE(netstack_switch_install(sw, again, &error));
    DONE(netstack_config_free(again));
    DONE(netstack_switch_config(sw, &again));
    DONE(netstack_config_to_json(again, &other));
    CHECK(strcmp(json, other) == 0);
    DONE(netstack_string_free(json));
    DONE(netstack_string_free(other));
    DONE(netstack_config_free(again));
    DONE(netstack_config_clone(config, &again));
    DONE(netstack_config_free(again));
    DONE(netstack_config_free(config));
    DONE(netstack_switch_free(sw));
}

static netstack_host *new_host(uint8_t number, const char *address)
{
    netstack_host_options options;
    netstack_host *host = NULL;
    char *error = NULL;
    uint8_t seed[32] = {0};
    DONE(netstack_host_options_init(&options));
    seed[0] = number;
    options.mac[0] = 2;
    options.mac[5] = number;
    options.addresses = &address;
    options.address_count = 1;
    options.tcp_connections = 16;
    DONE(netstack_host_new(&options, seed, &host, &error));
    CHECK(error == NULL);
    return host;
}

/* Everything that two hosts and a switch have to say to each other, at one moment. */
static void turn(netstack_switch *sw, netstack_host *hosts[2], uint64_t now)
{
    netstack_batch *batch = NULL;
    size_t count = 0, moved;
    uint16_t port = 0;
    DONE(netstack_batch_new(&batch));
    do {
        moved = 0;
        for (uint16_t at = 0; at < 2; at++) {
            DONE(netstack_host_poll_batch(hosts[at], batch, &count));
            moved += count;
            DONE(netstack_switch_handle_batch(sw, now, at, batch));
        }
        for (;;) {
            DONE(netstack_switch_poll_batch(sw, batch, &port, &count));
            if (count == 0)
                break;
            moved += count;
            DONE(netstack_host_handle_batch(hosts[port], now, batch));
        }
    } while (moved > 0);
    DONE(netstack_batch_free(batch));
}

struct readiness {
    netstack_host *host;
    unsigned calls;
    uint32_t flags;
};

static void on_ready(void *userdata, uint64_t socket, uint32_t ready)
{
    struct readiness *seen = userdata;
    uint32_t flags = 0;
    IS(BUSY, netstack_host_poll(seen->host, socket, &flags));
    seen->calls++;
    seen->flags |= ready;
}

static void sockets(void)
{
    netstack_switch *sw = new_bridge();
    netstack_host *hosts[2];
    netstack_endpoint server, bound, from;
    netstack_address address;
    netstack_host_event event;
    struct readiness seen = {NULL, 0, 0};
    uint64_t listener = 0, client = 0, accepted = 0, udp[2] = {0, 0}, now = SECOND, deadline = 0;
    uint32_t state = 0, flags = 0;
    size_t count = 0;
    uint8_t octets[64];
    int descriptor = -1;
    bool told = false;
    hosts[0] = new_host(1, "fd00::1/64");
    hosts[1] = new_host(2, "fd00::2/64");
    seen.host = hosts[0];
    DONE(netstack_endpoint_parse("[fd00::2]:80", &server));

    IS(ADDRESS_NOT_OURS, netstack_host_tcp_listen(hosts[0], &server, &listener));
    DONE(netstack_host_tcp_listen(hosts[1], &server, &listener));
    IS(ADDRESS_IN_USE, netstack_host_tcp_listen(hosts[1], &server, &listener));
    DONE(netstack_host_descriptor(hosts[1], &descriptor));
    CHECK(descriptor >= 0);
    DONE(netstack_host_on_ready(hosts[0], on_ready, &seen));
    DONE(netstack_host_tcp_connect(hosts[0], now, &server, &client));
    IS(WOULD_BLOCK, netstack_host_tcp_accept(hosts[1], listener, &accepted));
    IS(STALE_SOCKET, netstack_host_tcp_accept(hosts[1], 999, &accepted));
    IS(WOULD_BLOCK, netstack_host_tcp_send(hosts[0], now, client, octets, 1, &count));
    turn(sw, hosts, now);
    CHECK(seen.calls > 0 && (seen.flags & NETSTACK_READY_FLAG_WRITABLE) != 0);
    DONE(netstack_host_poll_event(hosts[1], &event, &told));
    CHECK(told && event.kind == NETSTACK_HOST_EVENT_KIND_SOCKET && event.socket == listener);
    CHECK(event.ready == NETSTACK_READY_FLAG_READABLE);
    CHECK(read(descriptor, octets, 8) == 8);
    DONE(netstack_host_tcp_accept(hosts[1], listener, &accepted));
    DONE(netstack_host_poll(hosts[1], listener, &flags));
    CHECK(flags == 0);
    DONE(netstack_host_tcp_state(hosts[0], client, &state, &bound, &from));
    CHECK(state == NETSTACK_TCP_STATE_ESTABLISHED && from.port == 80 && bound.port >= 49152);

    DONE(netstack_host_tcp_send(hosts[0], now, client, (const uint8_t *)"hello", 5, &count));
    CHECK(count == 5);
    turn(sw, hosts, now);
    DONE(netstack_host_poll(hosts[1], accepted, &flags));
    CHECK((flags & NETSTACK_READY_FLAG_READABLE) != 0);
    DONE(netstack_host_tcp_receive(hosts[1], now, accepted, octets, 2, &count));
    CHECK(count == 2);
    DONE(netstack_host_tcp_receive(hosts[1], now, accepted, octets + 2, sizeof octets - 2, &count));
    CHECK(count == 3 && memcmp(octets, "hello", 5) == 0);
    IS(WOULD_BLOCK, netstack_host_tcp_receive(hosts[1], now, accepted, octets, sizeof octets, &count));
    DONE(netstack_host_tcp_shutdown(hosts[1], now, accepted));
    turn(sw, hosts, now);
    DONE(netstack_host_tcp_receive(hosts[0], now, client, octets, sizeof octets, &count));
    CHECK(count == 0);
    DONE(netstack_host_close(hosts[0], now, client));
    IS(STALE_SOCKET, netstack_host_close(hosts[0], now, client));
    DONE(netstack_host_close(hosts[1], now, accepted));
    DONE(netstack_host_close(hosts[1], now, listener));
    turn(sw, hosts, now);
    DONE(netstack_host_tcp_connect(hosts[0], now, &server, &client));
    turn(sw, hosts, now);
    IS(REFUSED, netstack_host_tcp_receive(hosts[0], now, client, octets, sizeof octets, &count));
    IS(INVALID_ARGUMENT, netstack_host_udp_send(hosts[0], now, client, octets, 1, &server));

    server.port = 53;
    DONE(netstack_host_udp_bind(hosts[1], &server, &udp[1], NULL));
    DONE(netstack_endpoint_parse("[::]:0", &from));
    DONE(netstack_host_udp_bind(hosts[0], &from, &udp[0], &bound));
    CHECK(bound.port >= 49152);
    DONE(netstack_host_udp_send(hosts[0], now, udp[0], (const uint8_t *)"question", 8, &server));
    DONE(netstack_host_udp_send(hosts[0], now, udp[0], NULL, 0, &server));
    {
        static const uint8_t long_one[2000];
        IS(TOO_LONG, netstack_host_udp_send(hosts[0], now, udp[0], long_one, sizeof long_one, &server));
    }
    DONE(netstack_host_poll(hosts[1], udp[1], &flags));
    CHECK(flags == NETSTACK_READY_FLAG_WRITABLE);
    turn(sw, hosts, now);
    DONE(netstack_host_poll(hosts[1], udp[1], &flags));
    CHECK(flags == (NETSTACK_READY_FLAG_READABLE | NETSTACK_READY_FLAG_WRITABLE));
    DONE(netstack_host_udp_receive(hosts[1], udp[1], octets, 4, &count, &from, &address));
    CHECK(count == 8 && memcmp(octets, "ques", 4) == 0 && from.port == bound.port && address.family == 6);
    DONE(netstack_host_udp_receive(hosts[1], udp[1], octets, 4, &count, &from, NULL));
    CHECK(count == 0);
    IS(WOULD_BLOCK, netstack_host_udp_receive(hosts[1], udp[1], octets, 4, &count, NULL, NULL));

    /* The callback takes what is about sockets; an answer to a ping needs somebody who asks. */
    DONE(netstack_host_on_ready(hosts[0], NULL, NULL));
    DONE(netstack_host_ping(hosts[0], now, &server.address, 7, 1, (const uint8_t *)"ping", 4));
    turn(sw, hosts, now);
    do
        DONE(netstack_host_poll_event(hosts[0], &event, &told));
    while (told && event.kind != NETSTACK_HOST_EVENT_KIND_ECHO_REPLY);
    CHECK(told && event.id == 7 && event.sequence == 1 && event.length == 4);
    DONE(netstack_host_poll_timeout(hosts[0], &deadline));
    CHECK(deadline > now);
    DONE(netstack_host_handle_timeout(hosts[0], deadline));
    DONE(netstack_switch_check(sw, NULL));
    DONE(netstack_host_free(hosts[0]));
    DONE(netstack_host_free(hosts[1]));
    DONE(netstack_switch_free(sw));
}

static void copies(void)
{
    netstack_host *host = new_host(1, "10.0.0.1/24");
    netstack_address other;
    uint8_t small[20], room[2000], answer[60] = {0};
    netstack_buffer out = {small, sizeof small, 0};
    netstack_frame in = {answer, sizeof answer};
    size_t count = 0;
    DONE(netstack_address_parse("10.0.0.2", &other));
    DONE(netstack_host_ping(host, 0, &other, 1, 1, NULL, 0));
    IS(BUFFER_TOO_SMALL, netstack_host_poll_transmit(host, &out, 1, &count));
    CHECK(count == 0 && out.len > sizeof small);
    out.data = room;
    out.capacity = sizeof room;
    DONE(netstack_host_poll_transmit(host, &out, 1, &count));
    CHECK(count == 1 && room[12] == 8 && room[13] == 6);
    DONE(netstack_host_handle_frames(host, 0, &in, 1, &count));
    CHECK(count == 1);
    DONE(netstack_host_free(host));
}

static void devices(void)
{
    netstack_device *left = NULL, *right = NULL;
    netstack_batch *batch = NULL;
    uint8_t frame[60];
    size_t count = 0;
    uint64_t sent = 0;
    uint32_t flags = 0;
    int descriptor = -1;
    bool may_sleep = false;
    broadcast(frame, sizeof frame);
    IS(INVALID_ARGUMENT, netstack_device_memory_pair(0, 1500, 0, &left, &right));
    DONE(netstack_device_memory_pair(2, 1500, NETSTACK_DEVICE_FLAG_CHECKSUM, &left, &right));
    DONE(netstack_device_offload(left, &flags));
    CHECK(flags == NETSTACK_DEVICE_FLAG_CHECKSUM);
    DONE(netstack_device_descriptor(right, &descriptor));
    CHECK(descriptor >= 0);
    DONE(netstack_batch_new(&batch));
    DONE(netstack_device_prepare_sleep(right, &may_sleep));
    CHECK(may_sleep);
    DONE(netstack_batch_push(batch, frame, sizeof frame));
    DONE(netstack_device_send(left, batch, &sent));
    CHECK(sent == 1);
    DONE(netstack_device_receive(right, batch, &count));
    CHECK(count == 1);
    DONE(netstack_device_free(left));
    IS(DEVICE_GONE, netstack_device_send(right, batch, &sent));
    IS(DEVICE_GONE, netstack_device_receive(right, batch, &count));
    DONE(netstack_device_free(right));
    DONE(netstack_batch_free(batch));
    {
        char *error = NULL;
        IS(INVALID_ARGUMENT, netstack_device_tap_open("a/b", NETSTACK_TAP_MODE_AUTO, &left, &error));
        CHECK(error != NULL);
        DONE(netstack_string_free(error));
        IS(INVALID_ARGUMENT, netstack_device_tap_from_fd(-1, NETSTACK_TAP_MODE_AUTO, 1500, &left, NULL));
    }
}

static void count_hosts(void *userdata, netstack_host *host, uint64_t now_us)
{
    uint64_t *socket = userdata;
    netstack_endpoint any;
    DONE(netstack_endpoint_parse("10.0.0.2:7", &any));
    (void)now_us;
    DONE(netstack_host_udp_bind(host, &any, socket, NULL));
}

static void receive_there(void *userdata, netstack_host *host, uint64_t now_us)
{
    uint64_t *socket = userdata;
    uint8_t octets[8];
    size_t count = 0;
    (void)now_us;
    if (netstack_host_udp_receive(host, *socket, octets, sizeof octets, &count, NULL, NULL) == NETSTACK_RESULT_OK) {
        CHECK(count == 5 && memcmp(octets, "hello", 5) == 0);
        *socket = 0;
    }
}

/* A driver turns a switch and a host; the other host is turned here, through a link in memory. */
static void drivers(void)
{
    netstack_driver *driver = NULL;
    netstack_device *left = NULL, *right = NULL;
    netstack_batch *batch = NULL;
    netstack_host *mine = new_host(1, "10.0.0.1/24");
    netstack_endpoint any, there;
    uint64_t theirs = 0, socket = 0, now = 0, epoch = 0;
    uint32_t id = 9;
    size_t count = 0;
    uint16_t port = 0;
    bool told = true;
    DONE(netstack_batch_new(&batch));
    DONE(netstack_driver_start(new_bridge(), &driver));
    DONE(netstack_driver_set_latency(driver, 2));
    DONE(netstack_driver_add_host(driver, 1, new_host(2, "10.0.0.2/24"), &id));
    CHECK(id == 0);
    DONE(netstack_driver_with_host(driver, id, count_hosts, &theirs));
    CHECK(theirs != 0);
    DONE(netstack_device_memory_pair(16, 1500, 0, &left, &right));
    DONE(netstack_driver_attach(driver, 0, left));
    DONE(netstack_endpoint_parse("0.0.0.0:0", &any));
    DONE(netstack_endpoint_parse("10.0.0.2:7", &there));
    DONE(netstack_host_udp_bind(mine, &any, &socket, NULL));
    DONE(netstack_driver_now(driver, &now, &epoch));
    CHECK(epoch > 1000 * SECOND);
    DONE(netstack_host_udp_send(mine, now, socket, (const uint8_t *)"hello", 5, &there));
    for (unsigned round = 0; theirs != 0; round++) {
        CHECK(round < 5000);
        DONE(netstack_driver_now(driver, &now, NULL));
        DONE(netstack_device_receive(right, batch, &count));
        DONE(netstack_host_handle_batch(mine, now, batch));
        DONE(netstack_host_poll_batch(mine, batch, &count));
        DONE(netstack_device_send(right, batch, NULL));
        DONE(netstack_driver_with_host(driver, id, receive_there, &theirs));
        usleep(1000);
    }
    DONE(netstack_driver_poll_gone(driver, &port, &told));
    CHECK(!told);
    DONE(netstack_device_free(right));
    for (unsigned round = 0; !told; round++) {
        CHECK(round < 5000);
        DONE(netstack_driver_poll_gone(driver, &port, &told));
        usleep(1000);
    }
    CHECK(port == 0);
    DONE(netstack_driver_free(driver));
    DONE(netstack_host_free(mine));
    DONE(netstack_batch_free(batch));
}

int main(int count, char **arguments)
{
    batches();
    traces(count > 1 ? arguments[1] : ".");
    configs();
    sockets();
    copies();
    devices();
    drivers();
    puts("verbs: ok");
    return 0;
}
