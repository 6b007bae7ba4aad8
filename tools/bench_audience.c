#include "tools/bench_audience.h"

#include <errno.h>
#include <stdlib.h>

struct bench_audience_entry {
    uint64_t tag; /* the message's number and 1; 0: none yet */
    uint64_t last_ns;
    uint32_t have;
};

int
bench_audience_init(struct bench_audience *audience, uint32_t size)
{
    audience->size = size;
    audience->entries = calloc(BENCH_AUDIENCE_MESSAGES, sizeof(*audience->entries));
    return audience->entries ? 0 : -ENOMEM;
}

void
bench_audience_fini(struct bench_audience *audience)
{
    free(audience->entries);
}

uint64_t
bench_audience_note(struct bench_audience *audience, uint64_t number, uint64_t at_ns)
{
    struct bench_audience_entry *entry = &audience->entries[number % BENCH_AUDIENCE_MESSAGES];

    if (entry->tag > number + 1)
        return 0;
    if (entry->tag < number + 1)
        *entry = (struct bench_audience_entry){.tag = number + 1};
    if (at_ns > entry->last_ns)
        entry->last_ns = at_ns;
    return ++entry->have == audience->size ? entry->last_ns : 0;
}
