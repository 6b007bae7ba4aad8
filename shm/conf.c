/*
 * conf.c: text to option values. One parser per kind, one table (conf.def) for everything else.
 */
#include "shm/conf.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const struct conf_row conf_table[] = {
#define CONF_ROW(kind, field, name, short_name, arg, value, help)                                  \
    {CONF_##kind, offsetof(struct conf_shm, field), name, short_name, arg, value, help},
#include "shm/conf.def"
#undef CONF_ROW
};

const struct conf_row *
conf_rows(size_t *count)
{
    *count = sizeof(conf_table) / sizeof(conf_table[0]);
    return conf_table;
}

static int
conf_parse_count(const char *text, uint64_t *value)
{
    char *end;

    if (!isdigit((unsigned char)text[0]))
        return -EINVAL;
    errno = 0;
    *value = strtoull(text, &end, 10);
    return errno || *end ? -EINVAL : 0;
}

static int
conf_parse_size(const char *text, uint64_t *value)
{
    char *end;
    unsigned shift = 0;

    if (!isdigit((unsigned char)text[0]))
        return -EINVAL;
    errno = 0;
    *value = strtoull(text, &end, 10);
    if (errno)
        return -EINVAL;
    if (*end == 'k' || *end == 'K')
        shift = 10;
    else if (*end == 'M')
        shift = 20;
    else if (*end == 'G')
        shift = 30;
    if (shift)
        end++;
    if (*end || *value > UINT64_MAX >> shift)
        return -EINVAL;
    *value <<= shift;
    return 0;
}

/* Without strtod: an application may have set a locale in which the point is a comma. */
static int
conf_parse_secs(const char *text, uint64_t *value_ms)
{
    static const uint64_t longest_ms = UINT64_C(1000000000000);
    uint64_t unit = 100;
    uint64_t ms = 0;
    unsigned digits = 0;
    bool is_more = false;

    for (; isdigit((unsigned char)*text); text++, digits++) {
        ms = ms * 10 + (uint64_t)(*text - '0') * 1000;
        if (ms > longest_ms)
            return -EINVAL;
    }
    if (*text == '.')
        text++;
    for (; isdigit((unsigned char)*text); text++, digits++, unit /= 10) {
        ms += (uint64_t)(*text - '0') * unit;
        is_more |= unit == 0 && *text != '0';
    }
    *value_ms = ms + is_more; /* however little is asked for, it is not "off" */
    return *text || digits == 0 || *value_ms > longest_ms ? -EINVAL : 0;
}

/* What it ends with is the unit. */
static int
conf_parse_lag(const char *text, struct conf_lag_shm *lag)
{
    char secs[32];
    size_t bytes = strlen(text);
    char last = bytes > 0 ? text[bytes - 1] : '\0';

    if (last == 's') {
        lag->unit = CONF_LAG_MS;
        if (bytes > sizeof(secs))
            return -EINVAL;
        memcpy(secs, text, bytes - 1);
        secs[bytes - 1] = '\0';
        return conf_parse_secs(secs, &lag->amount);
    }
    lag->unit = isdigit((unsigned char)last) ? CONF_LAG_BROADCASTS : CONF_LAG_BYTES;
    return conf_parse_size(text, &lag->amount);
}

int
conf_choice(const char *choices, const char *text)
{
    size_t bytes = strlen(text);

    for (int i = 0; bytes > 0; i++) {
        size_t word = strcspn(choices, "|");
        if (word == bytes && memcmp(choices, text, bytes) == 0)
            return i;
        if (!choices[word])
            break;
        choices += word + 1;
    }
    return -1;
}

static int
conf_set_text(char *field, const char *text, bool append)
{
    size_t used = append ? strlen(field) : 0;
    size_t bytes = strlen(text);

    if (used + bytes + 2 > CONF_TEXT_BYTES)
        return -ENOSPC;
    if (used)
        field[used++] = '\n';
    memcpy(field + used, text, bytes + 1);
    return 0;
}

/* Error messages name what would have been accepted, so that it need not be looked up. */
static const char *
conf_kind_wants(enum conf_kind kind)
{
    switch (kind) {
    case CONF_COUNT: return "a whole number such as 4";
    case CONF_SIZE: return "a size such as 4096, 256k, 16M or 1G";
    case CONF_SECS: return "seconds such as 5 or 0.5";
    case CONF_FLAG: return "1 or 0";
    case CONF_CHOICE: return "one of these words";
    case CONF_LAG: return "broadcasts such as 5000, bytes such as 4M, or seconds such as 10s";
    case CONF_TEXT:
    case CONF_LIST: return "a shorter text";
    }
    return "something else";
}

int
conf_set(struct conf_shm *conf, const struct conf_row *row, const char *text, bool again,
         char why[CONF_WHY_BYTES])
{
    void *field = (char *)conf + row->offset;
    struct conf_lag_shm lag;
    uint64_t value = 0;
    int choice;
    int rc = 0;

    switch (row->kind) {
    case CONF_TEXT: rc = conf_set_text(field, text, false); break;
    case CONF_LIST: rc = conf_set_text(field, text, again); break;
    case CONF_COUNT: rc = conf_parse_count(text, &value); break;
    case CONF_SIZE: rc = conf_parse_size(text, &value); break;
    case CONF_SECS: rc = conf_parse_secs(text, &value); break;
    case CONF_FLAG:
        rc = conf_parse_count(text, &value);
        if (value > 1)
            rc = -EINVAL;
        break;
    case CONF_CHOICE:
        choice = conf_choice(row->arg, text);
        rc = choice < 0 ? -EINVAL : 0;
        value = (uint64_t)choice;
        break;
    case CONF_LAG: rc = conf_parse_lag(text, &lag); break;
    }
    if (rc) {
        snprintf(why, CONF_WHY_BYTES, "wants %s%s%s, not '%.80s'", conf_kind_wants(row->kind),
                 row->kind == CONF_CHOICE ? ": " : "", row->kind == CONF_CHOICE ? row->arg : "",
                 text);
        return -EINVAL;
    }
    if (row->kind == CONF_LAG)
        memcpy(field, &lag, sizeof(lag));
    else if (row->kind != CONF_TEXT && row->kind != CONF_LIST)
        memcpy(field, &value, sizeof(value));
    return 0;
}

void
conf_copy(struct conf_shm *to, const struct conf_shm *from)
{
    memcpy(to, from, sizeof(*to));
    for (size_t i = 0; i < sizeof(conf_table) / sizeof(conf_table[0]); i++) {
        char *field = (char *)to + conf_table[i].offset;
        if (conf_table[i].kind == CONF_TEXT || conf_table[i].kind == CONF_LIST)
            field[CONF_TEXT_BYTES - 1] = '\0';
    }
    to->app[CONF_APP_BYTES - 2] = to->app[CONF_APP_BYTES - 1] = '\0';
}

void
conf_init(struct conf_shm *conf)
{
    char why[CONF_WHY_BYTES];

    memset(conf, 0, sizeof(*conf));
    for (size_t i = 0; i < sizeof(conf_table) / sizeof(conf_table[0]); i++) {
        if (conf_set(conf, &conf_table[i], conf_table[i].value, false, why) != 0)
            abort(); /* a default in conf.def that its own kind refuses */
    }
}

const char *
conf_given_as(enum conf_source source, const char *name, char text[CONF_NAME_BYTES])
{
    bool is_variable = source == CONF_ENVIRONMENT;
    int prefix = snprintf(text, CONF_NAME_BYTES, is_variable ? "CRIER_" : "--");

    snprintf(text + prefix, CONF_NAME_BYTES - (size_t)prefix, "%s", name);
    for (char *at = text + prefix; is_variable && *at; at++)
        *at = *at == '-' ? '_' : (char)toupper((unsigned char)*at);
    return text;
}

static const char conf_app_sources[] = {
    [CONF_DEFAULT] = 'd', [CONF_ENVIRONMENT] = 'e', [CONF_COMMAND_LINE] = 'c'};

int
conf_app_set(struct conf_shm *conf, const char *name, const char *value, enum conf_source source)
{
    size_t used = 0;
    int bytes;

    while (conf->app[used])
        used += strlen(conf->app + used) + 1;
    bytes = snprintf(conf->app + used, CONF_APP_BYTES - used, "%c%s=%s", conf_app_sources[source],
                     name, value);
    if (bytes < 0 || used + (size_t)bytes + 2 > CONF_APP_BYTES) {
        conf->app[used] = '\0';
        return -ENOSPC;
    }
    conf->app[used + (size_t)bytes + 1] = '\0';
    return 0;
}

/* The last entry of `name`, or NULL. */
static const char *
conf_app_find(const struct conf_shm *conf, const char *name)
{
    size_t bytes = strlen(name);
    const char *found = NULL;

    for (const char *at = conf->app; *at; at += strlen(at) + 1) {
        if (strncmp(at + 1, name, bytes) == 0 && at[1 + bytes] == '=')
            found = at;
    }
    return found;
}

const char *
conf_app_get(const struct conf_shm *conf, const char *name)
{
    const char *found = conf_app_find(conf, name);

    return found ? found + 1 + strlen(name) + 1 : NULL;
}

enum conf_source
conf_app_source(const struct conf_shm *conf, const char *name)
{
    const char *found = conf_app_find(conf, name);

    if (found && *found == conf_app_sources[CONF_ENVIRONMENT])
        return CONF_ENVIRONMENT;
    return found && *found == conf_app_sources[CONF_COMMAND_LINE] ? CONF_COMMAND_LINE
                                                                  : CONF_DEFAULT;
}
