/* Two hosts and a switch, all in memory: the client asks for a page at an address that is no machine's, and the switch gives
 * the connection to the server behind it. No thread, no kernel, no privileges; time is a number that this program counts up.
 *
 * cc two_hosts.c $(pkg-config --cflags --libs netstack) -o two_hosts && ./two_hosts
 */
#include <netstack.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CLIENT 0
#define SERVER 1

/* Ends the program with words when a call fails. */
#define DO(call) must((uint32_t)(call), #call, NULL)
#define DO_OR(error, call) must((uint32_t)(call), #call, &(error))

static void must(uint32_t result, const char *call, char **error)
{
    char text[128] = "?";
    if (result == NETSTACK_RESULT_OK)
        return;
    netstack_result_message(result, text, sizeof text, NULL);
    fprintf(stderr, "%s: %s\n", call, text);
    if (error != NULL && *error != NULL) {
        fprintf(stderr, "%s\n", *error);
        netstack_string_free(*error);
    }
    exit(1);
}

static netstack_endpoint at(const char *text)
{
    netstack_endpoint endpoint;
    DO(netstack_endpoint_parse(text, &endpoint));
    return endpoint;
}

/* Two segments with a router between them, and a service at 10.96.0.80:80. */
static netstack_switch *new_switch(void)
{
    static const uint8_t router[6] = {2, 0, 0, 0, 0xff, 1};
    static const uint8_t seed[32] = {42};
    netstack_endpoint frontend = at("10.96.0.80:80"), server = at("10.1.0.2:8080");
    netstack_backend backend = {server.address, server.port, 1};
    netstack_service service;
    netstack_limits limits;
    netstack_config *config;
    netstack_switch *sw;
    char *error = NULL;

    DO(netstack_config_new(&config));
    DO(netstack_config_add_segment(config, 0, "clients", 1500));
    DO(netstack_config_set_gateway(config, 0, router));
    DO(netstack_config_add_gateway_address(config, 0, "10.0.0.1/24"));
    DO(netstack_config_add_segment(config, 1, "servers", 1500));
    DO(netstack_config_set_gateway(config, 1, router));
    DO(netstack_config_add_gateway_address(config, 1, "10.1.0.1/24"));
    DO(netstack_config_add_port(config, CLIENT, "client", 0));
    DO(netstack_config_add_port(config, SERVER, "server", 1));
    DO(netstack_config_track(config));

    DO(netstack_limits_init(&limits));
    limits.fdb_entries = limits.neighbors = limits.connections = limits.flows = limits.affinities = 64;
    limits.queue_frames = 256;
    DO(netstack_switch_new(&limits, seed, &sw));
    DO_OR(error, netstack_switch_install(sw, config, &error));
    DO(netstack_config_free(config));

    DO(netstack_service_init(&service));
    service.name = "web";
    service.frontends = &frontend;
    service.frontend_count = 1;
    service.backends = &backend;
    service.backend_count = 1;
    DO_OR(error, netstack_switch_set_service(sw, &service, &error));
    return sw;
}

static netstack_host *new_host(uint8_t number, const char *address, const char *gateway)
{
    const uint8_t seed[32] = {number};
    netstack_host_options options;
    netstack_host *host;
    char *error = NULL;
    DO(netstack_host_options_init(&options));
    options.mac[0] = 2;
    options.mac[5] = number;
    options.addresses = &address;
    options.address_count = 1;
    options.gateway_v4 = gateway;
    options.tcp_connections = 8;
    DO_OR(error, netstack_host_new(&options, seed, &host, &error));
    return host;
}

/* Carries frames until nobody has any more, and lets everybody do what is due. */
static void turn(netstack_switch *sw, netstack_host *hosts[2], netstack_batch *batch, uint64_t now)
{
    uint64_t deadline;
    uint16_t port;
    size_t count, moved;
    do {
        moved = 0;
        for (port = 0; port < 2; port++) {
            DO(netstack_host_poll_timeout(hosts[port], &deadline));
            if (deadline <= now)
                DO(netstack_host_handle_timeout(hosts[port], now));
            DO(netstack_host_poll_batch(hosts[port], batch, &count));
            DO(netstack_switch_handle_batch(sw, now, port, batch));
            moved += count;
        }
        DO(netstack_switch_poll_timeout(sw, &deadline));
        if (deadline <= now)
            DO(netstack_switch_handle_timeout(sw, now));
        while (DO(netstack_switch_poll_batch(sw, batch, &port, &count)), count > 0) {
            DO(netstack_host_handle_batch(hosts[port], now, batch));
            moved += count;
        }
    } while (moved > 0);
}

/* Answers whoever has asked. Returns whether it did. */
static int serve(netstack_host *host, uint64_t now, uint64_t listener, uint64_t *connection)
{
    static const char page[] = "HTTP/1.1 200 OK\r\nContent-Length: 6\r\nConnection: close\r\n\r\nhello\n";
    char request[256];
    size_t count;
    if (*connection == 0 && netstack_host_tcp_accept(host, listener, connection) != NETSTACK_RESULT_OK)
        return 0;
    if (netstack_host_tcp_receive(host, now, *connection, (uint8_t *)request, sizeof request, &count) != NETSTACK_RESULT_OK)
        return 0;
    DO(netstack_host_tcp_send(host, now, *connection, (const uint8_t *)page, strlen(page), &count));
    DO(netstack_host_close(host, now, *connection));
    return 1;
}

/* The whole exchange; returns 0 if it came about. `out` gets what the client read, if it is not NULL. */
int two_hosts(FILE *out)
{
    static const char request[] = "GET / HTTP/1.1\r\nHost: web\r\n\r\n";
    netstack_switch *sw = new_switch();
    netstack_host *hosts[2];
    netstack_batch *batch;
    netstack_counters counters;
    netstack_endpoint web = at("10.96.0.80:80"), listen = at("10.1.0.2:8080");
    uint64_t now = 1000000, listener, client, connection = 0;
    char page[256];
    size_t length = 0, count;
    int asked = 0, served = 0, ended = 0;

    hosts[CLIENT] = new_host(1, "10.0.0.2/24", "10.0.0.1");
    hosts[SERVER] = new_host(2, "10.1.0.2/24", "10.1.0.1");
    DO(netstack_batch_new(&batch));
    DO(netstack_host_tcp_listen(hosts[SERVER], &listen, &listener));
    DO(netstack_host_tcp_connect(hosts[CLIENT], now, &web, &client));
    for (; !ended && now < 10000000; now += 1000) {
        uint32_t flags;
        turn(sw, hosts, batch, now);
        DO(netstack_host_poll(hosts[CLIENT], client, &flags));
        if (!asked && (flags & NETSTACK_READY_FLAG_WRITABLE) != 0) {
            DO(netstack_host_tcp_send(hosts[CLIENT], now, client, (const uint8_t *)request, strlen(request), &count));
            asked = 1;
        }
        if (!served)
            served = serve(hosts[SERVER], now, listener, &connection);
        while (!ended
               && netstack_host_tcp_receive(hosts[CLIENT], now, client, (uint8_t *)page + length,
                                            sizeof page - 1 - length, &count) == NETSTACK_RESULT_OK) {
            length += count;
            ended = count == 0 || length == sizeof page - 1;
        }
    }
    page[length] = 0;
    if (out != NULL)
        fputs(page, out);
    DO(netstack_host_close(hosts[CLIENT], now, client));
    turn(sw, hosts, batch, now);

    counters.struct_size = sizeof counters;
    DO(netstack_switch_counters(sw, NETSTACK_ALL_PORTS, &counters));
    DO(netstack_switch_check(sw, NULL)); /* every frame is accounted for */
    DO(netstack_batch_free(batch));
    DO(netstack_host_free(hosts[CLIENT]));
    DO(netstack_host_free(hosts[SERVER]));
    DO(netstack_switch_free(sw));
    return ended && counters.balanced == 1 && strstr(page, "\r\n\r\nhello\n") != NULL ? 0 : 1;
}

#ifndef NETSTACK_EXAMPLE_WITHOUT_MAIN
int main(void)
{
    return two_hosts(stdout);
}
#endif
