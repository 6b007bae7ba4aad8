/*
 * socket_file.c: read socket_file.h first.
 */
#define _GNU_SOURCE
#include "server/socket_file.h"

#include <errno.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "server/socket_mode.h"

/* socket_file_remove_all may run at any instruction at which signals are not blocked. They are
 * blocked from bind until the socket's file is in the list, and while one is taken off it. */
struct socket_file {
    struct socket_file *next;
    dev_t dev; /* with `ino`: whether the file at `path` is still this socket's */
    ino_t ino;
    char path[PATH_MAX]; /* absolute: the application may change the working directory */
};

static struct socket_file *socket_files;

/* 0: a server listens on the socket; else the errno of connect(2), ECONNREFUSED from a dead one. */
static int
socket_file_probe(const struct sockaddr_un *un)
{
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    int error = fd < 0 || connect(fd, (const struct sockaddr *)un, sizeof(*un)) != 0 ? errno : 0;

    if (fd >= 0)
        close(fd);
    return error;
}

/* The same for a file that is this user's, but has a mode in which the user cannot connect, or none
 * yet, because its server was killed before it had one. */
static int
socket_file_probe_own(const struct sockaddr_un *un, const struct stat *st)
{
    mode_t mode = st->st_mode & ALLPERMS;
    int file = socket_mode_open(un->sun_path, st);
    int error = EACCES;

    if (file < 0)
        return EACCES;
    if (socket_mode_set(file, mode | S_IWUSR) == 0) {
        error = socket_file_probe(un);
        if (error != ECONNREFUSED && socket_mode_set(file, mode) != 0)
            error = EACCES;
    }
    close(file);
    return error;
}

int
socket_file_clear(const struct sockaddr_un *un)
{
    struct stat st;
    int error;

    if (lstat(un->sun_path, &st) != 0)
        return 0; /* bind finds out why */
    if (!S_ISSOCK(st.st_mode))
        return -EEXIST;
    for (const struct socket_file *file = socket_files; file; file = file->next) {
        if (file->dev == st.st_dev && file->ino == st.st_ino)
            return -EALREADY;
    }
    error = socket_file_probe(un);
    if (error == EACCES && st.st_uid == geteuid())
        error = socket_file_probe_own(un, &st);
    if (error == ECONNREFUSED && unlink(un->sun_path) != 0)
        return -errno;
    if (error == ECONNREFUSED || error == ENOENT)
        return 0;
    return error == EACCES ? -EACCES : -EADDRINUSE;
}

static void
socket_file_block_signals(sigset_t *before)
{
    sigset_t all;

    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, before);
}

/* Binds `fd` and puts the file that this creates into the list: for signals, in one step. */
static int
socket_file_create(int fd, const struct sockaddr_un *un, struct socket_file *file,
                   struct stat *created)
{
    sigset_t before;
    int rc = 0;

    socket_file_block_signals(&before);
    if (bind(fd, (const struct sockaddr *)un, sizeof(*un)) != 0 ||
        lstat(un->sun_path, created) != 0) {
        rc = -errno;
    } else {
        if (!realpath(un->sun_path, file->path))
            snprintf(file->path, sizeof(file->path), "%s", un->sun_path);
        file->dev = created->st_dev;
        file->ino = created->st_ino;
        file->next = socket_files;
        socket_files = file;
    }
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return rc;
}

int
socket_file_bind(int fd, const struct sockaddr_un *un, struct socket_file **file,
                 struct stat *created)
{
    int rc;

    *file = malloc(sizeof(**file));
    if (!*file)
        return -ENOMEM;
    rc = socket_file_create(fd, un, *file, created);
    if (rc) {
        free(*file);
        *file = NULL;
    }
    return rc;
}

static void
socket_file_unlink(const struct socket_file *file)
{
    struct stat st;

    if (lstat(file->path, &st) == 0 && st.st_dev == file->dev && st.st_ino == file->ino)
        (void)unlink(file->path);
}

void
socket_file_remove_all(void)
{
    for (const struct socket_file *file = socket_files; file; file = file->next)
        socket_file_unlink(file);
}

void
socket_file_remove(struct socket_file *file)
{
    struct socket_file **at = &socket_files;
    sigset_t before;

    socket_file_block_signals(&before);
    socket_file_unlink(file);
    while (*at != file)
        at = &(*at)->next;
    *at = file->next;
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    free(file);
}
