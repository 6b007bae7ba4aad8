#include "worker/loop_log.h"

#include <stdio.h>

#include <event2/event.h>

#include "shm/log_summary.h"
#include "worker/last_words.h"

enum { LOOP_LOG_BYTES = 256 };

static char loop_log_error[LOOP_LOG_BYTES];

static void
loop_log_on_line(int severity, const char *text)
{
    static struct log_summary warnings;

    if (severity == EVENT_LOG_ERR) /* loop_log_on_fatal is next */
        snprintf(loop_log_error, sizeof(loop_log_error), "%s", text);
    else if (severity == EVENT_LOG_WARN)
        log_summary_add(&warnings, LOG_WARN, "libevent: %s", text);
    else if (severity == EVENT_LOG_MSG)
        log_event("libevent: %s", text);
}

static void
loop_log_on_fatal(int error)
{
    last_words_die("libevent cannot go on: %s (%d)", loop_log_error, error);
}

void
loop_log_open(void)
{
    event_set_log_callback(loop_log_on_line);
    event_set_fatal_callback(loop_log_on_fatal);
}
