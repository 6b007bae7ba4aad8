/*
 * The horizontal axis is logarithmic in what is left: 90 %, 99 %, 99.9 % are equally far apart, so
 * that the rare long ones are seen.
 */
#include "tools/bench_plot.h"
#include "shm/util/program.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

enum { POINTS_PER_TENTH = 40 };

bool
bench_plot_possible(void)
{
    const char *path = getenv("PATH");
    char file[4096];

    for (const char *at = path ? path : ""; *at; at += strspn(at, ":")) {
        int bytes = (int)strcspn(at, ":");

        snprintf(file, sizeof(file), "%.*s/gnuplot", bytes, at);
        if (access(file, X_OK) == 0)
            return true;
        at += bytes;
    }
    program_complain("--plot needs gnuplot, which is not installed (Debian's package "
                     "is gnuplot-nox)");
    return false;
}

/* 'text' as gnuplot reads it: a quote is written twice. */
static void
plot_quote(FILE *to, const char *text)
{
    fputc('\'', to);
    for (; *text; text++)
        fprintf(to, *text == '\'' ? "''" : "%c", *text);
    fputc('\'', to);
}

static void
plot_points(FILE *to, const struct bench_histogram *histogram)
{
    double left = 1;

    fprintf(to, "$latency << END\n");
    while (left * (double)histogram->count >= 1) {
        fprintf(to, "%.9g %.6f\n", 1 / left,
                (double)bench_histogram_value_at(histogram, 1 - left) / 1e6);
        for (int i = 1; i < POINTS_PER_TENTH; i++) {
            double part = left * (1 - 0.9 * i / POINTS_PER_TENTH);
            fprintf(to, "%.9g %.6f\n", 1 / part,
                    (double)bench_histogram_value_at(histogram, 1 - part) / 1e6);
        }
        left /= 10;
    }
    fprintf(to, "END\n");
}

bool
bench_plot_draw(const char *file, const char *title, const struct bench_histogram *histogram)
{
    bool svg = strcasecmp(strrchr(file, '.'), ".svg") == 0;
    FILE *to;
    int status;

    if (histogram->count == 0) {
        program_complain("there are no latencies to plot");
        return false;
    }
    to = popen("exec gnuplot", "w");
    if (!to) {
        program_complain("cannot start gnuplot: %s", strerror(errno));
        return false;
    }
    fprintf(to, "set terminal %s size 900,540\nset output ",
            svg ? "svg background 'white'" : "png");
    plot_quote(to, file);
    fprintf(to, "\nset title ");
    plot_quote(to, title);
    fprintf(
        to,
        " noenhanced\nset logscale x\nset grid\nset key off\nset yrange [0:*]\n"
        "set xlabel 'messages'\nset ylabel 'latency, ms'\n"
        "set xtics ('0 %%%%' 1, '90 %%%%' 10, '99 %%%%' 100, '99.9 %%%%' 1000, '99.99 %%%%' 1e4, "
        "'99.999 %%%%' 1e5, '99.9999 %%%%' 1e6)\n");
    plot_points(to, histogram);
    fprintf(to, "plot $latency using 1:2 with lines linewidth 2\n");
    status = pclose(to);
    if (status != 0)
        program_complain("gnuplot could not draw %s", file);
    return status == 0;
}
