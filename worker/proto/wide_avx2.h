/*
 * wide_avx2.h: unmasking and the UTF-8 check with AVX2. x86-64 only.
 *
 * Role, Errors, Context: as in wide.h.
 */
#ifndef CRIER_PROTO_WIDE_AVX2_H
#define CRIER_PROTO_WIDE_AVX2_H

#include "worker/proto/wide.h"

extern const struct wide wide_avx2;

#endif
