/*
 * socket_file.h: the files of unix sockets, which are removed when their server ends.
 *
 * Role:     master.
 * Owns:     each struct socket_file and the file that it names, from socket_file_bind to
 *           socket_file_remove.
 * Errors:   negative errno.
 * Context:  main thread; socket_file_remove_all in a handler on it, too.
 *
 * A file is removed only while it is the one that was created: what another server has put at the
 * path meanwhile stays. A server that was killed leaves its file, to which nothing listens:
 * socket_file_clear removes that.
 */
#ifndef CRIER_SERVER_SOCKET_FILE_H
#define CRIER_SERVER_SOCKET_FILE_H

#include <sys/stat.h>
#include <sys/un.h>

struct socket_file;

/* Removes what a dead server has left at the path. 0: nothing is there now, or bind finds out what
 * is wrong. -EEXIST: the file is not a socket. -EALREADY: it is one of this process. -EADDRINUSE:
 * another server listens there. -EACCES: this user cannot find out. */
int socket_file_clear(const struct sockaddr_un *un) __attribute__((warn_unused_result));

/* Binds `fd`, and stats the file that this creates. *file, which the caller gives to
 * socket_file_remove, is NULL on error. */
int socket_file_bind(int fd, const struct sockaddr_un *un, struct socket_file **file,
                     struct stat *created) __attribute__((warn_unused_result));

/* Removes the file, and frees `file`. */
void socket_file_remove(struct socket_file *file);

/* Removes the files of all sockets that are bound, and nothing else. Async-signal-safe, for a
 * handler on the main thread of a process that ends. */
void socket_file_remove_all(void);

#endif
