/* The header, the library and the crate are of one version. */
#include <netstack.h>
#include <stdio.h>
#include <string.h>

int main(void)
{
    const char *version = netstack_version();
    char packed[32];
    snprintf(packed, sizeof packed, "%d.%d.%d", NETSTACK_VERSION_MAJOR, NETSTACK_VERSION_MINOR,
             NETSTACK_VERSION_PATCH);
    if (version == NULL || strcmp(version, EXPECTED_VERSION) != 0 || strcmp(NETSTACK_VERSION, version) != 0
        || strncmp(packed, version, strlen(packed)) != 0
        || NETSTACK_VERSION_NUMBER
               != NETSTACK_VERSION_MAJOR * 1000000 + NETSTACK_VERSION_MINOR * 1000 + NETSTACK_VERSION_PATCH) {
        fprintf(stderr, "expected %s, the header says %s and %s, the library %s\n", EXPECTED_VERSION,
                NETSTACK_VERSION, packed, version == NULL ? "NULL" : version);
        return 1;
    }
    puts(version);
    return 0;
}
