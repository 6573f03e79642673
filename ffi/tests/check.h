/* What the C tests share: a call that does not return what it should ends the test. */
#ifndef CHECK_H
#define CHECK_H

#include <netstack.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CHECK(condition)                                                                                     \
    do {                                                                                                     \
        if (!(condition)) {                                                                                  \
            fprintf(stderr, "%s:%d: not so: %s\n", __FILE__, __LINE__, #condition);                          \
            exit(1);                                                                                         \
        }                                                                                                    \
    } while (0)

#define IS(expected, call)                                                                                   \
    do {                                                                                                     \
        uint32_t got_ = (uint32_t)(call);                                                                    \
        if (got_ != (uint32_t)NETSTACK_RESULT_##expected) {                                                  \
            char text_[128] = "?";                                                                           \
            netstack_result_message(got_, text_, sizeof text_, NULL);                                        \
            fprintf(stderr, "%s:%d: %s is %u (%s), not %s\n", __FILE__, __LINE__, #call, (unsigned)got_,     \
                    text_, #expected);                                                                       \
            exit(1);                                                                                         \
        }                                                                                                    \
    } while (0)

#define DONE(call) IS(OK, call)

/* Two foreign ports on one segment. */
static inline netstack_switch *new_bridge(void)
{
    static const char json[] =
        "{\"segments\":[{\"id\":0,\"name\":\"lan\",\"mtu\":1500}],"
        "\"ports\":[{\"id\":0,\"name\":\"left\",\"vlan\":{\"access\":0}},"
        "{\"id\":1,\"name\":\"right\",\"vlan\":{\"access\":0}}]}";
    static const uint8_t seed[32] = {7};
    netstack_limits limits;
    netstack_config *config = NULL;
    netstack_switch *sw = NULL;
    char *error = NULL;
    DONE(netstack_limits_init(&limits));
    limits.fdb_entries = 256;
    limits.connections = 256;
    limits.flows = 256;
    DONE(netstack_config_from_json(json, strlen(json), &config, &error));
    CHECK(error == NULL);
    DONE(netstack_switch_new(&limits, seed, &sw));
    DONE(netstack_switch_install(sw, config, &error));
    DONE(netstack_config_free(config));
    return sw;
}

/* A broadcast frame of `length` octets. */
static inline void broadcast(uint8_t *frame, size_t length)
{
    static const uint8_t header[14] = {255, 255, 255, 255, 255, 255, 2, 0, 0, 0, 0, 9, 0x88, 0xb5};
    memset(frame, 7, length);
    memcpy(frame, header, length < sizeof header ? length : sizeof header);
}

#endif
