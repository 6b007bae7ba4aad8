#include "tools/bench_track.h"

enum { TRACK_BITS = 64 };

static void
bench_track_advance(struct bench_track *track, uint32_t to, struct bench_faults *faults)
{
    uint32_t by = to - track->next;

    faults->missing += by;
    track->seen = by < TRACK_BITS ? track->seen << by : 0;
    track->next = to;
}

void
bench_track_note(struct bench_track *track, uint32_t seq, struct bench_faults *faults)
{
    uint32_t behind;

    if (seq >= track->next) {
        bench_track_advance(track, seq, faults);
        track->seen = track->seen << 1 | 1;
        track->next++;
        return;
    }
    behind = track->next - 1 - seq;
    if (behind >= TRACK_BITS || track->seen >> behind & 1) {
        faults->duplicates++;
        return;
    }
    track->seen |= UINT64_C(1) << behind;
    faults->missing--;
    faults->late++;
}

void
bench_track_end(struct bench_track *track, uint32_t sent, struct bench_faults *faults)
{
    if (track->next < sent)
        bench_track_advance(track, sent, faults);
}
