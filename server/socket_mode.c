#define _GNU_SOURCE
#include "server/socket_mode.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum {
    SOCKET_MODE_DIGITS = 4,
    SOCKET_MODE_MAX = 0777,
    SOCKET_MODE_ENTRY_BYTES = 4096,         /* of a group with its members, at first */
    SOCKET_MODE_ENTRY_MAX_BYTES = 16 << 20, /* then it is given up */
};

static const gid_t socket_mode_no_group = (gid_t)-1; /* what chown(2) takes for "as it is" */

static bool
socket_mode_parse_mode(const char *text, size_t bytes, int *mode)
{
    *mode = 0;
    for (size_t i = 0; i < bytes; i++) {
        if (text[i] < '0' || text[i] > '7')
            return false;
        *mode = *mode * 8 + text[i] - '0';
    }
    return bytes > 0 && bytes <= SOCKET_MODE_DIGITS && *mode <= SOCKET_MODE_MAX;
}

/* -ENOENT: there is no such group, or it cannot be looked up. */
static int
socket_mode_find_name(const char *name, gid_t *gid)
{
    struct group entry;
    struct group *found = NULL;
    char *buffer = NULL;
    int error = ERANGE;

    for (size_t bytes = SOCKET_MODE_ENTRY_BYTES;
         error == ERANGE && bytes <= SOCKET_MODE_ENTRY_MAX_BYTES; bytes *= 2) {
        free(buffer);
        buffer = malloc(bytes);
        error = buffer ? getgrnam_r(name, &entry, buffer, bytes, &found) : ENOMEM;
    }
    if (found)
        *gid = found->gr_gid;
    free(buffer);
    return found ? 0 : -ENOENT;
}

/* A number need not have a name. */
static int
socket_mode_find_group(const char *group, gid_t *gid)
{
    unsigned long number;
    char *end;

    *gid = socket_mode_no_group;
    if (!group[0])
        return 0;
    errno = 0;
    number = strtoul(group, &end, 10);
    if (isdigit((unsigned char)group[0]) && !*end) {
        *gid = (gid_t)number;
        return errno || number >= UINT32_MAX ? -ENOENT : 0;
    }
    return socket_mode_find_name(group, gid);
}

static bool
socket_mode_parse_group(const char *text, size_t bytes, char group[SOCKET_MODE_GROUP_BYTES])
{
    gid_t gid;

    if (bytes == 0 || bytes >= SOCKET_MODE_GROUP_BYTES)
        return false;
    memcpy(group, text, bytes);
    group[bytes] = '\0';
    return socket_mode_find_group(group, &gid) == 0;
}

const char *
socket_mode_parse(const char *text, struct socket_mode *mode)
{
    *mode = (struct socket_mode){.mode = SOCKET_MODE_NOT_GIVEN};
    while (*text) {
        const char *word = text + 1;
        size_t bytes = strcspn(word, ",");

        if (strncmp(word, "mode=", 5) == 0) {
            if (mode->mode != SOCKET_MODE_NOT_GIVEN)
                return "one mode=";
            if (!socket_mode_parse_mode(word + 5, bytes - 5, &mode->mode))
                return "octal permissions up to 777 behind mode=";
        } else if (strncmp(word, "group=", 6) == 0) {
            if (mode->group[0])
                return "one group=";
            if (!socket_mode_parse_group(word + 6, bytes - 6, mode->group))
                return "a group of this machine, or its number, behind group=";
        } else {
            return "mode= or group= behind the comma after a path";
        }
        text = word + bytes;
    }
    if (mode->group[0] && mode->mode == SOCKET_MODE_NOT_GIVEN)
        mode->mode = SOCKET_MODE_OF_GROUP;
    return NULL;
}

bool
socket_mode_is_given(const struct socket_mode *mode)
{
    return mode->mode != SOCKET_MODE_NOT_GIVEN;
}

/* bind(2) takes the permissions of the file from those of the socket and the umask. */
int
socket_mode_hide(const struct socket_mode *mode, int fd)
{
    return socket_mode_is_given(mode) && fchmod(fd, 0) != 0 ? -errno : 0;
}

int
socket_mode_open(const char *path, const struct stat *known)
{
    int file = open(path, O_PATH | O_NOFOLLOW | O_CLOEXEC);
    struct stat st;
    int rc = 0;

    if (file < 0)
        return -errno;
    if (fstat(file, &st) != 0)
        rc = -errno;
    else if (st.st_dev != known->st_dev || st.st_ino != known->st_ino)
        rc = -ESTALE;
    if (!rc)
        return file;
    close(file);
    return rc;
}

int
socket_mode_set(int file, mode_t mode)
{
    char path[32];

    snprintf(path, sizeof(path), "/proc/self/fd/%d", file); /* fchmod(2) refuses O_PATH */
    return chmod(path, mode) != 0 ? -errno : 0;
}

static int
socket_mode_change(const struct socket_mode *mode, int file)
{
    gid_t gid;

    if (socket_mode_find_group(mode->group, &gid) != 0)
        return -ENOENT; /* it was there when the options were checked */
    if (fchownat(file, "", (uid_t)-1, gid, AT_EMPTY_PATH) != 0)
        return -errno;
    return socket_mode_set(file, (mode_t)mode->mode);
}

int
socket_mode_apply(const struct socket_mode *mode, const char *path, const struct stat *created)
{
    int file;
    int rc;

    if (!socket_mode_is_given(mode))
        return 0;
    file = socket_mode_open(path, created);
    if (file < 0)
        return file;
    rc = socket_mode_change(mode, file);
    close(file);
    return rc;
}
