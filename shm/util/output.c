#include "shm/util/output.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "shm/util/program.h"

int
output_fill_standard(void)
{
    for (int fd = 0; fd <= STDERR_FILENO; fd++) {
        int filled = fcntl(fd, F_GETFD);
        if (filled < 0)
            filled = open("/dev/null", fd == STDOUT_FILENO ? O_RDONLY : O_RDWR);
        if (filled < 0)
            return fd;
    }
    return -1;
}

int
output_begin(void)
{
    int closed = output_fill_standard();
    int error = errno;

    if (closed < 0)
        return 0;
    program_complain("cannot open /dev/null in the place of descriptor %d, which is closed: %s",
                     closed, strerror(error));
    return -error;
}

int
output_end(void)
{
    int error = EIO; /* when a write failed earlier and nothing is left to write */

    if (fflush(stdout) != 0)
        error = errno;
    else if (!ferror(stdout))
        return 0;
    program_complain("cannot write to standard output: %s", strerror(error));
    return -error;
}
