/*
 * socket_mode.h: the permissions of a unix socket's file: unix:PATH,mode=660,group=www-data.
 *
 * Role:     master. A client needs write permission to connect (unix(7)).
 * Owns:     nothing.
 * Errors:   socket_mode_parse: what is wanted instead; else negative errno.
 * Context:  main thread; other threads may run, so the umask, which is the process's, is not changed.
 *
 * The file is never more open than asked: socket_mode_hide comes before bind, which then creates the
 * file without any permission; socket_mode_apply, before listen, gives it the group first and the
 * mode last. A file that another process has put at the path meanwhile is left alone.
 */
#ifndef CRIER_SERVER_SOCKET_MODE_H
#define CRIER_SERVER_SOCKET_MODE_H

#include <stdbool.h>
#include <sys/stat.h>

enum {
    SOCKET_MODE_OF_GROUP = 0660, /* when only the group is given: the umask would keep it out */
    SOCKET_MODE_NOT_GIVEN = -1,
    SOCKET_MODE_GROUP_BYTES = 64,
};

struct socket_mode {
    int mode;                            /* SOCKET_MODE_NOT_GIVEN: what the umask leaves */
    char group[SOCKET_MODE_GROUP_BYTES]; /* a name or a number; empty: not given */
};

/* Reads what follows the path: "", ",mode=OCTAL" and ",group=NAME", in any order, each once. NULL, or
 * what is wanted instead; the group is looked up. */
const char *socket_mode_parse(const char *text, struct socket_mode *mode);

/* Is there anything to apply? */
bool socket_mode_is_given(const struct socket_mode *mode);

/* The file that bind creates for `fd` has no permissions. */
int socket_mode_hide(const struct socket_mode *mode, int fd) __attribute__((warn_unused_result));

/* A descriptor of the file at `path`, which is still the one in `known`: the path may lead elsewhere
 * a moment later, and as a symbolic link to any file. The caller closes it. -ESTALE: it is another one. */
int socket_mode_open(const char *path, const struct stat *known)
    __attribute__((warn_unused_result));

/* Sets the permissions of such a file. */
int socket_mode_set(int file, mode_t mode) __attribute__((warn_unused_result));

/* The file at `path`, which is still the one in `created`, gets its group and mode. -ESTALE: it is
 * another one. -EPERM: this process may not give it that group. */
int socket_mode_apply(const struct socket_mode *mode, const char *path, const struct stat *created)
    __attribute__((warn_unused_result));

#endif
