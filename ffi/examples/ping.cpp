// One host pings another through a switch, in memory, with the wrapper beside this.
//
// c++ -std=c++11 ping.cpp $(pkg-config --cflags --libs netstack) -o ping && ./ping
#include "netstack.hpp"

#include <cstdio>

static netstack::Host host(uint8_t number, const char *address) {
    netstack_host_options options;
    netstack::check(netstack_host_options_init(&options));
    options.mac[0] = 2;
    options.mac[5] = number;
    options.addresses = &address;
    options.address_count = 1;
    return netstack::Host(options);
}

int main() {
    netstack::Config config(R"({
        "segments": [{"id": 0, "name": "lan", "mtu": 1500}],
        "ports": [{"id": 0, "name": "left", "vlan": {"access": 0}},
                  {"id": 1, "name": "right", "vlan": {"access": 0}}]})");
    netstack::Switch bridge;
    bridge.install(config);
    netstack::Host hosts[2] = {host(1, "fd00::1/64"), host(2, "fd00::2/64")};
    netstack::Batch batch;
    netstack_address right;
    const uint64_t now = 1000000;
    netstack::check(netstack_address_parse("fd00::2", &right));
    netstack::check(netstack_host_ping(hosts[0].get(), now, &right, 1, 1, nullptr, 0));
    for (int turn = 0; turn < 8; turn++) {
        uint16_t port = 0;
        for (uint16_t at = 0; at < 2; at++)
            while (hosts[at].poll(batch))
                bridge.handle(now, at, batch);
        while (bridge.poll(batch, port))
            hosts[port].handle(now, batch);
    }
    for (;;) {
        netstack_host_event event;
        bool told = false;
        netstack::check(netstack_host_poll_event(hosts[0].get(), &event, &told));
        if (!told)
            return 1;
        if (event.kind == NETSTACK_HOST_EVENT_KIND_ECHO_REPLY) {
            char text[64];
            netstack::check(netstack_address_format(&event.address, text, sizeof text, nullptr));
            std::printf("%s answered\n", text);
            break;
        }
    }
    try {
        netstack::Config wrong(R"({"ports": 7})");
    } catch (const netstack::Error &error) {
        std::printf("as it should: %s\n", error.what());
        return error.code() == NETSTACK_RESULT_INVALID_JSON ? 0 : 1;
    }
    return 1;
}
