/*
 * image.h: writes a segment to a file that can be attached like it.
 *
 * Role:     tools.
 * Errors:   false, after one sentence on stderr; a file that is not complete is removed.
 * Context:  main thread.
 *
 * A running server goes on meanwhile. Words are copied first, then records, then the floors of the
 * publishers once more: a record that was overwritten in between is below its floor, and so gone,
 * in the image.
 */
#ifndef CRIER_TOOLS_IMAGE_H
#define CRIER_TOOLS_IMAGE_H

#include "tools/locate.h"

/* `path` must not exist; the file is the user's alone, for it holds messages. */
bool image_save(const struct located *located, const char *path)
    __attribute__((warn_unused_result));

#endif
