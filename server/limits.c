#define _GNU_SOURCE
#include "server/limits.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <sys/resource.h>

#include "shm/log.h"

enum { LIMITS_PART_BYTES = 96 };

static const char *
limits_plural(uint64_t count)
{
    return count == 1 ? "" : "s";
}

/* --- descriptors --- */

uint64_t
limits_raise_descriptors(void)
{
    struct rlimit limit;
    rlim_t soft;

    if (getrlimit(RLIMIT_NOFILE, &limit) != 0)
        return 0; /* not with these arguments */
    soft = limit.rlim_cur;
    if (soft < limit.rlim_max) {
        limit.rlim_cur = limit.rlim_max;
        if (setrlimit(RLIMIT_NOFILE, &limit) != 0) {
            log_warn("cannot raise the limit of open files, staying at %" PRIu64, (uint64_t)soft);
            limit.rlim_cur = soft;
        }
    }
    return limit.rlim_cur;
}

uint64_t
limits_find_descriptors(uint32_t workers, size_t sockets, size_t opened, uint64_t *inherited)
{
    uint64_t own = LIMITS_STANDARD_FDS + opened;
    uint64_t free = limits_master_descriptors(workers, sockets) - own;
    uint64_t used = 0;
    uint64_t others;

    for (int fd = 0; free > 0; fd++) {
        bool open = fcntl(fd, F_GETFD) >= 0;
        used += open;
        free -= !open;
    }
    others = used > own ? used - own : 0;
    if (inherited)
        *inherited = others;
    return limits_descriptors(workers, sockets, others);
}

bool
limits_check_descriptors(uint64_t limit, uint32_t workers, size_t sockets, size_t opened)
{
    uint64_t inherited;
    uint64_t need = limits_find_descriptors(workers, sockets, opened, &inherited);
    char of_which[LIMITS_PART_BYTES] = "";

    if (limit >= need)
        return true;
    if (inherited)
        snprintf(of_which, sizeof(of_which), ", %" PRIu64 " of them for inherited descriptors",
                 inherited);
    log_errorx("the limit of open files (`ulimit -n`) is %" PRIu64 "; %u worker%s and %zu "
               "listening socket%s need %" PRIu64 "%s: raise it, or give fewer --workers",
               limit, workers, limits_plural(workers), sockets, limits_plural(sockets), need,
               of_which);
    return false;
}
