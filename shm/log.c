#include "shm/log.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { LOG_LINE_BYTES = 1024 };

static char log_role[32];
static enum log_level log_highest = LOG_STATUS;
static int log_fd = STDERR_FILENO;

/* How long a line may wait for room. The master alone logs at
 * LOG_STATUS, when it starts and when it has stopped. */
static const int log_patience_ms[] = {
    [LOG_ERROR] = 100,
    [LOG_WARN] = 100,
    [LOG_STATUS] = 1000,
    [LOG_EVENT] = 0,
};

void
log_set_role(const char *role)
{
    snprintf(log_role, sizeof(log_role), "%s", role);
}

void
log_open(const char *role, enum log_level highest)
{
    log_set_role(role);
    log_highest = highest;
    log_close();
    if (isatty(STDERR_FILENO))
        log_fd = open("/proc/self/fd/2", O_WRONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
    if (log_fd < 0) /* somebody else's terminal */
        log_fd = STDERR_FILENO;
}

void
log_close(void)
{
    if (log_fd != STDERR_FILENO)
        close(log_fd);
    log_fd = STDERR_FILENO;
}

enum log_level
log_level_of(const struct conf_shm *conf)
{
    if (conf->quiet)
        return LOG_WARN;
    return conf->verbose || isatty(STDERR_FILENO) ? LOG_EVENT : LOG_STATUS;
}

bool
log_wants(enum log_level level)
{
    return level <= log_highest;
}

/* Clients' bytes may end up in a line: nothing of theirs reaches the terminal as a control. */
static void
log_clean(char *line, size_t bytes)
{
    for (size_t i = 0; i < bytes; i++) {
        if ((unsigned char)line[i] < 0x20 || line[i] == 0x7f)
            line[i] = '?';
    }
}

/* Without waiting for long, although stderr's description is shared and so not ours to make non-blocking: a
 * pipe that poll calls writable has room for a whole line; of a terminal that is not so, and there it
 * goes through a description of our own. */
static void
log_put(enum log_level level, const char *line, size_t bytes)
{
    static unsigned dropped;
    static bool cut;      /* the last line has no end */
    static bool given_up; /* a line has waited in vain: no other waits before one gets through */
    struct pollfd out = {.fd = log_fd, .events = POLLOUT};
    char note[64];
    int note_bytes;
    ssize_t written;

    if (poll(&out, 1, given_up ? 0 : log_patience_ms[level]) != 1) {
        dropped++;
        given_up |= log_patience_ms[level] > 0;
        return;
    }
    given_up = false;
    if (dropped) {
        note_bytes = snprintf(note, sizeof(note), "%scrier: %u lines of log were dropped\n",
                              cut ? "\n" : "", dropped);
        if (write(log_fd, note, (size_t)note_bytes) != note_bytes) {
            dropped++;
            return;
        }
        dropped = 0;
    }
    written = write(log_fd, line, bytes);
    cut = written > 0 && written < (ssize_t)bytes; /* a file at its limit, or a full disk */
    dropped += written != (ssize_t)bytes;
}

static void
log_write(enum log_level level, int error, const char *format, va_list args)
{
    char line[LOG_LINE_BYTES];
    int used;
    size_t bytes;

    if (!log_wants(level))
        return;
    used = snprintf(line, sizeof(line), "crier[%d] %s: ", (int)getpid(), log_role);
    used += vsnprintf(line + used, sizeof(line) - (size_t)used, format, args);
    if (error && used < (int)sizeof(line))
        used += snprintf(line + used, sizeof(line) - (size_t)used, ": %s", strerror(error));
    bytes = used < (int)sizeof(line) - 1 ? (size_t)used : sizeof(line) - 2;
    log_clean(line, bytes);
    line[bytes++] = '\n';
    log_put(level, line, bytes);
}

#define LOG_FUNCTION(name, level, error)                                                           \
    void name(const char *format, ...)                                                             \
    {                                                                                              \
        int saved = errno;                                                                         \
        va_list args;                                                                              \
        va_start(args, format);                                                                    \
        log_write(level, error, format, args);                                                     \
        va_end(args);                                                                              \
        errno = saved;                                                                             \
    }

LOG_FUNCTION(log_errorx, LOG_ERROR, 0)
LOG_FUNCTION(log_error, LOG_ERROR, errno)
LOG_FUNCTION(log_warnx, LOG_WARN, 0)
LOG_FUNCTION(log_warn, LOG_WARN, errno)
LOG_FUNCTION(log_status, LOG_STATUS, 0)
LOG_FUNCTION(log_event, LOG_EVENT, 0)
