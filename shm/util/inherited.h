/*
 * inherited.h: a descriptor that the process was started with, used without ever waiting for it.
 *
 * Role:     every process, for its descriptors 0 and 2.
 * Owns:     a description of its own, where there is one. The inherited descriptor is borrowed and stays open,
 *           so that a FIFO that was opened for reading and writing keeps its meaning.
 * Errors:   none: what cannot be had is INHERITED_BLOCKING.
 * Context:  any thread. No call here asks a file system anything: one that hangs stops nothing.
 *
 * The open file description behind an inherited descriptor belongs to other processes too. O_NONBLOCK on it
 * would change what they see, and poll(2) before a call says nothing about the moment of the call: another
 * reader may have taken the data, another writer the room. So each kind has its own way:
 *
 *   INHERITED_OWN       a pipe, a FIFO, a terminal: opened again through /proc/self/fd with O_NONBLOCK, which
 *                       makes a description of the process's own
 *   INHERITED_SOCKET    cannot be opened again; takes MSG_DONTWAIT with each call
 *   INHERITED_NOWAIT    a pipe to write to that may not be opened again, because it is another user's: RWF_NOWAIT
 *                       with each call. Kernels before 6.4 answer -EOPNOTSUPP: then it is INHERITED_BLOCKING
 *   INHERITED_INSTANT   /dev/null, /dev/zero, /dev/full: no call waits
 *   INHERITED_BLOCKING  everything else. A regular file ignores O_NONBLOCK, and opened again would start at
 *                       offset 0; other devices may do what they like; opening again is refused for what
 *                       is another user's, and without /proc. Only a thread may wait here.
 */
#ifndef CRIER_SHM_UTIL_INHERITED_H
#define CRIER_SHM_UTIL_INHERITED_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

enum inherited_kind {
    INHERITED_OWN,
    INHERITED_SOCKET,
    INHERITED_NOWAIT,
    INHERITED_INSTANT,
    INHERITED_BLOCKING,
};

struct inherited {
    enum inherited_kind kind;
    int fd;      /* what to read, write and watch */
    bool is_own; /* fd is to be closed */
    mode_t type; /* S_IFIFO, S_IFCHR ...; 0: unknown */
};

const char *inherited_kind_name(enum inherited_kind kind);

/* `access` is O_RDONLY or O_WRONLY: what it is wanted for. */
struct inherited inherited_open(int fd, int access);

/* Leaves the inherited descriptor open. */
void inherited_close(struct inherited *inherited);

/* read(2) and write(2) that do not wait, but for INHERITED_BLOCKING, and raise no SIGPIPE on a socket. A
 * count or a negative errno; -EMSGSIZE: a datagram that is longer than `bytes` has been taken and is lost. */
ssize_t inherited_read(const struct inherited *inherited, void *data, size_t bytes);
ssize_t inherited_write(const struct inherited *inherited, const void *data, size_t bytes);

/* isatty(3) asks the file system of a regular file; this asks nothing but terminals. */
bool inherited_is_terminal(int fd);

bool inherited_is_dev_null(int fd);

/* To close its last descriptor in a process may wait for a file system. */
bool inherited_may_hang(int fd);

#endif
