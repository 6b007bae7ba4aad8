#define _GNU_SOURCE
#include "server/cgroup.h"

#include <errno.h>
#include <fcntl.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { CGROUP_FILE_BYTES = 8192 };

/* Version 1 writes "unlimited" as the largest whole number of pages. */
#define CGROUP_UNLIMITED (UINT64_MAX / 4)

/* A group, as a folder. */
struct cgroup_place {
    bool version_2;
    char folder[PATH_MAX];
    size_t top_bytes; /* of `folder`: the mount, above which nothing can be seen */
};

typedef bool (*cgroup_read_fn)(const struct cgroup_place *place, uint64_t swap_bytes,
                               struct cgroup_limit *found);

/* --- files --- */

static bool
cgroup_read_text(const char *path, char text[CGROUP_FILE_BYTES])
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t bytes;

    if (fd < 0)
        return false;
    do {
        bytes = read(fd, text, CGROUP_FILE_BYTES - 1);
    } while (bytes < 0 && errno == EINTR);
    close(fd);
    text[bytes > 0 ? bytes : 0] = '\0';
    return bytes > 0;
}

static bool
cgroup_path(const struct cgroup_place *place, const char *name, char path[PATH_MAX])
{
    int bytes = snprintf(path, PATH_MAX, "%s/%s", place->folder, name);

    return bytes > 0 && bytes < PATH_MAX;
}

/* The number in a file of the group; `otherwise` when there is none, as in "max". */
static uint64_t
cgroup_read_number(const struct cgroup_place *place, const char *name, uint64_t otherwise)
{
    char path[PATH_MAX];
    char text[CGROUP_FILE_BYTES];
    char *end;
    unsigned long long number;

    if (!cgroup_path(place, name, path) || !cgroup_read_text(path, text))
        return otherwise;
    errno = 0;
    number = strtoull(text, &end, 10);
    return errno || end == text ? otherwise : number;
}

/* The number behind `key` at the start of a line of memory.stat; 0 when there is none. */
static uint64_t
cgroup_read_stat(const struct cgroup_place *place, const char *key)
{
    char path[PATH_MAX];
    char text[CGROUP_FILE_BYTES];
    size_t bytes = strlen(key);

    if (!cgroup_path(place, "memory.stat", path) || !cgroup_read_text(path, text))
        return 0;
    for (const char *line = text; line; line = strchr(line, '\n')) {
        line += *line == '\n';
        if (strncmp(line, key, bytes) == 0 && line[bytes] == ' ')
            return strtoull(line + bytes, NULL, 10);
    }
    return 0;
}

/* --- where the process's group is --- */

static bool
cgroup_has_word(const char *list, const char *word)
{
    size_t bytes = strlen(word);

    for (; *list; list += strcspn(list, ","), list += *list == ',') {
        if (strncmp(list, word, bytes) == 0 && (list[bytes] == ',' || list[bytes] == '\0'))
            return true;
    }
    return false;
}

/* "4:memory:/a/b" for version 1, "0::/a/b" for version 2, which counts where version 1 does not have
 * the controller. */
static bool
cgroup_find_path(const char *root, const char *controller, bool *version_2, char path[PATH_MAX])
{
    char name[PATH_MAX];
    char *line = NULL;
    size_t room = 0;
    bool found = false;
    FILE *file;

    snprintf(name, sizeof(name), "%s/proc/self/cgroup", root);
    file = fopen(name, "re");
    while (file && getline(&line, &room, file) > 0) {
        char *list = strchr(line, ':');
        char *own = list ? strchr(list + 1, ':') : NULL;
        bool unified;

        if (!own)
            continue;
        list++;
        *own++ = '\0';
        own[strcspn(own, "\n")] = '\0';
        unified = list[0] == '\0';
        if (unified ? found : !cgroup_has_word(list, controller))
            continue;
        found = true;
        *version_2 = unified;
        snprintf(path, PATH_MAX, "%s", own);
        if (!unified)
            break;
    }
    free(line);
    if (file)
        fclose(file);
    return found;
}

/* Blanks and the like stand as \040 in mountinfo. */
static void
cgroup_unescape(char *text)
{
    char *to = text;

    for (const char *from = text; *from; to++) {
        unsigned code;
        if (*from == '\\' && sscanf(from + 1, "%3o", &code) == 1 && strlen(from) >= 4) {
            *to = (char)code;
            from += 4;
        } else {
            *to = *from++;
        }
    }
    *to = '\0';
}

/* What stands behind `folder` in `path`: "" or "/...". NULL: `path` is not in it. */
static const char *
cgroup_below(const char *path, const char *folder)
{
    size_t bytes = strcmp(folder, "/") == 0 ? 0 : strlen(folder);

    if (strncmp(path, folder, bytes) != 0 || (path[bytes] && path[bytes] != '/'))
        return NULL;
    return strcmp(path + bytes, "/") == 0 ? "" : path + bytes;
}

/* A line of mountinfo: ID PARENT MAJOR:MINOR ROOT POINT OPTIONS... - TYPE SOURCE SUPEROPTIONS.
 * ROOT is the group that is mounted, at POINT. */
static bool
cgroup_match_mount(char *line, const char *controller, bool version_2, char **mounted, char **point)
{
    char *behind = strstr(line, " - ");
    char *word;
    char *rest = line;
    char *type;
    char *options = NULL;

    if (!behind)
        return false;
    *behind = '\0';
    for (int i = 0; i < 5; i++) {
        word = strtok_r(NULL, " ", &rest);
        if (!word)
            return false;
        if (i == 3)
            *mounted = word;
        *point = word;
    }
    rest = behind + 3;
    type = strtok_r(NULL, " ", &rest);
    for (int i = 0; i < 2; i++)
        options = strtok_r(NULL, " \n", &rest);
    cgroup_unescape(*mounted);
    cgroup_unescape(*point);
    if (!type || !options)
        return false;
    return version_2 ? strcmp(type, "cgroup2") == 0
                     : strcmp(type, "cgroup") == 0 && cgroup_has_word(options, controller);
}

/* A group that lies outside of what is mounted, as in some containers, is taken to be the mount. */
static bool
cgroup_find_place(const char *root, const char *controller, struct cgroup_place *place)
{
    char path[PATH_MAX];
    char name[PATH_MAX];
    char *line = NULL;
    size_t room = 0;
    bool found = false;
    FILE *file;

    if (!cgroup_find_path(root, controller, &place->version_2, path))
        return false;
    snprintf(name, sizeof(name), "%s/proc/self/mountinfo", root);
    file = fopen(name, "re");
    while (file && getline(&line, &room, file) > 0) {
        char *mounted = NULL;
        char *point = NULL;
        const char *below;
        int bytes;

        if (!cgroup_match_mount(line, controller, place->version_2, &mounted, &point))
            continue;
        below = cgroup_below(path, mounted);
        if (found && !below)
            continue;
        bytes = snprintf(place->folder, sizeof(place->folder), "%s%s%s", root, point,
                         below ? below : "");
        if (bytes < 0 || bytes >= (int)sizeof(place->folder))
            continue;
        place->top_bytes = strlen(root) + strlen(point);
        found = true;
        if (below)
            break;
    }
    free(line);
    if (file)
        fclose(file);
    return found;
}

/* --- limits --- */

static uint64_t
cgroup_less(uint64_t from, uint64_t bytes)
{
    return from > bytes ? from - bytes : 0;
}

static uint64_t
cgroup_min(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

static bool
cgroup_read_memory_1(const struct cgroup_place *place, uint64_t swap_bytes,
                     struct cgroup_limit *found)
{
    uint64_t cache = cgroup_read_stat(place, "total_active_file") +
                     cgroup_read_stat(place, "total_inactive_file");
    uint64_t both = cgroup_read_number(place, "memory.memsw.limit_in_bytes", UINT64_MAX);
    uint64_t both_used = cgroup_read_number(place, "memory.memsw.usage_in_bytes", 0);

    found->limit = cgroup_read_number(place, "memory.limit_in_bytes", UINT64_MAX);
    found->used = cgroup_less(cgroup_read_number(place, "memory.usage_in_bytes", 0), cache);
    found->left = cgroup_min(cgroup_less(found->limit, found->used) + swap_bytes,
                             cgroup_less(both, cgroup_less(both_used, cache)));
    return found->limit < CGROUP_UNLIMITED &&
           cgroup_path(place, "memory.limit_in_bytes", found->file);
}

/* Above memory.high nothing is killed, but each allocation is slowed down: no server is of use. */
static bool
cgroup_read_memory_2(const struct cgroup_place *place, uint64_t swap_bytes,
                     struct cgroup_limit *found)
{
    uint64_t cache =
        cgroup_read_stat(place, "active_file") + cgroup_read_stat(place, "inactive_file");
    uint64_t max = cgroup_read_number(place, "memory.max", UINT64_MAX);
    uint64_t high = cgroup_read_number(place, "memory.high", UINT64_MAX);
    uint64_t swap = cgroup_less(cgroup_read_number(place, "memory.swap.max", UINT64_MAX),
                                cgroup_read_number(place, "memory.swap.current", 0));

    found->limit = cgroup_min(max, high);
    found->used = cgroup_less(cgroup_read_number(place, "memory.current", 0), cache);
    found->left = cgroup_less(found->limit, found->used) + cgroup_min(swap, swap_bytes);
    return found->limit < CGROUP_UNLIMITED &&
           cgroup_path(place, high < max ? "memory.high" : "memory.max", found->file);
}

static bool
cgroup_read_memory(const struct cgroup_place *place, uint64_t swap_bytes,
                   struct cgroup_limit *found)
{
    return place->version_2 ? cgroup_read_memory_2(place, swap_bytes, found)
                            : cgroup_read_memory_1(place, swap_bytes, found);
}

static bool
cgroup_read_pids(const struct cgroup_place *place, uint64_t swap_bytes, struct cgroup_limit *found)
{
    (void)swap_bytes;
    found->limit = cgroup_read_number(place, "pids.max", UINT64_MAX);
    found->used = cgroup_read_number(place, "pids.current", 0);
    found->left = cgroup_less(found->limit, found->used);
    return found->limit < CGROUP_UNLIMITED && cgroup_path(place, "pids.max", found->file);
}

/* To the group above. Version 1 has groups whose limits do not hold for the groups in them. */
static bool
cgroup_go_up(struct cgroup_place *place)
{
    char *slash = strrchr(place->folder + place->top_bytes, '/');

    if (!slash)
        return false;
    *slash = '\0';
    return place->version_2 || cgroup_read_number(place, "memory.use_hierarchy", 1) != 0;
}

static bool
cgroup_find(const char *root, const char *controller, cgroup_read_fn read_limit,
            uint64_t swap_bytes, struct cgroup_limit *found)
{
    struct cgroup_place place;
    struct cgroup_limit limit;
    bool any = false;

    if (!cgroup_find_place(root, controller, &place))
        return false;
    do {
        if (read_limit(&place, swap_bytes, &limit) && (!any || limit.left < found->left)) {
            *found = limit;
            any = true;
        }
    } while (cgroup_go_up(&place));
    return any;
}

bool
cgroup_find_memory(const char *root, uint64_t swap_bytes, struct cgroup_limit *found)
{
    return cgroup_find(root, "memory", cgroup_read_memory, swap_bytes, found);
}

bool
cgroup_find_pids(const char *root, struct cgroup_limit *found)
{
    return cgroup_find(root, "pids", cgroup_read_pids, 0, found);
}
