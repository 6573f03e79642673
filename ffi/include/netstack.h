/* The C ABI of the vswitch network stack. No ABI promise before 1.0. */
#ifndef NETSTACK_H
#define NETSTACK_H

#ifdef __cplusplus
extern "C" {
#endif

/* The version of the linked library, such as "0.1.0": NUL-terminated, static, never to be freed. */
const char *netstack_version(void);

#ifdef __cplusplus
}
#endif

#endif
