#define _GNU_SOURCE
#include "server/spawn.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/close_range.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/pidfd.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "shm/chan.h"
#include "shm/disposition.h"
#include "shm/log.h"
#include "shm/ring.h"
#include "shm/util/inherited.h"

enum {
    SPAWN_EXIT_NOT_STARTED = 127,
    SPAWN_HELPER_TURNS = 1000,
};

/* The descriptors that a child needs, by index. */
enum {
    SPAWN_PROGRAM,
    SPAWN_SEGMENT,
    SPAWN_CHANNEL,
    SPAWN_WAKE, /* and on, one of each member */
    SPAWN_FDS_MAX = SPAWN_WAKE + RING_OWNERS_MAX,
};

static int
spawn_make_environment(struct spawn *spawn)
{
    size_t count = 0;

    while (environ[count])
        count++;
    spawn->envp = calloc(count + 2, sizeof(spawn->envp[0]));
    spawn->place = calloc(1, SPAWN_PLACE_BYTES);
    if (!spawn->envp || !spawn->place)
        return -ENOMEM;
    memcpy(spawn->envp, environ, count * sizeof(spawn->envp[0]));
    spawn->envp[count] = spawn->place;
    return 0;
}

int
spawn_open(struct spawn *spawn, char *const *argv)
{
    *spawn = (struct spawn){.argv = argv, .segment_fd = -1};
    spawn->program = open("/proc/self/exe", O_PATH | O_CLOEXEC);
    if (spawn->program < 0)
        return -errno;
    return spawn_make_environment(spawn);
}

void
spawn_share(struct spawn *spawn, int segment_fd, const int *wake_fds, uint32_t member_count)
{
    spawn->segment_fd = segment_fd;
    spawn->wake_fds = wake_fds;
    spawn->member_count = member_count;
}

void
spawn_close(struct spawn *spawn)
{
    if (spawn->program > 0)
        close(spawn->program);
    free(spawn->envp);
    free(spawn->place);
    *spawn = (struct spawn){0};
}

/* --- in the child --- */

static void __attribute__((noreturn)) spawn_fail(const char *what)
{
    log_error("cannot start a worker: %s", what);
    _exit(SPAWN_EXIT_NOT_STARTED);
}

/* Closes all descriptors from 3 on but those in `keep`: those of the listening sockets, of
 * connections, of other channels, of the application. A worker must start however many there are. */
static void
spawn_close_others(const int *keep, size_t count)
{
    unsigned from = STDERR_FILENO + 1;

    for (;;) {
        unsigned next = ~0U;

        for (size_t i = 0; i < count; i++) {
            if ((unsigned)keep[i] >= from && (unsigned)keep[i] < next)
                next = (unsigned)keep[i];
        }
        if (next > from)
            (void)close_range(from, next == ~0U ? next : next - 1, 0);
        if (next == ~0U)
            return;
        from = next + 1;
    }
}

static int
spawn_move_up(int fd, int above)
{
    int moved = fd < above ? fcntl(fd, F_DUPFD_CLOEXEC, above) : fd;

    if (moved < 0)
        spawn_fail("fcntl");
    return moved;
}

static void
spawn_put(int fd, int place)
{
    if (dup2(fd, place) < 0) /* clears close-on-exec */
        spawn_fail("dup2");
}

/* Closing a descriptor of a file sends a request to its file system (FUSE: FLUSH), and blocks if the file system
 * hangs. So a helper process that shares only the descriptor table puts /dev/null in the place of the file;
 * the helper may be blocked for ever, and this process is not. */
static void
spawn_leave_input(int null)
{
    pid_t helper = (pid_t)syscall(SYS_clone, CLONE_FILES, NULL, NULL, NULL, NULL);

    if (helper <= 0)
        spawn_put(null, STDIN_FILENO);
    if (helper == 0)
        _exit(0);
    if (helper < 0)
        return; /* no process could be made, and this one has closed the file itself */
    while (!inherited_is_dev_null(STDIN_FILENO))
        sched_yield();
    for (int turns = 0; turns < SPAWN_HELPER_TURNS; turns++) {
        if (waitpid(helper, NULL, WNOHANG | __WALL) != 0)
            break;
        sched_yield();
    }
}

/* Workers read nothing. */
static void
spawn_put_null(void)
{
    int null = open("/dev/null", O_RDONLY | O_CLOEXEC);

    if (null < 0)
        spawn_fail("/dev/null");
    if (inherited_may_hang(STDIN_FILENO))
        spawn_leave_input(null);
    else
        spawn_put(null, STDIN_FILENO);
    close(null);
}

/* Every descriptor goes to its place; first all are moved out of the way of each other. Numbers
 * below `above` + `count` are enough, which are fewer than the master has in use (limits.h). */
static int
spawn_place_descriptors(const struct spawn *spawn, int channel)
{
    int above = CHAN_FD_WAKE + (int)spawn->member_count;
    size_t count = SPAWN_WAKE + spawn->member_count;
    int fds[SPAWN_FDS_MAX];

    fds[SPAWN_PROGRAM] = spawn->program;
    fds[SPAWN_SEGMENT] = spawn->segment_fd;
    fds[SPAWN_CHANNEL] = channel;
    for (uint32_t i = 0; i < spawn->member_count; i++)
        fds[SPAWN_WAKE + i] = spawn->wake_fds[i];
    spawn_close_others(fds, count);
    spawn_put_null();
    for (size_t i = 0; i < count; i++)
        fds[i] = spawn_move_up(fds[i], above);
    spawn_put(fds[SPAWN_SEGMENT], CHAN_FD_SEGMENT);
    spawn_put(fds[SPAWN_CHANNEL], CHAN_FD_CHANNEL);
    for (uint32_t i = 0; i < spawn->member_count; i++)
        spawn_put(fds[SPAWN_WAKE + i], CHAN_FD_WAKE + (int)i);
    return fds[SPAWN_PROGRAM];
}

/* Until the worker can end in order when the master dies (worker_tie_to_master), it is killed. */
static void
spawn_tie_to_master(pid_t master)
{
    if (prctl(PR_SET_PDEATHSIG, SIGKILL) != 0)
        spawn_fail("prctl");
    if (getppid() != master) /* the master has died before that */
        _exit(SPAWN_EXIT_NOT_STARTED);
}

static void __attribute__((noreturn))
spawn_child(const struct spawn *spawn, uint32_t member, int channel, pid_t master)
{
    char role[SPAWN_PLACE_BYTES];
    int program;

    snprintf(role, sizeof(role), "worker %u", member);
    log_child(role);
    spawn_tie_to_master(master);
    program = spawn_place_descriptors(spawn, channel);
    /* Ignored signals stay ignored through exec: a signal that a terminal sends to the whole group
     * does not end a worker at any instruction. */
    disposition_apply_before_exec();
    execveat(program, "", spawn->argv, spawn->envp, AT_EMPTY_PATH);
    spawn_fail("execveat");
}

/* --- in the master --- */

/* Returns `pid`, or a negative errno after the process is gone again. */
static pid_t
spawn_open_pidfd(pid_t pid, int *pidfd)
{
    int rc;

    *pidfd = pidfd_open(pid, 0);
    if (*pidfd >= 0 || errno == ENOSYS || errno == EPERM)
        return pid;
    rc = -errno;
    if (rc != -ESRCH) /* the application ignores SIGCHLD, and the process has ended already */
        (void)kill(pid, SIGKILL);
    (void)waitpid(pid, NULL, 0);
    return rc;
}

pid_t
spawn_worker(struct spawn *spawn, uint32_t member, int channel, int *pidfd)
{
    pid_t master = getpid();
    sigset_t all;
    sigset_t before;
    pid_t pid;

    assert(spawn->member_count <= RING_OWNERS_MAX);
    snprintf(spawn->place, SPAWN_PLACE_BYTES, CHAN_ENV_MEMBER "=%u", member);
    sigfillset(&all);
    /* The master's handlers must not run in the child. */
    pthread_sigmask(SIG_SETMASK, &all, &before);
    pid = fork();
    if (pid == 0)
        spawn_child(spawn, member, channel, master);
    pid = pid < 0 ? -errno : spawn_open_pidfd(pid, pidfd);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return pid;
}
