#include "shm/util/output.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

int
output_end(const char *program)
{
    int error = EIO; /* when a write failed earlier and nothing is left to write */

    if (fflush(stdout) != 0)
        error = errno;
    else if (!ferror(stdout))
        return 0;
    fprintf(stderr, "%s: cannot write to standard output: %s\n", program, strerror(error));
    return -error;
}
