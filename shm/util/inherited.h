/*
 * inherited.h: reads and writes descriptors that the process was started with, without blocking.
 *
 * Role:     every process, for its descriptors 0 and 2.
 * Owns:     for INHERITED_OWN, a descriptor of an open file description of the process's own. The
 *           inherited descriptor is borrowed and stays open, so that a FIFO that was opened for reading
 *           and writing never reads as ended.
 * Errors:   none at open: INHERITED_BLOCKING stands for every descriptor without a better way.
 * Context:  any thread. Only inherited_read and inherited_write do I/O; the other functions do not block
 *           when a file system hangs.
 *
 * Other processes share the open file description behind an inherited descriptor. O_NONBLOCK on it would
 * change what they see, and the result of poll(2) may be outdated when the call follows: another reader
 * may have taken the data, another writer the room. So the kind of file decides:
 *
 *   INHERITED_OWN       a pipe, a FIFO, a terminal: opened again through /proc/self/fd with O_NONBLOCK,
 *                       which makes a description of the process's own
 *   INHERITED_SOCKET    cannot be opened again: MSG_DONTWAIT with each call
 *   INHERITED_NOWAIT    the write end of a pipe that cannot be opened again because it is another user's:
 *                       RWF_NOWAIT with each call. A kernel before 6.4 returns EOPNOTSUPP; the caller
 *                       then treats it as INHERITED_BLOCKING
 *   INHERITED_INSTANT   /dev/null, /dev/zero, /dev/full: no call blocks, but epoll does not accept them
 *   INHERITED_BLOCKING  everything else: calls may block, so only a thread may make them. A regular file
 *                       ignores O_NONBLOCK, and would start at offset 0 if opened again; other devices
 *                       may ignore O_NONBLOCK too. Opening again fails without /proc and for the files
 *                       of another user.
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
    bool is_own; /* inherited_close closes `fd` */
    mode_t type; /* S_IFIFO, S_IFCHR ...; 0: unknown */
};

const char *inherited_kind_name(enum inherited_kind kind);

/* `access` says how the caller uses `fd`: O_RDONLY or O_WRONLY. */
struct inherited inherited_open(int fd, int access);

/* Leaves the inherited descriptor open. */
void inherited_close(struct inherited *inherited);

/* read(2) and write(2), which block for INHERITED_BLOCKING only and raise no SIGPIPE on a socket. A count
 * or a negative errno. -EAGAIN: nothing to read, or no room. -EMSGSIZE: a datagram longer than `bytes` was
 * received and is lost. */
ssize_t inherited_read(const struct inherited *inherited, void *data, size_t bytes);
ssize_t inherited_write(const struct inherited *inherited, const void *data, size_t bytes);

/* As isatty(3), but without its ioctl(2) on a regular file, which blocks when the file system hangs. */
bool inherited_is_terminal(int fd);

bool inherited_is_dev_null(int fd);

/* True if JOURNAL_STREAM names the device and inode of `fd`: it is connected to the journal of systemd. */
bool inherited_is_journal(int fd);

/* True for files and folders: close(2) of the last descriptor may block when the file system hangs. */
bool inherited_may_hang(int fd);

#endif
