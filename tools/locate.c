#include "tools/locate.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "shm/atomic.h"
#include "shm/member.h"
#include "shm/util/program.h"

enum { LOCATE_PATH_BYTES = 64, LOCATE_SERVERS_MAX = 16 };

#define LOCATE_LINK "/memfd:crier"

static bool
locate_is_number(const char *text)
{
    return *text && strspn(text, "0123456789") == strlen(text);
}

static bool
locate_attach(struct located *located, const char *name)
{
    int rc = segment_attach(&located->segment, located->fd, true);
    const char *why = "it cannot be mapped";

    if (rc == 0)
        return true;
    if (rc == -EPROTO)
        why = "it is not a segment of this version of crier";
    else if (rc == -EMSGSIZE)
        why = "it is too short: the file was cut, or is not an image";
    else if (rc == -EBADMSG)
        why = "it has sizes that crier never writes";
    program_complain("cannot read %s: %s", name, why);
    close(located->fd);
    return false;
}

/* A /proc that is mounted with hidepid shows no process of another user; kill(2) knows them. */
static bool
locate_is_hidden(pid_t pid)
{
    int saved = errno;
    bool is_hidden = kill(pid, 0) != 0 && errno == EPERM;

    errno = saved;
    return is_hidden;
}

/* The descriptor of the segment in a process, opened anew: -errno, or -ENODATA when it has none. */
static int
locate_open_of(pid_t pid)
{
    char path[LOCATE_PATH_BYTES];
    char target[LOCATE_PATH_BYTES];
    const struct dirent *entry;
    DIR *folder;
    int fd = -ENODATA;

    snprintf(path, sizeof(path), "/proc/%d/fd", (int)pid);
    folder = opendir(path);
    if (!folder)
        return errno == ENOENT && locate_is_hidden(pid) ? -EACCES : -errno;
    /* cppcheck-suppress readdirCalled ; one thread */
    while (fd == -ENODATA && (entry = readdir(folder))) {
        ssize_t bytes = readlinkat(dirfd(folder), entry->d_name, target, sizeof(target) - 1);
        if (bytes < (ssize_t)strlen(LOCATE_LINK) ||
            strncmp(target, LOCATE_LINK, strlen(LOCATE_LINK)) != 0)
            continue;
        fd = openat(dirfd(folder), entry->d_name, O_RDONLY | O_CLOEXEC);
        if (fd < 0)
            fd = -errno;
    }
    closedir(folder);
    return fd;
}

static bool
locate_pid(struct located *located, pid_t pid)
{
    char name[LOCATE_PATH_BYTES];

    located->fd = locate_open_of(pid);
    snprintf(name, sizeof(name), "the segment of process %d", (int)pid);
    if (located->fd >= 0)
        return locate_attach(located, name);
    if (located->fd == -ENOENT)
        program_complain("there is no process %d", (int)pid);
    else if (located->fd == -ENODATA)
        program_complain("process %d is not a crier server", (int)pid);
    else
        program_complain("cannot look into process %d: %s; run this as its user or root", (int)pid,
                         strerror(-located->fd));
    return false;
}

/* Of all the processes that have a segment open only its master is one server. */
static bool
locate_is_master(pid_t pid)
{
    struct segment segment;
    int fd = locate_open_of(pid);
    bool is;

    if (fd < 0)
        return false;
    is = segment_attach(&segment, fd, true) == 0;
    if (is) {
        is = atomic_load_relaxed(&segment.members[MEMBER_MASTER].pid) == (uint32_t)pid;
        segment_detach(&segment);
    }
    close(fd);
    return is;
}

static bool
locate_running(struct located *located)
{
    pid_t found[LOCATE_SERVERS_MAX];
    const struct dirent *entry;
    char list[LOCATE_SERVERS_MAX * 12] = "";
    size_t used = 0;
    unsigned count = 0;
    DIR *folder = opendir("/proc");

    /* cppcheck-suppress readdirCalled ; one thread */
    while (folder && count < LOCATE_SERVERS_MAX && (entry = readdir(folder))) {
        pid_t pid = (pid_t)strtol(entry->d_name, NULL, 10);
        if (locate_is_number(entry->d_name) && locate_is_master(pid))
            found[count++] = pid;
    }
    if (folder)
        closedir(folder);
    if (count == 1)
        return locate_pid(located, found[0]);
    if (count == 0) {
        program_complain("no server runs that this user may look into");
        return false;
    }
    for (unsigned i = 0; i < count && used < sizeof(list); i++)
        used += (size_t)snprintf(list + used, sizeof(list) - used, " %d", (int)found[i]);
    program_complain("name one of the servers that run:%s", list);
    return false;
}

bool
locate(struct located *located, const char *what)
{
    *located = (struct located){.fd = -1};
    if (!what)
        return locate_running(located);
    if (locate_is_number(what))
        return locate_pid(located, (pid_t)strtol(what, NULL, 10));
    located->image = what;
    located->fd = open(what, O_RDONLY | O_CLOEXEC);
    if (located->fd < 0) {
        program_complain("cannot open %s: %s", what, strerror(errno));
        return false;
    }
    return locate_attach(located, what);
}

void
locate_close(struct located *located)
{
    segment_detach(&located->segment);
    close(located->fd);
}
