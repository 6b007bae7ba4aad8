/*
 * memory.h: what the kernel says about memory, its own and that of processes.
 *
 * Role:     the process that measures.
 * Errors:   none are returned: a file of /proc that is not there ends the program with a sentence.
 */
#ifndef CRIER_TESTS_BENCH_MEMORY_H
#define CRIER_TESTS_BENCH_MEMORY_H

#include "tests/bench/server_rig.h"

/* The number behind a word that begins a line. */
static inline uint64_t
memory_line_kib(const char *path, const char *word)
{
    char line[256];
    uint64_t kib = 0;
    FILE *file = fopen(path, "r");

    if (!file)
        server_rig_fail(path);
    while (fgets(line, sizeof(line), file)) {
        if (strncmp(line, word, strlen(word)) == 0) {
            kib = strtoull(line + strlen(word), NULL, 10);
            break;
        }
    }
    fclose(file);
    return kib;
}

/* Proportional set size: memory that processes share is divided among them. */
static inline uint64_t
memory_pss_kib(pid_t pid)
{
    char path[64];

    snprintf(path, sizeof(path), "/proc/%d/smaps_rollup", pid);
    return memory_line_kib(path, "Pss:");
}

/* Of all processes of a server. */
static inline uint64_t
memory_server_kib(const struct server_rig *server)
{
    uint64_t sum = memory_pss_kib(server->pid);

    for (int i = 0; i < server->child_count; i++)
        sum += memory_pss_kib(server->children[i]);
    return sum;
}

/* Pages in TCP's buffers, of the whole machine. */
static inline uint64_t
memory_tcp_pages(void)
{
    char line[256];
    uint64_t pages = 0;
    FILE *file = fopen("/proc/net/sockstat", "r");

    if (!file)
        server_rig_fail("/proc/net/sockstat");
    while (fgets(line, sizeof(line), file)) {
        const char *mem = strncmp(line, "TCP:", 4) == 0 ? strstr(line, " mem ") : NULL;
        if (mem)
            pages = strtoull(mem + strlen(" mem "), NULL, 10);
    }
    fclose(file);
    return pages;
}

/* Beyond so many, the kernel refuses. */
static inline uint64_t
memory_tcp_limit_pages(void)
{
    unsigned long long low, pressure, high = 0;
    FILE *file = fopen("/proc/sys/net/ipv4/tcp_mem", "r");

    if (!file || fscanf(file, "%llu %llu %llu", &low, &pressure, &high) != 3)
        server_rig_fail("tcp_mem");
    fclose(file);
    return high;
}

#endif
