#include "tools/bench_process.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

enum {
    PATH_BYTES = 64,
    STAT_BYTES = 1024,
    TREE_MAX = 1024, /* processes of a server */
    STOP_MS = 15000,
};

/* --- a command --- */

/* In the child: nothing but the command is left, or the reason why not is in `report`. */
static void __attribute__((noreturn)) child_become(char **command, int input, int report)
{
    sigset_t none;
    int error;

    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    signal(SIGPIPE, SIG_DFL);
    prctl(PR_SET_PDEATHSIG, SIGTERM);
    if (dup2(input, STDIN_FILENO) >= 0 && dup2(STDERR_FILENO, STDOUT_FILENO) >= 0)
        execvp(command[0], command);
    error = errno;
    if (write(report, &error, sizeof(error)) < 0)
        _exit(EXIT_FAILURE);
    _exit(EXIT_FAILURE);
}

/* The descriptor that closes when the command is executed tells of it. */
static int
child_await_exec(int report)
{
    int error = 0;
    ssize_t bytes;

    do
        bytes = read(report, &error, sizeof(error));
    while (bytes < 0 && errno == EINTR);
    close(report);
    return bytes == sizeof(error) ? -error : 0;
}

int
bench_process_start(struct bench_child *child, char **command, bool feed)
{
    int report[2];
    int input[2] = {-1, -1};
    int rc = -EMFILE;

    if (pipe2(report, O_CLOEXEC) != 0)
        return -errno;
    if (feed ? pipe2(input, O_CLOEXEC) == 0
             : (input[0] = open("/dev/null", O_RDONLY | O_CLOEXEC)) >= 0) {
        child->pid = fork();
        if (child->pid == 0)
            child_become(command, input[0], report[1]);
        rc = child->pid < 0 ? -errno : 0;
        close(input[0]);
    }
    close(report[1]);
    if (rc == 0)
        rc = child_await_exec(report[0]);
    else
        close(report[0]);
    child->input = input[1];
    if (feed && rc == 0 && fcntl(input[1], F_SETFL, O_NONBLOCK) != 0)
        rc = -errno;
    return rc;
}

bool
bench_process_ended(struct bench_child *child)
{
    siginfo_t info = {0};

    return child->pid > 0 &&
           waitid(P_PID, (id_t)child->pid, &info, WEXITED | WNOHANG | WNOWAIT) == 0 &&
           info.si_pid == child->pid;
}

void
bench_process_stop(struct bench_child *child)
{
    struct pollfd ended = {.events = POLLIN};

    if (child->pid <= 0)
        return;
    ended.fd = (int)syscall(SYS_pidfd_open, child->pid, 0);
    if (child->input >= 0)
        close(child->input);
    kill(child->pid, SIGTERM);
    if (ended.fd < 0 || poll(&ended, 1, STOP_MS) != 1)
        kill(child->pid, SIGKILL);
    while (waitpid(child->pid, NULL, 0) < 0 && errno == EINTR)
        ;
    if (ended.fd >= 0)
        close(ended.fd);
    child->pid = 0;
    child->input = -1;
}

/* --- what the kernel knows of processes --- */

struct process_stat {
    pid_t pid;
    pid_t parent;
    uint64_t user_ticks;
    uint64_t system_ticks;
};

/* The bytes of a small file in /proc as a string; false: it is gone, or not for us. */
static bool
proc_read(const char *path, char *text, size_t room)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t bytes = fd >= 0 ? read(fd, text, room - 1) : -1;

    if (fd >= 0)
        close(fd);
    text[bytes > 0 ? bytes : 0] = '\0';
    return bytes > 0;
}

/* The name of the program, in parentheses, may have anything in it: the last one ends it. */
static bool
stat_read(pid_t pid, struct process_stat *stat)
{
    char path[PATH_BYTES];
    char text[STAT_BYTES];
    const char *rest;

    snprintf(path, sizeof(path), "/proc/%d/stat", (int)pid);
    rest = proc_read(path, text, sizeof(text)) ? strrchr(text, ')') : NULL;
    stat->pid = pid;
    return rest && sscanf(rest, ") %*c %d %*d %*d %*d %*d %*u %*u %*u %*u %*u %" SCNu64 " %" SCNu64,
                          &stat->parent, &stat->user_ticks, &stat->system_ticks) == 3;
}

/* Nanoseconds that the threads of a process ran for, /proc/PID/task/TID/schedstat; 0: the kernel does not count them. */
static uint64_t
threads_cpu_ns(pid_t pid)
{
    char path[PATH_BYTES];
    char text[STAT_BYTES];
    const struct dirent *entry;
    uint64_t sum = 0;
    DIR *tasks;

    snprintf(path, sizeof(path), "/proc/%d/task", (int)pid);
    tasks = opendir(path);
    if (!tasks)
        return 0;
    /* cppcheck-suppress readdirCalled ; one thread */
    while ((entry = readdir(tasks))) {
        int bytes =
            snprintf(path, sizeof(path), "/proc/%d/task/%.20s/schedstat", (int)pid, entry->d_name);
        if (entry->d_name[0] != '.' && bytes < (int)sizeof(path) &&
            proc_read(path, text, sizeof(text)))
            sum += strtoull(text, NULL, 10);
    }
    closedir(tasks);
    return sum;
}

static int64_t
rollup_bytes(const char *text, const char *name)
{
    const char *line = strstr(text, name);

    return line ? (int64_t)strtoll(line + strlen(name), NULL, 10) * 1024 : -1;
}

/* Proportional: what processes share is divided among them, so that a sum counts it once. */
static void
usage_add_memory(struct bench_usage *usage, pid_t pid)
{
    char path[PATH_BYTES];
    char text[STAT_BYTES * 2];
    int64_t pss;

    snprintf(path, sizeof(path), "/proc/%d/smaps_rollup", (int)pid);
    pss = proc_read(path, text, sizeof(text)) ? rollup_bytes(text, "\nPss:") : -1;
    if (pss < 0 || usage->pss_bytes < 0) {
        usage->pss_bytes = -1;
        return;
    }
    usage->pss_bytes += pss;
    pss = rollup_bytes(text, "\nPss_File:");
    usage->pss_file_bytes += pss > 0 ? pss : 0; /* before Linux 5.10 it is not there */
}

/* All processes there are, as many as have room. */
static int
stats_read(struct process_stat **stats)
{
    const struct dirent *entry;
    DIR *proc = opendir("/proc");
    int count = 0;
    int room = 0;

    *stats = NULL;
    /* cppcheck-suppress readdirCalled ; one thread */
    while (proc && (entry = readdir(proc))) {
        pid_t pid = (pid_t)strtol(entry->d_name, NULL, 10);

        if (count == room) {
            struct process_stat *more =
                reallocarray(*stats, (size_t)room + TREE_MAX, sizeof(*more));
            if (!more)
                break;
            *stats = more;
            room += TREE_MAX;
        }
        if (pid > 0 && stat_read(pid, &(*stats)[count]))
            count++;
    }
    if (proc)
        closedir(proc);
    return count;
}

/* Breadth first: a process that has a parent in the tree belongs to it. */
static int
tree_of(pid_t root, const struct process_stat *stats, int count, const struct process_stat **tree)
{
    int size = 0;

    for (int i = 0; i < count; i++) {
        if (stats[i].pid == root)
            tree[size++] = &stats[i];
    }
    for (int at = 0; at < size; at++) {
        for (int i = 0; i < count && size < TREE_MAX; i++) {
            if (stats[i].parent == tree[at]->pid && stats[i].pid != root)
                tree[size++] = &stats[i];
        }
    }
    return size;
}

void
bench_process_usage(struct bench_usage *usage, pid_t pid, bool memory)
{
    const struct process_stat *tree[TREE_MAX];
    struct process_stat *stats;
    uint64_t tick_ns = UINT64_C(1000000000) / (uint64_t)sysconf(_SC_CLK_TCK);
    int count;

    *usage = (struct bench_usage){.pss_bytes = memory ? 0 : -1};
    count = stats_read(&stats);
    usage->processes = tree_of(pid, stats, count, tree);
    for (int i = 0; i < usage->processes; i++) {
        usage->user_ns += tree[i]->user_ticks * tick_ns;
        usage->system_ns += tree[i]->system_ticks * tick_ns;
        usage->cpu_ns += threads_cpu_ns(tree[i]->pid);
        if (memory)
            usage_add_memory(usage, tree[i]->pid);
    }
    if (usage->processes == 0)
        usage->pss_bytes = -1;
    if (usage->cpu_ns == 0)
        usage->cpu_ns = usage->user_ns + usage->system_ns;
    free(stats);
}
