#include "shm/log.h"

#include <errno.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { LOG_LINE_BYTES = 1024 };

static char log_role[32];
static enum log_level log_highest = LOG_STATUS;

void
log_open(const char *role, enum log_level highest)
{
    snprintf(log_role, sizeof(log_role), "%s", role);
    log_highest = highest;
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

/* Without waiting, although stderr's description is not ours to make non-blocking: a pipe or a
 * terminal that poll calls writable has room for a line. */
static void
log_put(const char *line, size_t bytes)
{
    static unsigned dropped;
    struct pollfd out = {.fd = STDERR_FILENO, .events = POLLOUT};
    char note[64];

    if (poll(&out, 1, 0) != 1) {
        dropped++;
        return;
    }
    if (dropped) {
        int note_bytes =
            snprintf(note, sizeof(note), "crier: %u lines of log were dropped\n", dropped);
        dropped = 0;
        (void)!write(STDERR_FILENO, note, (size_t)note_bytes);
    }
    while (write(STDERR_FILENO, line, bytes) < 0 && errno == EINTR)
        ;
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
    log_put(line, bytes);
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
