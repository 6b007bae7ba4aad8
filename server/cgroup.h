/*
 * cgroup.h: what the control groups of this process still allow.
 *
 * Role:     master, through limits.h. cgroups(7), proc(5).
 * Owns:     nothing.
 * Errors:   none: a file that is missing or cannot be read limits nothing.
 * Context:  main thread.
 *
 * Version 1 (a hierarchy per controller), version 2 (one for all) and both side by side. A limit of
 * any group, from the process's own up to the one that is mounted, limits the process.
 */
#ifndef CRIER_SERVER_CGROUP_H
#define CRIER_SERVER_CGROUP_H

#include <limits.h>
#include <stdbool.h>
#include <stdint.h>

struct cgroup_limit {
    char file[PATH_MAX]; /* the file with the limit, for instance /sys/fs/cgroup/a/memory.max */
    uint64_t limit;
    uint64_t used;
    uint64_t left; /* what may still be used: limit - used, at least 0; of memory, also free swap */
};

/* Finds the group that leaves least memory. False: no group has a limit. Files in the page cache do
 * not count as used, since the kernel drops them first. `swap_bytes`: free swap of the machine.
 * `root` is put in front of each path that is opened: "", or the folder of a test. */
bool cgroup_find_memory(const char *root, uint64_t swap_bytes, struct cgroup_limit *found);

/* Finds the group that leaves fewest processes and threads. */
bool cgroup_find_pids(const char *root, struct cgroup_limit *found);

#endif
