#include "shm/counter.h"

#include <stddef.h>

static const struct {
    const char *name;
    const char *help;
} counter_table[COUNTER_COUNT] = {
#define COUNTER(name, help) {#name, help},
#include "shm/counters.def"
#undef COUNTER
};

const char *
counter_name(enum counter counter)
{
    return (unsigned)counter < COUNTER_COUNT ? counter_table[counter].name : NULL;
}

const char *
counter_help(enum counter counter)
{
    return (unsigned)counter < COUNTER_COUNT ? counter_table[counter].help : NULL;
}
