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
#include "server/options.h"
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
    uint64_t need = limits_find_descriptors(workers, sockets, opened, NULL);
    uint64_t inherited = need - limits_descriptors(workers, sockets, 0);
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

    /* cppcheck-suppress readdirCalled ; no other thread reads this folder's stream */
    while (proc && (entry = readdir(proc))) {
        if (isdigit((unsigned char)entry->d_name[0]))
            count += limits_count_threads(entry->d_name, user);
    }
    if (proc)
        closedir(proc);
    return count;
}

static uint32_t limits_missing[LIMITS_TASK_KINDS];

void
limits_set_missing(enum limits_task kind, uint32_t count)
{
    limits_missing[kind] = count;
}

const char *
limits_explain_fork(int error, char why[LIMITS_WHY_BYTES])
{
    uint32_t missing =
        limits_missing[LIMITS_WORKERS] + limits_missing[LIMITS_THREADS] + log_lacks_thread();
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

/* --- memory --- */

static uint64_t
limits_mib_up(uint64_t bytes)
{
    return (bytes + LIMITS_MIB - 1) / LIMITS_MIB;
}

/* "64 workers with --ring 16M" */
static const char *
limits_subject(const struct limits_memory *memory, char text[LIMITS_PART_BYTES])
{
    char ring[OPTIONS_SIZE_TEXT_BYTES];

    snprintf(text, LIMITS_PART_BYTES, "%u worker%s with --ring %s", memory->workers,
             limits_plural(memory->workers), options_size_text(memory->ring_bytes, ring));
    return text;
}

/* A limit of this process and of each worker. */
static bool
limits_check_process(const struct limits_memory *memory, int resource, const char *name,
                     uint64_t need)
{
    struct rlimit limit;
    char subject[LIMITS_PART_BYTES];

    if (getrlimit((__rlimit_resource_t)resource, &limit) != 0 || limit.rlim_cur >= need)
        return true;
    log_errorx("the limit of %s is %" PRIu64 " KiB; %s need %" PRIu64
               " KiB: raise it, or give less with --ring or --workers",
               name, (uint64_t)limit.rlim_cur / 1024, limits_subject(memory, subject),
               (need + 1023) / 1024);
    return false;
}

/* Without room for all pools there is only a warning: they may never be used. */
static bool
limits_check_group(const struct limits_memory *memory, uint64_t swap_bytes)
{
    uint64_t need = limits_needed_bytes(memory);
    uint64_t max = limits_used_bytes_max(memory);
    struct cgroup_limit group;
    char subject[LIMITS_PART_BYTES];

    if (!cgroup_find_memory("", swap_bytes, &group) || group.left >= max)
        return true;
    if (group.left >= need) {
        log_warnx("%s may use %" PRIu64
                  " MiB of memory when clients do not read, and %.400s leaves "
                  "%" PRIu64 " MiB: processes may be killed; give less with --pool, or raise it",
                  limits_subject(memory, subject), limits_mib_up(max), group.file,
                  group.left / LIMITS_MIB);
        return true;
    }
    log_errorx("%s need %" PRIu64 " MiB of memory, %" PRIu64 " MiB of it shared, and %.400s leaves "
               "%" PRIu64 " of %" PRIu64 " MiB: give less with --ring or --workers, or raise it to "
               "at least %" PRIu64 " MiB",
               limits_subject(memory, subject), limits_mib_up(need),
               limits_mib_up(memory->shared_bytes), group.file, group.left / LIMITS_MIB,
               group.limit / LIMITS_MIB, limits_mib_up(group.used + need));
    return false;
}

/* A line of /proc/meminfo; `otherwise` where it cannot be read. */
static uint64_t
limits_read_meminfo(const char *format, uint64_t otherwise)
{
    FILE *file = fopen("/proc/meminfo", "re");
    char line[LIMITS_PART_BYTES];
    unsigned long long kib;
    uint64_t bytes = otherwise;

    while (file && fgets(line, sizeof(line), file)) {
        if (sscanf(line, format, &kib) == 1)
            bytes = kib * 1024;
    }
    if (file)
        fclose(file);
    return bytes;
}

static bool
limits_check_machine(const struct limits_memory *memory, uint64_t swap_bytes)
{
    uint64_t need = limits_needed_bytes(memory);
    uint64_t left = limits_read_meminfo("MemAvailable: %llu", UINT64_MAX - swap_bytes) + swap_bytes;
    char subject[LIMITS_PART_BYTES];

    if (left >= need)
        return true;
    log_errorx("%s need %" PRIu64 " MiB of memory, %" PRIu64 " MiB of it shared, and the machine "
               "has %" PRIu64 " MiB available: give less with --ring or --workers",
               limits_subject(memory, subject), limits_mib_up(need),
               limits_mib_up(memory->shared_bytes), left / LIMITS_MIB);
    return false;
}

bool
limits_check_memory(const struct limits_memory *memory)
{
    uint64_t swap_bytes = limits_read_meminfo("SwapFree: %llu", 0);
    uint64_t address_bytes = memory->mapped_bytes + LIMITS_ADDRESS_MIB * LIMITS_MIB;

    return limits_check_process(memory, RLIMIT_FSIZE, "file sizes (`ulimit -f`)",
                                memory->mapped_bytes) &&
           limits_check_process(memory, RLIMIT_AS, "address space (`ulimit -v`)", address_bytes) &&
           limits_check_process(memory, RLIMIT_DATA, "data (`ulimit -d`)",
                                LIMITS_DATA_MIB * LIMITS_MIB) &&
           limits_check_machine(memory, swap_bytes) && limits_check_group(memory, swap_bytes);
}
