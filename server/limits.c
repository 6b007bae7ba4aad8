#define _GNU_SOURCE
#include "server/limits.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "server/cgroup.h"
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

/* --- processes --- */

/* The threads of process `pid` when it is the user's, as RLIMIT_NPROC counts them; else 0. */
static uint64_t
limits_count_threads(const char *pid, uid_t user)
{
    char path[LIMITS_PART_BYTES];
    char line[LIMITS_PART_BYTES];
    unsigned long long threads = 0;
    unsigned owner;
    bool own = false;
    FILE *file;

    snprintf(path, sizeof(path), "/proc/%.20s/status", pid);
    file = fopen(path, "re");
    if (!file)
        return 0; /* has ended */
    while (fgets(line, sizeof(line), file)) {
        if (sscanf(line, "Uid: %u", &owner) == 1)
            own = owner == user;
        if (own && sscanf(line, "Threads: %llu", &threads) == 1)
            break;
    }
    fclose(file);
    return threads;
}

static uint64_t
limits_count_processes(uid_t user)
{
    DIR *proc = opendir("/proc");
    struct dirent *entry;
    uint64_t count = 0;

    while (proc && (entry = readdir(proc))) {
        if (isdigit((unsigned char)entry->d_name[0]))
            count += limits_count_threads(entry->d_name, user);
    }
    if (proc)
        closedir(proc);
    return count;
}

const char *
limits_explain_fork(int error, uint32_t missing, char why[LIMITS_WHY_BYTES])
{
    struct cgroup_limit pids;
    struct rlimit limit;
    uid_t user = getuid();
    uint64_t count;

    if (error == EAGAIN && cgroup_find_pids("", &pids) && pids.left == 0) {
        snprintf(why, LIMITS_WHY_BYTES,
                 "%.200s is %" PRIu64 ", and the group has %" PRIu64
                 " task%s (processes and threads): raise it to at least %" PRIu64,
                 pids.file, pids.limit, pids.used, limits_plural(pids.used), pids.used + missing);
        return why;
    }
    if (error == EAGAIN && user != 0 && getrlimit(RLIMIT_NPROC, &limit) == 0 &&
        (count = limits_count_processes(user)) >= limit.rlim_cur) {
        snprintf(why, LIMITS_WHY_BYTES,
                 "the limit of processes (`ulimit -u`) is %" PRIu64 ", and user %u has %" PRIu64
                 " task%s (processes and threads): raise it to at least %" PRIu64,
                 (uint64_t)limit.rlim_cur, (unsigned)user, count, limits_plural(count),
                 count + missing);
        return why;
    }
    snprintf(why, LIMITS_WHY_BYTES, "%s", strerror(error));
    return why;
}
