/*
 * replay.c: the main of a fuzz target that was not built for fuzzing. Gives it each file of its
 * corpus, or the files on the command line.
 *
 *     build/release/tests/fuzz/fuzz_X [FILE...]      from the root of the tree
 */
#include <dirent.h>
#include <errno.h>

#include "tests/fuzz/fuzz.h"

#pragma weak LLVMFuzzerInitialize

enum { REPLAY_FILE_MAX_BYTES = 1 << 20 };

static void
replay_file(const char *path)
{
    static uint8_t room[REPLAY_FILE_MAX_BYTES];
    FILE *file = fopen(path, "rb");
    size_t bytes = file ? fread(room, 1, sizeof(room), file) : 0;
    uint8_t *exact;

    if (!file || ferror(file) || bytes == sizeof(room)) {
        fprintf(stderr, "cannot replay %s: %s\n", path, file ? "too long" : strerror(errno));
        exit(EXIT_FAILURE);
    }
    fclose(file);
    printf("%s\n", path); /* an input that aborts is named */
    fflush(stdout);
    exact = fuzz_copy(room, bytes);
    (void)LLVMFuzzerTestOneInput(exact, bytes);
    free(exact);
}

static int
replay_wanted(const struct dirent *entry)
{
    return entry->d_name[0] != '.';
}

static int
replay_folder(const char *folder)
{
    struct dirent **entries;
    int count = scandir(folder, &entries, replay_wanted, alphasort);

    if (count <= 0) {
        fprintf(stderr, "no corpus in %s: run this from the root of the tree\n", folder);
        return EXIT_FAILURE;
    }
    for (int i = 0; i < count; i++) {
        char path[512];

        snprintf(path, sizeof(path), "%s/%s", folder, entries[i]->d_name);
        replay_file(path);
        free(entries[i]);
    }
    free(entries);
    return EXIT_SUCCESS;
}

int
main(int argc, char **argv)
{
    char folder[256];

    if (LLVMFuzzerInitialize)
        (void)LLVMFuzzerInitialize(&argc, &argv);
    for (int i = 1; i < argc; i++)
        replay_file(argv[i]);
    if (argc > 1)
        return EXIT_SUCCESS;
    snprintf(folder, sizeof(folder), "tests/fuzz/corpus/%s",
             program_invocation_short_name + strlen("fuzz_"));
    return replay_folder(folder);
}
