#include "worker/proto/wide.h"

#include <assert.h>

#include "worker/proto/wide_avx2.h"
#include "worker/proto/wide_portable.h"
#include "worker/proto/wide_sse2.h"

const struct wide *const wide_table[] = {
#ifdef __x86_64__
    &wide_avx2,
    &wide_sse2,
#endif
    &wide_portable,
    NULL,
};

const struct wide *wide_now = &wide_portable; /* a call before wide_choose is right, too */

__attribute__((constructor)) static void
wide_choose(void)
{
    for (const struct wide *const *wide = wide_table; *wide; wide++) {
        if ((*wide)->runs_here()) {
            wide_now = *wide;
            return;
        }
    }
}

void
wide_use(const struct wide *wide)
{
    assert(wide->runs_here());
    wide_now = wide;
}
