#include "tools/image.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "shm/atomic.h"
#include "shm/util/escape.h"
#include "shm/util/program.h"

enum { IMAGE_CHUNK_BYTES = 1 << 16 };

static int
image_write(int to, const uint8_t *data, size_t bytes, uint64_t at)
{
    while (bytes > 0) {
        ssize_t n = pwrite(to, data, bytes, (off_t)at);
        if (n < 0 && errno != EINTR)
            return -errno;
        if (n > 0) {
            data += n;
            bytes -= (size_t)n;
            at += (uint64_t)n;
        }
    }
    return 0;
}

/* By descriptor, not by mapping: looking at a page that was never used would make it. */
static int
image_copy(int to, int from, uint64_t begin, uint64_t end)
{
    static uint8_t chunk[IMAGE_CHUNK_BYTES];

    while (begin < end) {
        off_t data = lseek(from, (off_t)begin, SEEK_DATA);
        uint64_t left;
        ssize_t n;
        int rc;

        if (data < 0)
            return errno == ENXIO ? 0 : -errno;
        begin = (uint64_t)data;
        if (begin >= end)
            return 0;
        left = end - begin;
        n = pread(from, chunk, left < sizeof(chunk) ? left : sizeof(chunk), (off_t)begin);
        if (n <= 0)
            return n < 0 ? -errno : -EIO;
        rc = image_write(to, chunk, (size_t)n, begin);
        if (rc)
            return rc;
        begin += (uint64_t)n;
    }
    return 0;
}

static int
image_copy_floors(int to, const struct segment *segment)
{
    int rc = 0;

    for (uint32_t i = 0; i < segment->geometry.member_count && !rc; i++) {
        uint64_t floor = atomic_load_acquire(&segment->members[i].floor_seq);
        rc = image_write(to, (const uint8_t *)&floor, sizeof(floor),
                         segment->geometry.members_off + i * sizeof(struct member_shm) +
                             offsetof(struct member_shm, floor_seq));
    }
    return rc;
}

bool
image_save(const struct located *located, const char *path)
{
    char shown[4 * PATH_MAX];
    const struct geometry_shm *geometry = &located->segment.geometry;
    int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    int rc;

    if (fd < 0) {
        program_complain("cannot create %s: %s", path, strerror(errno));
        return false;
    }
    rc = ftruncate(fd, (off_t)geometry->total_bytes) != 0 ? -errno : 0;
    if (!rc)
        rc = image_copy(fd, located->fd, 0, geometry->arenas_off);
    atomic_fence();
    if (!rc)
        rc = image_copy(fd, located->fd, geometry->arenas_off, geometry->total_bytes);
    atomic_fence();
    if (!rc)
        rc = image_copy_floors(fd, &located->segment);
    if (close(fd) != 0 && !rc)
        rc = -errno;
    if (rc) {
        program_complain("cannot write %s: %s", path, strerror(-rc));
        unlink(path);
        return false;
    }
    escape_text(shown, sizeof(shown), path, strlen(path), ESCAPE_LINE);
    printf("saved to %s: read it with `%s %s`\n", shown, program_name(), shown);
    return true;
}
