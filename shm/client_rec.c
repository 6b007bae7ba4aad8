#include "shm/client_rec.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>

#include "shm/atomic.h"

enum { CLIENT_READ_ATTEMPTS = 64 };

const char *
client_state_name(enum client_state state)
{
    switch (state) {
    case CLIENT_FREE: return "free";
    case CLIENT_PASSED: return "passed";
    case CLIENT_TAKEN: return "taken";
    case CLIENT_OPEN: return "open";
    case CLIENT_LEFT: return "left";
    case CLIENT_RETURNED: return "returned";
    }
    return "unknown";
}

void
client_rec_change_begin(struct client_shm *record)
{
    atomic_store_relaxed(&record->version, record->version + 1); /* V1, partner V4 */
    atomic_fence_release();
}

void
client_rec_change_end(struct client_shm *record)
{
    atomic_store_release(&record->version, record->version + 1); /* V2, partner V3 */
}

void
client_rec_repair(struct client_shm *record)
{
    if (record->version & 1)
        client_rec_change_end(record);
}

int
client_rec_read(const struct client_shm *record, struct client_shm *copy)
{
    for (int i = 0; i < CLIENT_READ_ATTEMPTS; i++) {
        uint32_t version = atomic_load_acquire(&record->version); /* V3, partner V2 */
        *copy = *(const volatile struct client_shm *)record;
        atomic_fence_acquire();
        if (!(version & 1) && atomic_load_relaxed(&record->version) == version) /* V4 */
            return 0;
        atomic_pause();
    }
    return -EAGAIN;
}

void
client_rec_set_addr(struct client_shm *record, const struct sockaddr *addr, int32_t pid)
{
    const struct sockaddr_in *in4 = (const struct sockaddr_in *)addr;
    const struct sockaddr_in6 *in6 = (const struct sockaddr_in6 *)addr;

    memset(record->addr, 0, sizeof(record->addr));
    record->family = (uint8_t)addr->sa_family;
    record->port = 0;
    if (addr->sa_family == AF_INET) {
        memcpy(record->addr, &in4->sin_addr, sizeof(in4->sin_addr));
        record->port = ntohs(in4->sin_port);
    } else if (addr->sa_family == AF_INET6 && IN6_IS_ADDR_V4MAPPED(&in6->sin6_addr)) {
        record->family = AF_INET;
        memcpy(record->addr, in6->sin6_addr.s6_addr + 12, 4);
        record->port = ntohs(in6->sin6_port);
    } else if (addr->sa_family == AF_INET6) {
        memcpy(record->addr, &in6->sin6_addr, sizeof(in6->sin6_addr));
        record->port = ntohs(in6->sin6_port);
    } else {
        record->family = AF_UNIX;
        memcpy(record->addr, &pid, sizeof(pid));
    }
}

size_t
client_rec_addr_text(const struct client_shm *record, char text[CLIENT_ADDR_TEXT_BYTES])
{
    char host[INET6_ADDRSTRLEN] = "?";
    int32_t pid;
    int bytes;

    if (record->family == AF_UNIX) {
        memcpy(&pid, record->addr, sizeof(pid));
        bytes = snprintf(text, CLIENT_ADDR_TEXT_BYTES, "unix:%d", (int)pid);
    } else {
        inet_ntop(record->family, record->addr, host, sizeof(host));
        bytes =
            snprintf(text, CLIENT_ADDR_TEXT_BYTES, record->family == AF_INET6 ? "[%s]:%u" : "%s:%u",
                     host, (unsigned)record->port);
    }
    return (size_t)bytes;
}
