/*
 * wide_portable.h: unmasking and the UTF-8 check a word at a time, in C alone. Runs anywhere.
 *
 * Role, Errors, Context: as in wide.h.
 */
#ifndef CRIER_PROTO_WIDE_PORTABLE_H
#define CRIER_PROTO_WIDE_PORTABLE_H

#include "worker/proto/wide.h"

extern const struct wide wide_portable;

#endif
