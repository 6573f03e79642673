// The header from C++: it compiles, and what it declares links.
#include <netstack.h>

#include <cstdio>

int main() {
    netstack_batch *batch = nullptr;
    if (netstack_batch_new(&batch) != NETSTACK_RESULT_OK)
        return 1;
    if (netstack_batch_free(batch) != NETSTACK_RESULT_OK)
        return 1;
    std::puts(netstack_version());
    return 0;
}
