/* A switch between two TAP interfaces, on a thread of the library's, until standard input ends.
 *
 * cc tap_switch.c $(pkg-config --cflags --libs netstack) -o tap_switch && sudo ./tap_switch left right
 */
#include <netstack.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

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

/* On the driver's thread, between two batches. */
static void report(void *userdata, netstack_switch *sw, uint64_t now_us)
{
    netstack_counters counters;
    counters.struct_size = sizeof counters;
    DO(netstack_switch_counters(sw, NETSTACK_ALL_PORTS, &counters));
    fprintf(userdata, "after %llu s: %llu frames in, %llu out, %llu dropped\n",
            (unsigned long long)(now_us / 1000000), (unsigned long long)counters.rx_frames,
            (unsigned long long)counters.tx_frames, (unsigned long long)counters.dropped);
}

int main(int count, char **arguments)
{
    netstack_config *config;
    netstack_switch *sw;
    netstack_driver *driver;
    netstack_device *taps[2];
    char *error = NULL;
    int at;
    if (count != 3) {
        fprintf(stderr, "usage: %s TAP TAP\n", arguments[0]);
        return 2;
    }
    DO(netstack_config_new(&config));
    DO(netstack_config_add_segment(config, 0, "lan", 1500));
    for (at = 0; at < 2; at++) {
        uint32_t flags, mode;
        DO_OR(error, netstack_device_tap_open(arguments[1 + at], NETSTACK_TAP_MODE_AUTO, &taps[at], &error));
        DO(netstack_config_add_port(config, (uint16_t)at, arguments[1 + at], 0));
        /* What the kernel takes over from us. */
        DO(netstack_device_offload(taps[at], &flags));
        DO(netstack_config_set_offload(config, (uint16_t)at, flags));
        DO(netstack_device_tap(taps[at], &mode, NULL, 0));
        printf("%s: %s\n", arguments[1 + at], mode == NETSTACK_TAP_MODE_OFFLOAD ? "offload" : "plain");
    }
    DO(netstack_switch_new(NULL, NULL, &sw));
    DO_OR(error, netstack_switch_install(sw, config, &error));
    DO(netstack_config_free(config));
    DO(netstack_driver_start(sw, &driver));
    for (at = 0; at < 2; at++)
        DO(netstack_driver_attach(driver, (uint16_t)at, taps[at]));
    puts("ready");
    fflush(stdout);
    while (getchar() != EOF)
        continue;
    DO(netstack_driver_with_switch(driver, report, stdout));
    DO(netstack_driver_free(driver));
    return 0;
}
