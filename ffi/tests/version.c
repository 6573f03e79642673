#include <netstack.h>
#include <stdio.h>
#include <string.h>

int main(void) {
    const char *version = netstack_version();
    if (version == NULL || strcmp(version, EXPECTED_VERSION) != 0) {
        fprintf(stderr, "expected %s, got %s\n", EXPECTED_VERSION, version == NULL ? "NULL" : version);
        return 1;
    }
    puts(version);
    return 0;
}
