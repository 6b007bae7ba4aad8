#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "worker/proto/deflate.h"
#include "worker/proto/inflate.h"

static void
test_deflate_what_was_compressed_inflates_to_the_same(void **state)
{
    struct deflate *deflater = deflate_new();
    struct inflate *inflater = inflate_new();
    uint8_t wire[1024], back[1024];
    size_t bytes, made;

    (void)state;
    for (unsigned bits = 9; bits <= 15; bits++) {
        bytes = deflate_message(deflater, bits, "Hello Hello Hello", 17, wire, 512);
        assert_true(bytes > 0);
        inflate_begin(inflater, wire, bytes);
        assert_int_equal(inflate_more(inflater, back, sizeof(back), &made), INFLATE_END);
        assert_int_equal(made, 17);
        assert_memory_equal(back, "Hello Hello Hello", 17);
    }
    deflate_free(deflater);
    inflate_free(inflater);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_deflate_what_was_compressed_inflates_to_the_same),
    };

    return cmocka_run_group_tests_name("deflate", tests, NULL, NULL);
}
