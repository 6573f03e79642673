#define _DEFAULT_SOURCE
/* What is done wrong gets the code that stands for it, and harms nobody. */
#include "check.h"

#include <unistd.h>

/* In no header: exported for tests alone. */
netstack_result netstack_test_panic(netstack_switch *sw);

static void nulls(void)
{
    netstack_switch *sw = new_bridge();
    netstack_batch *batch = NULL;
    size_t count = 0;
    uint64_t deadline = 0;
    DONE(netstack_batch_new(&batch));

    IS(NULL_POINTER, netstack_switch_new(NULL, NULL, NULL));
    IS(NULL_POINTER, netstack_config_new(NULL));
    IS(NULL_POINTER, netstack_config_from_json(NULL, 1, NULL, NULL));
    IS(NULL_POINTER, netstack_batch_new(NULL));
    IS(NULL_POINTER, netstack_host_new(NULL, NULL, NULL, NULL));
    IS(NULL_POINTER, netstack_switch_poll_timeout(NULL, &deadline));
    IS(NULL_POINTER, netstack_switch_poll_timeout(sw, NULL));
    IS(NULL_POINTER, netstack_switch_handle_timeout(NULL, 0));
    IS(NULL_POINTER, netstack_switch_handle_batch(sw, 0, 0, NULL));
    IS(NULL_POINTER, netstack_switch_handle_batch(NULL, 0, 0, batch));
    IS(NULL_POINTER, netstack_switch_handle_frames(sw, 0, 0, NULL, 1, &count));
    IS(NULL_POINTER, netstack_switch_install(sw, NULL, NULL));
    IS(NULL_POINTER, netstack_switch_drain(sw, NULL, NULL, NULL));
    IS(NULL_POINTER, netstack_switch_counters(sw, NETSTACK_ALL_PORTS, NULL));
    IS(NULL_POINTER, netstack_batch_reserve(batch, 1, 60, NULL, &count));
    IS(NULL_POINTER, netstack_batch_push(batch, NULL, 60));
    IS(NULL_POINTER, netstack_driver_start(NULL, NULL));
    IS(NULL_POINTER, netstack_address_parse(NULL, NULL));

    DONE(netstack_switch_free(NULL));
    DONE(netstack_config_free(NULL));
    DONE(netstack_batch_free(NULL));
    DONE(netstack_host_free(NULL));
    DONE(netstack_device_free(NULL));
    DONE(netstack_driver_free(NULL));
    DONE(netstack_nat_free(NULL));
    DONE(netstack_maglev_free(NULL));
    DONE(netstack_string_free(NULL));

    /* Nothing of nothing is nothing. */
    DONE(netstack_switch_handle_frames(sw, 0, 0, NULL, 0, &count));
    CHECK(count == 0);
    DONE(netstack_batch_free(batch));
    DONE(netstack_switch_free(sw));
}

static void handles(void)
{
    netstack_switch *sw = new_bridge();
    netstack_config *config = NULL;
    uint64_t deadline = 0;
    uint64_t none[8] = {0};
    DONE(netstack_config_new(&config));

    IS(WRONG_HANDLE, netstack_switch_poll_timeout((netstack_switch *)(void *)config, &deadline));
    IS(WRONG_HANDLE, netstack_switch_free((netstack_switch *)(void *)config));
    IS(WRONG_HANDLE, netstack_config_free((netstack_config *)(void *)sw));
    IS(WRONG_HANDLE, netstack_switch_install(sw, (netstack_config *)(void *)sw, NULL));
    IS(INVALID_HANDLE, netstack_switch_poll_timeout((netstack_switch *)(void *)none, &deadline));
    IS(INVALID_HANDLE, netstack_switch_poll_timeout((netstack_switch *)(void *)((char *)sw + 1), &deadline));

    DONE(netstack_switch_free(sw));
    IS(INVALID_HANDLE, netstack_switch_free(sw));
    IS(INVALID_HANDLE, netstack_switch_poll_timeout(sw, &deadline));
    IS(INVALID_HANDLE, netstack_switch_install(sw, config, NULL));
    DONE(netstack_config_free(config));
    IS(INVALID_HANDLE, netstack_config_free(config));

    /* Others come and go; the one that was freed stays known as such. */
    for (int round = 0; round < 1000; round++) {
        netstack_config *other = NULL;
        DONE(netstack_config_new(&other));
        CHECK((void *)other != (void *)sw);
        DONE(netstack_config_free(other));
    }
    IS(INVALID_HANDLE, netstack_switch_free(sw));
}

static void taken(void)
{
    netstack_switch *sw = new_bridge();
    netstack_device *left = NULL, *right = NULL;
    netstack_driver *driver = NULL;
    uint64_t deadline = 0;
    DONE(netstack_device_memory_pair(4, 1500, NETSTACK_DEVICE_FLAG_NONE, &left, &right));
    DONE(netstack_driver_start(sw, &driver));
    IS(INVALID_HANDLE, netstack_switch_poll_timeout(sw, &deadline));
    IS(INVALID_HANDLE, netstack_switch_free(sw));
    DONE(netstack_driver_attach(driver, 0, left));
    IS(INVALID_HANDLE, netstack_device_free(left));
    IS(NOT_FOUND, netstack_driver_detach(driver, 5));
    DONE(netstack_driver_detach(driver, 0));
    DONE(netstack_driver_free(driver));
    IS(INVALID_HANDLE, netstack_driver_free(driver));
    DONE(netstack_device_free(right));
}

static void buffers(void)
{
    netstack_switch *sw = new_bridge();
    uint8_t frame[200], room[200];
    netstack_frame in = {frame, sizeof frame};
    netstack_buffer out = {room, 100, 0};
    size_t count = 9;
    uint16_t port = 9;
    char text[4];
    broadcast(frame, sizeof frame);

    DONE(netstack_switch_handle_frames(sw, 0, 0, &in, 1, &count));
    CHECK(count == 1);
    IS(BUFFER_TOO_SMALL, netstack_switch_poll_transmit(sw, &out, 1, &port, &count));
    CHECK(count == 0 && out.len == 200 && port == 1);
    /* It stays, and fits the next time. */
    out.capacity = sizeof room;
    DONE(netstack_switch_poll_transmit(sw, &out, 1, &port, &count));
    CHECK(count == 1 && out.len == 200 && port == 1 && memcmp(room, frame, sizeof frame) == 0);
    DONE(netstack_switch_poll_transmit(sw, &out, 1, &port, &count));
    CHECK(count == 0);

    in.data = calloc(70000, 1);
    in.len = 70000;
    CHECK(in.data != NULL);
    IS(TOO_LONG, netstack_switch_handle_frames(sw, 0, 0, &in, 1, &count));
    CHECK(count == 0);
    free((void *)in.data);
    IS(BUFFER_TOO_SMALL, netstack_result_message(NETSTACK_RESULT_PANIC, text, sizeof text, &count));
    CHECK(count > sizeof text);
    IS(NOT_FOUND, netstack_result_message(4711, text, sizeof text, NULL));
    DONE(netstack_switch_free(sw));
}

static void sizes(void)
{
    struct {
        netstack_limits limits;
        uint8_t more[16];
    } later;
    netstack_switch *sw = NULL;
    memset(&later, 0, sizeof later);
    later.limits.fdb_entries = 64;
    later.limits.connections = 64;
    later.limits.flows = 64;

    later.limits.struct_size = 1;
    IS(INVALID_ARGUMENT, netstack_switch_new(&later.limits, NULL, &sw));
    later.limits.struct_size = (size_t)1 << 40;
    IS(INVALID_ARGUMENT, netstack_switch_new(&later.limits, NULL, &sw));
    later.limits.struct_size = sizeof later;
    DONE(netstack_switch_new(&later.limits, NULL, &sw));
    DONE(netstack_switch_free(sw));
    later.more[sizeof later.more - 1] = 1;
    IS(INVALID_ARGUMENT, netstack_switch_new(&later.limits, NULL, &sw));
    later.more[sizeof later.more - 1] = 0;
    later.limits.connections = UINT32_MAX;
    IS(INVALID_ARGUMENT, netstack_switch_new(&later.limits, NULL, &sw));
    later.limits.connections = 64;
    /* An older header's. */
    later.limits.struct_size = offsetof(netstack_limits, neighbors);
    DONE(netstack_switch_new(&later.limits, NULL, &sw));
    DONE(netstack_switch_free(sw));
}

struct seen {
    netstack_switch *sw;
    unsigned calls;
};

static void again(void *userdata, uint16_t port, const uint8_t *data, size_t len)
{
    struct seen *seen = userdata;
    uint64_t deadline = 0;
    size_t count = 0;
    CHECK(port == 1 && len == 60 && data[0] == 255);
    IS(BUSY, netstack_switch_poll_timeout(seen->sw, &deadline));
    IS(BUSY, netstack_switch_handle_timeout(seen->sw, 0));
    IS(BUSY, netstack_switch_drain(seen->sw, again, userdata, &count));
    IS(BUSY, netstack_switch_free(seen->sw));
    seen->calls++;
}

static void reentry(void)
{
    netstack_switch *sw = new_bridge();
    struct seen seen = {sw, 0};
    uint8_t frame[60];
    netstack_frame in[3] = {{frame, sizeof frame}, {frame, sizeof frame}, {frame, sizeof frame}};
    size_t count = 0;
    broadcast(frame, sizeof frame);
    DONE(netstack_switch_handle_frames(sw, 0, 0, in, 3, &count));
    DONE(netstack_switch_drain(sw, again, &seen, &count));
    CHECK(count == 3 && seen.calls == 3);
    DONE(netstack_switch_check(sw, NULL));
    DONE(netstack_switch_free(sw));
}

struct lent {
    netstack_driver *driver;
    netstack_switch *sw;
};

static void on_driver(void *userdata, netstack_switch *sw, uint64_t now_us)
{
    struct lent *lent = userdata;
    netstack_driver *driver = NULL;
    (void)now_us;
    lent->sw = sw;
    /* Lent is not given. */
    IS(BUSY, netstack_switch_free(sw));
    IS(BUSY, netstack_driver_start(sw, &driver));
    IS(BUSY, netstack_driver_free(lent->driver));
    IS(BUSY, netstack_driver_with_switch(lent->driver, on_driver, userdata));
    DONE(netstack_switch_check(sw, NULL));
}

static void on_host(void *userdata, netstack_host *host, uint64_t now_us)
{
    (void)userdata, (void)host, (void)now_us;
    CHECK(!"there is no host to be lent");
}

static void nothing(void *userdata, netstack_host *host, uint64_t now_us)
{
    (void)userdata, (void)host, (void)now_us;
}

static void lending(void)
{
    struct lent lent = {NULL, NULL};
    uint64_t deadline = 0;
    DONE(netstack_driver_start(new_bridge(), &lent.driver));
    DONE(netstack_driver_with_switch(lent.driver, on_driver, &lent));
    IS(INVALID_HANDLE, netstack_switch_poll_timeout(lent.sw, &deadline));
    IS(NULL_POINTER, netstack_driver_with_switch(lent.driver, NULL, NULL));
    IS(NOT_FOUND, netstack_driver_with_host(lent.driver, 3, on_host, NULL));
    DONE(netstack_driver_free(lent.driver));
}

static void panics(void)
{
    netstack_switch *sw = new_bridge(), *other = new_bridge();
    netstack_driver *driver = NULL;
    uint64_t deadline = 0;
    IS(PANIC, netstack_test_panic(sw));
    IS(PANIC, netstack_switch_poll_timeout(sw, &deadline));
    IS(PANIC, netstack_switch_handle_timeout(sw, 0));
    IS(PANIC, netstack_driver_start(sw, &driver));
    DONE(netstack_switch_poll_timeout(other, &deadline));
    DONE(netstack_switch_free(sw));
    IS(INVALID_HANDLE, netstack_switch_free(sw));
    DONE(netstack_switch_free(other));
}

static void panic_there(void *userdata, netstack_switch *sw, uint64_t now_us)
{
    (void)userdata, (void)now_us;
    IS(PANIC, netstack_test_panic(sw));
    IS(PANIC, netstack_switch_handle_timeout(sw, 0));
}

/* A switch that is half changed is not turned any more. */
static void panics_on_the_driver(void)
{
    netstack_driver *driver = NULL;
    DONE(netstack_driver_start(new_bridge(), &driver));
    IS(PANIC, netstack_driver_with_switch(driver, panic_there, NULL));
    IS(PANIC, netstack_driver_with_switch(driver, panic_there, NULL));
    IS(PANIC, netstack_driver_detach(driver, 0));
    DONE(netstack_driver_free(driver));
}

static void free_there(void *userdata, uint64_t socket, uint32_t ready)
{
    netstack_driver **driver = userdata;
    (void)socket, (void)ready;
    IS(BUSY, netstack_driver_free(*driver));
    IS(BUSY, netstack_driver_detach(*driver, 0));
    *driver = NULL;
}

static void connect_there(void *userdata, netstack_host *host, uint64_t now_us)
{
    netstack_endpoint nobody;
    uint64_t socket = 0;
    DONE(netstack_endpoint_parse("10.0.0.9:80", &nobody));
    DONE(netstack_host_on_ready(host, free_there, userdata));
    DONE(netstack_host_tcp_connect(host, now_us, &nobody, &socket));
}

/* A callback on the driver's thread, while nobody has called the driver. */
static void own_thread(void)
{
    netstack_host_options options;
    netstack_host *host = NULL;
    netstack_driver *driver = NULL, *told = NULL;
    const char *address = "10.0.0.1/24";
    uint32_t id = 9;
    DONE(netstack_host_options_init(&options));
    options.mac[0] = 2;
    options.addresses = &address;
    options.address_count = 1;
    DONE(netstack_host_new(&options, NULL, &host, NULL));
    DONE(netstack_driver_start(new_bridge(), &driver));
    DONE(netstack_driver_add_host(driver, 0, host, &id));
    told = driver;
    DONE(netstack_driver_with_host(driver, id, connect_there, &told));
    /* The neighbour does not answer three questions, a second apart. */
    for (unsigned round = 0;; round++) {
        CHECK(round < 10000);
        usleep(1000);
        DONE(netstack_driver_with_host(driver, id, nothing, NULL));
        if (told == NULL)
            break;
    }
    DONE(netstack_driver_free(driver));
}

static void texts(void)
{
    static const char json[] = "{\"ports\":[{\"id\":0,\"nam\":\"left\"}]}";
    netstack_config *config = NULL;
    netstack_switch *sw = new_bridge();
    char *error = NULL;
    IS(INVALID_JSON, netstack_config_from_json(json, strlen(json), &config, &error));
    CHECK(config == NULL && error != NULL && strstr(error, "unknown field `nam`") != NULL);
    DONE(netstack_string_free(error));
    IS(INVALID_JSON, netstack_config_from_json(json, strlen(json), &config, NULL));

    DONE(netstack_config_new(&config));
    IS(NOT_UTF8, netstack_config_add_segment(config, 0, "\xff\xfe", 1500));
    IS(INVALID_ARGUMENT, netstack_config_add_gateway_address(config, 0, "10.0.0.1/99"));
    IS(NOT_FOUND, netstack_config_add_gateway_address(config, 0, "10.0.0.1/24"));
    DONE(netstack_config_add_port(config, 0, "left", 3));
    IS(ALREADY_EXISTS, netstack_config_add_port(config, 0, "again", 3));
    IS(INVALID_CONFIG, netstack_config_check(config, &error));
    CHECK(error != NULL && strstr(error, "3") != NULL);
    DONE(netstack_string_free(error));
    error = NULL;
    IS(INVALID_CONFIG, netstack_switch_install(sw, config, &error));
    CHECK(error != NULL);
    DONE(netstack_string_free(error));
    DONE(netstack_config_free(config));
    DONE(netstack_switch_free(sw));
}

int main(void)
{
    nulls();
    handles();
    taken();
    buffers();
    sizes();
    reentry();
    lending();
    panics();
    panics_on_the_driver();
    own_thread();
    texts();
    puts("misuse: ok");
    return 0;
}
