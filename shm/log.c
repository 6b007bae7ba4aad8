#include "shm/log.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "shm/log_summary.h"
#include "shm/util/escape.h"
#include "shm/util/inherited.h"
#include "shm/util/log_out.h"
#include "shm/util/log_stamp.h"
#include "shm/util/program.h"

enum { LOG_FINISH_MS = 1000 };

static char log_role[32];
static enum log_level log_highest = LOG_STATUS;

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
}

void
log_begin(void)
{
    log_out_open();
}

void
log_child(const char *role)
{
    log_set_role(role);
    log_out_child();
}

void
log_tick(void)
{
    log_summary_write_due();
    log_out_retry();
}

bool
log_is_waiting(void)
{
    return log_out_is_waiting() || log_summary_is_waiting();
}

bool
log_lacks_thread(void)
{
    return log_out_lacks_thread();
}

void
log_finish(void)
{
    log_summary_write_all();
    log_out_finish(LOG_FINISH_MS);
}

enum log_level
log_level_of(const struct conf_shm *conf)
{
    if (conf->quiet)
        return LOG_WARN;
    return conf->verbose || log_is_watched() ? LOG_EVENT : LOG_STATUS;
}

bool
log_is_watched(void)
{
    static enum { UNKNOWN, NOT_WATCHED, WATCHED } watched;

    if (watched == UNKNOWN)
        watched = inherited_is_terminal(STDERR_FILENO) ? WATCHED : NOT_WATCHED;
    return watched == WATCHED;
}

bool
log_wants(enum log_level level)
{
    return level <= log_highest;
}

static void
log_write(enum log_level level, int error, const char *format, va_list args)
{
    char text[2 * LOG_OUT_LINE_BYTES];
    char line[LOG_OUT_LINE_BYTES];
    int used;
    size_t bytes;

    if (!log_wants(level))
        return;
    used = (int)log_stamp(text);
    used += snprintf(text + used, sizeof(text) - (size_t)used, "%s[%d] %s: ", program_name(),
                     (int)getpid(), log_role);
    used += vsnprintf(text + used, sizeof(text) - (size_t)used, format, args);
    if (error && used < (int)sizeof(text))
        snprintf(text + used, sizeof(text) - (size_t)used, ": %s", strerror(error));
    /* What comes from outside ends up in lines: no control character of it reaches a terminal. */
    bytes = escape_text(line, sizeof(line), text, strlen(text), ESCAPE_LINE);
    line[bytes++] = '\n';
    log_out_put(line, bytes, level == LOG_EVENT);
}

void
log_line(enum log_level level, const char *format, ...)
{
    va_list args;

    va_start(args, format);
    log_write(level, 0, format, args);
    va_end(args);
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
