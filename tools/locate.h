/*
 * locate.h: finds the segment of a running server, or opens an image of one.
 *
 * Role:     tools; looks into /proc and attaches read-only.
 * Owns:     the descriptor and the mapping, until locate_close.
 * Errors:   false, after one sentence on stderr.
 * Context:  main thread.
 */
#ifndef CRIER_TOOLS_LOCATE_H
#define CRIER_TOOLS_LOCATE_H

#include <stdbool.h>
#include <sys/types.h>

#include "shm/segment.h"

struct located {
    struct segment segment; /* read-only */
    int fd;
    const char *image; /* the file's name; NULL: a running server */
};

/* `what` is a process id, a file, or NULL for the one server that runs. Borrowed. */
bool locate(struct located *located, const char *what) __attribute__((warn_unused_result));
void locate_close(struct located *located);

#endif
