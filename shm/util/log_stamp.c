#include "shm/util/log_stamp.h"

#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <time.h>
#include <unistd.h>

#include "shm/atomic.h"
#include "shm/clock.h"
#include "shm/util/inherited.h"

enum { LOG_STAMP_ERA_DAYS = 146097, LOG_STAMP_MARCH_DAYS = 719468 };

enum log_stamp_decision { LOG_STAMP_UNDECIDED, LOG_STAMP_WITHOUT, LOG_STAMP_WITH };

struct log_date {
    unsigned year, month, day;
};

/* Days after 1970 began to a date of the Gregorian calendar, by years that begin with March, so that the
 * leap day is the last of its year, in eras of 400 years. 719468 days lie between March of the year 0
 * and 1970. */
static struct log_date
log_stamp_date(uint64_t days_since_1970)
{
    uint64_t days = days_since_1970 + LOG_STAMP_MARCH_DAYS;
    uint64_t era = days / LOG_STAMP_ERA_DAYS;
    unsigned in_era = (unsigned)(days % LOG_STAMP_ERA_DAYS);
    unsigned years = (in_era - in_era / 1460 + in_era / 36524 - in_era / 146096) / 365;
    unsigned in_year = in_era - (365 * years + years / 4 - years / 100);
    unsigned month = (5 * in_year + 2) / 153; /* 0: March */
    bool is_next_year = month >= 10;

    return (struct log_date){
        .year = (unsigned)era * 400 + years + is_next_year,
        .month = is_next_year ? month - 9 : month + 3,
        .day = in_year - (153 * month + 2) / 5 + 1,
    };
}

size_t
log_stamp_format(char to[LOG_STAMP_BYTES], uint64_t realtime_ns)
{
    uint64_t ms = realtime_ns / 1000000;
    unsigned in_day = (unsigned)(ms / 1000 % 86400);
    struct log_date date = log_stamp_date(ms / 86400000);
    int used =
        snprintf(to, LOG_STAMP_BYTES, "%04u-%02u-%02uT%02u:%02u:%02u.%03uZ ", date.year, date.month,
                 date.day, in_day / 3600, in_day / 60 % 60, in_day % 60, (unsigned)(ms % 1000));

    return used < LOG_STAMP_BYTES ? (size_t)used : 0;
}

size_t
log_stamp(char to[LOG_STAMP_BYTES])
{
    static uint32_t decided; /* two threads may decide it at once, and decide the same */
    uint32_t decision = atomic_load_relaxed(&decided);

    if (decision == LOG_STAMP_UNDECIDED) {
        decision = inherited_is_terminal(STDERR_FILENO) || inherited_is_journal(STDERR_FILENO)
                       ? LOG_STAMP_WITHOUT
                       : LOG_STAMP_WITH;
        atomic_store_relaxed(&decided, decision);
    }
    return decision == LOG_STAMP_WITH ? log_stamp_format(to, clock_ns(CLOCK_REALTIME)) : 0;
}
