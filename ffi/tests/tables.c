/* Connections and services of a switch, and the tables that stand alone: a translator, a balancer. */
#include "check.h"

#define SECOND ((uint64_t)1000000)

/* The ones' complement sum of an IPv4 header, as it stands in it. */
static void finish(uint8_t *header)
{
    uint32_t sum = 0;
    header[10] = header[11] = 0;
    for (int at = 0; at < 20; at += 2)
        sum += (uint32_t)header[at] << 8 | header[at + 1];
    sum = (sum & 0xffff) + (sum >> 16);
    sum = ~((sum & 0xffff) + (sum >> 16));
    header[10] = (uint8_t)(sum >> 8);
    header[11] = (uint8_t)sum;
}

/* A datagram of one octet, without a UDP checksum. */
static void datagram(uint8_t packet[29], const char *from, const char *to)
{
    static const uint8_t head[] = {0x45, 0, 0, 29, 0, 0, 0x40, 0, 64, 17};
    netstack_endpoint source, destination;
    DONE(netstack_endpoint_parse(from, &source));
    DONE(netstack_endpoint_parse(to, &destination));
    memset(packet, 0, 29);
    memcpy(packet, head, sizeof head);
    memcpy(packet + 12, source.address.octets, 4);
    memcpy(packet + 16, destination.address.octets, 4);
    packet[20] = (uint8_t)(source.port >> 8);
    packet[21] = (uint8_t)source.port;
    packet[22] = (uint8_t)(destination.port >> 8);
    packet[23] = (uint8_t)destination.port;
    packet[25] = 9;
    finish(packet);
}

static void translator(void)
{
    static const char json[] =
        "{\"pools\":[{\"name\":\"outside\",\"addresses\":[\"192.0.2.1\"]}],"
        "\"source\":[{\"matches\":{\"sources\":[\"10.0.0.0/8\"],\"egress\":2},\"action\":{\"pool\":\"outside\"}}]}";
    static const char wrong[] = "{\"source\":[{\"matches\":{},\"action\":{\"pool\":\"none\"}}]}";
    static const uint8_t seed[32] = {3};
    netstack_nat *nat = NULL;
    netstack_connection list[8];
    uint8_t packet[29], answer[29];
    uint32_t verdict = 9;
    uint64_t cursor = 0, deadline = 0;
    size_t count = 0;
    char *error = NULL;
    char to[64];
    IS(INVALID_CONFIG, netstack_nat_new(wrong, strlen(wrong), 64, seed, &nat, &error));
    CHECK(error != NULL && strstr(error, "there is no pool") != NULL);
    DONE(netstack_string_free(error));
    IS(INVALID_ARGUMENT, netstack_nat_new(json, strlen(json), 0, seed, &nat, NULL));
    DONE(netstack_nat_new(json, strlen(json), 64, seed, &nat, &error));

    datagram(packet, "10.0.0.7:40000", "203.0.113.9:53");
    DONE(netstack_nat_translate(nat, SECOND, 1, 2, packet, sizeof packet, &verdict));
    CHECK(verdict == NETSTACK_NAT_VERDICT_TRANSLATED && memcmp(packet + 12, "\xc0\0\2\1", 4) == 0);
    snprintf(to, sizeof to, "192.0.2.1:%u", packet[20] << 8 | packet[21]);
    datagram(answer, "203.0.113.9:53", to);
    DONE(netstack_nat_translate(nat, SECOND, 2, NETSTACK_NO_INTERFACE, answer, sizeof answer, &verdict));
    CHECK(verdict == NETSTACK_NAT_VERDICT_TRANSLATED && memcmp(answer + 16, "\x0a\0\0\7", 4) == 0);
    CHECK(answer[22] == 0x9c && answer[23] == 0x40);
    datagram(packet, "10.0.0.7:40000", "10.0.0.8:53");
    DONE(netstack_nat_translate(nat, SECOND, 1, 1, packet, sizeof packet, &verdict));
    CHECK(verdict == NETSTACK_NAT_VERDICT_PASS);
    DONE(netstack_nat_translate(nat, SECOND, 1, 1, packet, 12, &verdict));
    CHECK(verdict == NETSTACK_NAT_VERDICT_MALFORMED);
    DONE(netstack_nat_translate(nat, SECOND, 1, 1, NULL, 0, &verdict));
    CHECK(verdict == NETSTACK_NAT_VERDICT_MALFORMED);

    DONE(netstack_nat_count(nat, &count));
    CHECK(count == 2);
    IS(INVALID_ARGUMENT, netstack_nat_connections(nat, SECOND, &cursor, list, 1, &count));
    size_t seen = 0;
    do {
        DONE(netstack_nat_connections(nat, SECOND, &cursor, list, 2, &count));
        for (size_t at = 0; at < count; at++)
            seen += list[at].protocol == 17 && list[at].remaining_us > 0;
    } while (cursor != 0);
    CHECK(seen == 2);
    DONE(netstack_nat_poll_timeout(nat, SECOND, &deadline));
    CHECK(deadline > SECOND && deadline != NETSTACK_NEVER);
    for (uint64_t now = 1000 * SECOND; now < 1010 * SECOND; now += SECOND)
        DONE(netstack_nat_handle_timeout(nat, now));
    DONE(netstack_nat_count(nat, &count));
    CHECK(count == 0);
    DONE(netstack_nat_free(nat));
}

static void balancer(void)
{
    static const uint8_t key[16] = "of the cluster's";
    netstack_backend backends[4], got, shares[4];
    netstack_endpoint client, service;
    netstack_maglev *table = NULL, *less = NULL;
    uint64_t parts[4], hash = 0;
    size_t count = 0, own = 0, moved = 0;
    char *error = NULL;
    memset(backends, 0, sizeof backends);
    for (unsigned at = 0; at < 4; at++) {
        char text[32];
        snprintf(text, sizeof text, "10.244.%u.2", at + 1);
        DONE(netstack_address_parse(text, &backends[at].address));
        backends[at].port = 8080;
        backends[at].weight = 1;
    }
    DONE(netstack_maglev_new(backends, 4, NETSTACK_POLICY_MAGLEV, 0, key, &table, &error));
    DONE(netstack_maglev_new(backends, 3, NETSTACK_POLICY_MAGLEV, 0, key, &less, &error));
    DONE(netstack_maglev_shares(table, shares, parts, 4, &count));
    CHECK(count == 4 && parts[0] > 100 && parts[1] > 100 && shares[3].address.octets[1] == 244);
    DONE(netstack_maglev_shares(table, NULL, NULL, 0, &count));
    DONE(netstack_endpoint_parse("10.244.9.9:0", &client));
    DONE(netstack_endpoint_parse("10.96.0.1:80", &service));
    for (unsigned port = 20000; port < 30000; port++) {
        netstack_backend has;
        client.port = (uint16_t)port;
        DONE(netstack_maglev_hash(table, &client, &service, 6, &hash));
        DONE(netstack_maglev_select(table, hash, 0, &got));
        DONE(netstack_maglev_select(less, hash, 0, &has));
        own += got.address.octets[2] == 4;
        moved += got.address.octets[2] != 4 && got.address.octets[2] != has.address.octets[2];
    }
    /* As the Rust example has it. */
    CHECK(own > 2250 && own < 2750 && moved < 300);
    DONE(netstack_maglev_free(table));
    DONE(netstack_maglev_free(less));

    backends[1] = backends[0];
    IS(INVALID_BACKENDS, netstack_maglev_new(backends, 2, 0, 0, key, &table, &error));
    CHECK(error != NULL && strstr(error, "given twice") != NULL);
    DONE(netstack_string_free(error));
    IS(INVALID_ARGUMENT, netstack_maglev_new(backends, 1, 17, 0, key, &table, NULL));
    backends[0].address.family = 5;
    IS(INVALID_ARGUMENT, netstack_maglev_new(backends, 1, 0, 0, key, &table, NULL));
    DONE(netstack_maglev_new(NULL, 0, 0, 0, key, &table, NULL));
    IS(NOT_FOUND, netstack_maglev_select(table, 1, 0, &got));
    DONE(netstack_maglev_free(table));
}

/* Two segments, a managed station on each, and services. */
static netstack_switch *new_router(void)
{
    static const char json[] =
        "{\"segments\":["
        "{\"id\":0,\"name\":\"a\",\"mtu\":1500,\"gateway\":{\"mac\":\"02:00:00:00:ff:01\",\"addresses\":[\"10.0.0.1/24\"]}},"
        "{\"id\":1,\"name\":\"b\",\"mtu\":1500,\"gateway\":{\"mac\":\"02:00:00:00:ff:01\",\"addresses\":[\"10.1.0.1/24\"]}}],"
        "\"ports\":["
        "{\"id\":0,\"name\":\"client\",\"vlan\":{\"access\":0},"
        "\"station\":{\"managed\":{\"mac\":\"02:00:00:00:00:0a\",\"addresses\":[\"10.0.0.10\"]}}},"
        "{\"id\":1,\"name\":\"server\",\"vlan\":{\"access\":1},"
        "\"station\":{\"managed\":{\"mac\":\"02:00:00:00:00:0b\",\"addresses\":[\"10.1.0.10\",\"10.1.0.11\"]}}}],"
        "\"nat\":{}}";
    netstack_limits limits;
    netstack_config *config = NULL;
    netstack_switch *sw = NULL;
    char *error = NULL;
    DONE(netstack_limits_init(&limits));
    limits.connections = limits.flows = limits.fdb_entries = limits.affinities = 128;
    DONE(netstack_config_from_json(json, strlen(json), &config, &error));
    DONE(netstack_switch_new(&limits, NULL, &sw));
    DONE(netstack_switch_install(sw, config, &error));
    CHECK(error == NULL);
    DONE(netstack_config_free(config));
    return sw;
}

/* Sends a datagram from the client; says which address of the server it comes out for, 0 for none. */
static uint8_t ask(netstack_switch *sw, uint64_t now, uint16_t from, const char *to)
{
    static const uint8_t link[14] = {2, 0, 0, 0, 0xff, 1, 2, 0, 0, 0, 0, 0x0a, 8, 0};
    uint8_t frame[43], room[200];
    netstack_frame in = {frame, sizeof frame};
    netstack_buffer out = {room, sizeof room, 0};
    size_t count = 0;
    uint16_t port = 9;
    char source[32];
    snprintf(source, sizeof source, "10.0.0.10:%u", from);
    memcpy(frame, link, sizeof link);
    datagram(frame + 14, source, to);
    DONE(netstack_switch_handle_frames(sw, now, 0, &in, 1, &count));
    DONE(netstack_switch_poll_transmit(sw, &out, 1, &port, &count));
    return count == 1 && port == 1 ? room[14 + 19] : 0;
}

static void services(void)
{
    netstack_switch *sw = new_router();
    netstack_service service;
    netstack_endpoint frontends[2];
    netstack_backend backends[2];
    netstack_connection list[16];
    netstack_counters counters;
    uint64_t cursor = 0, now = SECOND;
    size_t count = 0;
    char *error = NULL;
    memset(backends, 0, sizeof backends);
    DONE(netstack_endpoint_parse("10.96.0.1:53", &frontends[0]));
    DONE(netstack_endpoint_parse("10.96.0.2:53", &frontends[1]));
    for (unsigned at = 0; at < 2; at++) {
        DONE(netstack_address_parse(at == 0 ? "10.1.0.10" : "10.1.0.11", &backends[at].address));
        backends[at].port = 5353;
        backends[at].weight = 1;
    }
    DONE(netstack_service_init(&service));
    service.protocol = 17;
    service.frontends = frontends;
    service.frontend_count = 2;
    service.backends = backends;
    service.backend_count = 1;
    IS(NULL_POINTER, netstack_switch_set_service(sw, &service, &error));
    service.name = "dns";
    service.protocol = 300;
    IS(INVALID_ARGUMENT, netstack_switch_set_service(sw, &service, &error));
    service.protocol = 17;
    DONE(netstack_switch_set_service(sw, &service, &error));
    service.name = "other";
    IS(ALREADY_EXISTS, netstack_switch_set_service(sw, &service, &error));

    CHECK(ask(sw, now, 4000, "10.96.0.1:53") == 10);
    CHECK(ask(sw, now, 4001, "10.96.0.2:53") == 10);
    /* Another backend, for connections to come and for those whose backend is gone. */
    DONE(netstack_switch_set_backends(sw, "dns", &backends[1], 1));
    IS(NOT_FOUND, netstack_switch_set_backends(sw, "nds", &backends[1], 1));
    CHECK(ask(sw, now, 4002, "10.96.0.1:53") == 11);
    CHECK(ask(sw, now, 4000, "10.96.0.1:53") == 11);

    DONE(netstack_switch_connection_count(sw, &count));
    CHECK(count == 3);
    DONE(netstack_switch_connections(sw, now, &cursor, list, 16, &count));
    CHECK(count == 3 && cursor == 0 && list[0].protocol == 17 && list[0].source.port >= 4000);
    CHECK(list[0].destination.port == 53 && list[0].reply_source.port == 5353);
    counters.struct_size = sizeof counters;
    DONE(netstack_switch_counters(sw, NETSTACK_ALL_PORTS, &counters));
    CHECK(counters.balanced == 4);

    DONE(netstack_switch_remove_service(sw, "dns"));
    IS(NOT_FOUND, netstack_switch_remove_service(sw, "dns"));
    {
        netstack_config *config = NULL;
        char *json = NULL;
        static const char wrong[] = "{\"name\":\"x\"}";
        IS(INVALID_JSON, netstack_switch_set_service_json(sw, wrong, strlen(wrong), &error));
        DONE(netstack_string_free(error));
        DONE(netstack_switch_set_service(sw, &service, NULL));
        DONE(netstack_switch_config(sw, &config));
        DONE(netstack_config_to_json(config, &json));
        CHECK(strstr(json, "\"name\":\"other\"") != NULL);
        DONE(netstack_string_free(json));
        DONE(netstack_config_free(config));
    }
    DONE(netstack_switch_check(sw, NULL));
    DONE(netstack_switch_free(sw));

    /* Without tracking there are no services. */
    sw = new_bridge();
    IS(INVALID_CONFIG, netstack_switch_set_service(sw, &service, &error));
    CHECK(error != NULL && strstr(error, "need connections") != NULL);
    DONE(netstack_string_free(error));
    DONE(netstack_switch_free(sw));
}

int main(void)
{
    translator();
    balancer();
    services();
    puts("tables: ok");
    return 0;
}
