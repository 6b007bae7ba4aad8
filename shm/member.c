#include "shm/member.h"

#include "shm/atomic.h"

const char *
member_state_name(enum member_state state)
{
    switch (state) {
    case MEMBER_EMPTY: return "empty";
    case MEMBER_STARTING: return "starting";
    case MEMBER_READY: return "ready";
    case MEMBER_QUIET: return "quiet";
    }
    return "unknown";
}

const char *
phase_name(enum phase phase)
{
    switch (phase) {
    case PHASE_SERVE: return "serve";
    case PHASE_QUIET: return "quiet";
    case PHASE_DELIVER: return "deliver";
    case PHASE_ABORT: return "abort";
    }
    return "unknown";
}

/* They were written by a process that was dying: none of the bytes is trusted. */
const char *
member_last_words(const struct member_shm *member, uint32_t life, char words[LAST_WORDS_BYTES])
{
    uint32_t whose = atomic_load_relaxed(&member->last_words_life);
    size_t i = 0;

    if (whose != 0 && (life == 0 || whose == life)) {
        for (; i < LAST_WORDS_BYTES - 1; i++) {
            char byte = atomic_load_relaxed(&member->last_words[i]);
            if (byte == '\0')
                break;
            words[i] = byte;
        }
    }
    words[i] = '\0';
    return words;
}

uint64_t
member_clients_open(const struct segment *segment)
{
    uint64_t sum = 0;

    for (uint32_t i = MEMBER_FIRST_WORKER; i < segment->geometry.member_count; i++)
        sum += atomic_load_relaxed(&segment->members[i].clients_open);
    return sum;
}

uint64_t
member_counter_sum(const struct segment *segment, enum counter counter)
{
    uint64_t sum = 0;

    for (uint32_t i = 0; i < segment->geometry.member_count; i++)
        sum += atomic_load_relaxed(&segment->members[i].counters[counter]);
    return sum;
}

void
member_histogram_sum(const struct segment *segment, enum histogram histogram,
                     struct histogram_shm *sum)
{
    *sum = (struct histogram_shm){0};
    for (uint32_t i = 0; i < segment->geometry.member_count; i++)
        histogram_merge(sum, &segment->members[i].histograms[histogram]);
}
