/*
 * spawn.h: a worker process, from fork to exec.
 *
 * Role:     master only; shm/chan.h says what the worker finds.
 * Owns:     a descriptor of the running program, and the workers' environment.
 * Errors:   negative errno.
 * Context:  the thread that runs the master's loop, and only that: the kernel signals a worker when
 *           the thread that forked it ends (PR_SET_PDEATHSIG). Between fork and exec, only calls
 *           that are safe in a program with threads.
 *
 * Workers execute the image that the master runs, whatever lies at its path by then, with the
 * master's arguments and environment. They get the segment, their channel, and the eventfds, and
 * nothing else. A process is referred to by a pidfd, which stays valid whatever reaps the process.
 */
#ifndef CRIER_SERVER_SPAWN_H
#define CRIER_SERVER_SPAWN_H

#include <stdint.h>
#include <sys/types.h>

enum { SPAWN_PLACE_BYTES = 32 };

struct spawn {
    int program;
    char *const *argv;
    char **envp;
    char *place; /* CHAN_ENV_MEMBER=N, the last of envp, before a NULL */
    int segment_fd;
    const int *wake_fds;
    uint32_t member_count;
};

/* Opens the running program. `argv` is borrowed. */
int spawn_open(struct spawn *spawn, char *const *argv) __attribute__((warn_unused_result));

/* Sets what workers inherit besides their channel. Borrowed. */
void spawn_share(struct spawn *spawn, int segment_fd, const int *wake_fds, uint32_t member_count);

void spawn_close(struct spawn *spawn);

/* Starts the process of `member`, which reads from `channel`. Returns its pid; the caller owns
 * `*pidfd`, which is close-on-exec; it is -1 where the system call is missing (valgrind) or a seccomp
 * filter refuses it. */
pid_t spawn_worker(struct spawn *spawn, uint32_t member, int channel, int *pidfd)
    __attribute__((warn_unused_result));

#endif
