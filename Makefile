# crier: `make run` builds and starts the server, `make test` tests it, `make help` lists the rest.
#
# Everything that is built goes below build/<variant>/. The source lists below are explicit on purpose:
# they are the architecture, and `make lint` compares them with the tree.

# ---- knobs ---------------------------------------------------------------------------------------

VERSION := 0.1.0
VARIANT ?= release#  release, asan, tsan, cov, fuzz; lint is release with warnings as errors
ARGS    ?=#          make run ARGS="--workers 4"
E2E     ?= tests/commands tests/e2e tests/attack tests/conform tests/interop/test_libraries.py#  make test E2E=tests/e2e/test_welcome.py
PYTEST  ?= -q#       more for pytest: make test PYTEST="-x -k welcome"
V       ?=#          V=1 shows the commands
PREFIX  ?= /usr/local
FUZZ_SECONDS ?= 60#  of each target of make fuzz; MERGE=1 takes into the corpora what was found instead
CC      := $(if $(filter fuzz,$(VARIANT)),clang,gcc)

# ---- sources -------------------------------------------------------------------------------------

SHM    := arena chan client_rec conf counter disposition histogram log log_summary member record ring segment segment_master twin wake util/escape util/inbox util/inherited util/log_out util/log_stamp util/output util/program util/thread
SERVER := main options options_check options_row usage master limits cgroup announce listen listen_address overlap socket_file socket_mode accept roster dispatch spawn supervise signals console console_log console_source
WORKER := worker intake budget turns conn conn_list conn_timeout conn_in conn_log conn_out unpack fanout slow pool slab liveness watch unwatched app last_words loop_log refuse
PROTO  := deflate extension frame handshake http1 inflate mask origin response subprotocol utf8 utf8_walk wide wide_avx2 wide_portable wide_sse2
HTTP   := page site
APPS   := standard
TOOLS  := crier_ring image locate# the program is crier-ring
BENCHER := crier_bench $(patsubst %,bench_%,audience client histogram mqtt options plot process report sender stamp thread track)# crier-bench

# UNIT=ring FUZZ= TORTURE= on the command line narrow what is built and run.
UNIT    := utf8 mask frame http1 extension origin subprotocol response handshake site deflate inflate segment ring history arena client_rec record twin \
           conf chan member inherited inbox escape log_out log_stamp log_summary accept listen socket_mode roster dispatch supervise limits cgroup pool slab watch unwatched conn stopping turns wheel slow fanout run_clock loop_log histogram pairs $(patsubst %,bench_%,audience histogram mqtt stamp track)
FUZZ    := utf8 http1 extension handshake frame deflate conn
TORTURE := inbox_torture ring_torture ring_duel ring_history ring_hostile ring_kill
NARROW  := tests/unit/test_ring tests/unit/test_history $(patsubst %,tests/torture/%,ring_torture ring_duel ring_history ring_hostile)# also built with tags that wrap, and test points
RIGGED  := fuzz/fuzz_conn unit/test_log_summary unit/test_supervise unit/test_unwatched unit/test_conn unit/test_stopping unit/test_turns unit/test_wheel unit/test_slow unit/test_fanout unit/test_run_clock# a whole worker in the test's own process
LOAD    := swarm attackers durations probe_app
BENCH   := bench_ring bench_server bench_echo bench_proto bench_connect bench_slow bench_latency bench_scale bench_cores

PACKAGES := libevent_core libcrypto zlib liburcu-cds# pkg-config names; Debian's are in tools/setup.sh

SHM_C     := $(SHM:%=shm/%.c)
LIB_C     := $(SHM_C) $(SERVER:%=server/%.c) $(WORKER:%=worker/%.c) $(PROTO:%=worker/proto/%.c) $(HTTP:%=worker/http/%.c)
APPS_C    := $(APPS:%=worker/apps/%.c)

# ---- products ------------------------------------------------------------------------------------

B           := build/$(VARIANT)
CRIER       := $(B)/crier
CRIER_RING  := $(B)/crier-ring
CRIER_BENCH := $(B)/crier-bench
MANUAL      := $(B)/manual# writes crier(1) with the options of the tables
LIB         := $(B)/libcrier.a
UNIT_BIN    := $(UNIT:%=$(B)/tests/unit/test_%)
FUZZ_BIN    := $(FUZZ:%=$(B)/tests/fuzz/fuzz_%)
TORTURE_BIN := $(TORTURE:%=$(B)/tests/torture/%)
LOAD_BIN    := $(LOAD:%=$(B)/tests/lib/%)
BENCH_BIN   := $(BENCH:%=$(B)/tests/bench/%)
TEST_BIN    := $(UNIT_BIN) $(FUZZ_BIN) $(TORTURE_BIN) $(LOAD_BIN) $(BENCH_BIN)
NARROW_BIN  := $(patsubst %,$(B)/%_narrow,$(filter $(TEST_BIN:$(B)/%=%),$(NARROW)))
SUITE_BIN   := $(UNIT_BIN) $(filter $(B)/tests/unit/%,$(NARROW_BIN)) $(FUZZ_BIN) $(TORTURE_BIN) $(filter $(B)/tests/torture/%,$(NARROW_BIN))
ALL_C       := $(LIB_C) $(APPS_C) $(TOOLS:%=tools/%.c) $(BENCHER:%=tools/%.c) tools/manual.c $(TEST_BIN:$(B)/%=%.c) tests/bench/peers/lws_broadcast.c tests/fuzz/replay.c tests/lib/conn_rig.c tests/lib/hand_clock.c
OBJECTS     := $(ALL_C:%.c=$(B)/%.o) $(SHM_C:%.c=$(B)/narrow/%.o) $(NARROW:%=$(B)/narrow/%.o)

# ---- flags ---------------------------------------------------------------------------------------

WARNINGS := -Wall -Wextra -Wshadow -Wstrict-prototypes -Wmissing-prototypes -Wpointer-arith -Wwrite-strings -Wvla -Wundef -fno-common

RELEASE := -O2 -g -D_FORTIFY_SOURCE=2 -fstack-protector-strong
VARIANT_FLAGS_release := $(RELEASE)
VARIANT_FLAGS_lint    := $(RELEASE) -Werror
VARIANT_FLAGS_asan    := -O1 -g -fno-omit-frame-pointer -fsanitize=address,undefined -fno-sanitize-recover=all
VARIANT_FLAGS_tsan    := -O1 -g -fno-omit-frame-pointer -fsanitize=thread
VARIANT_FLAGS_cov     := -O0 -g --coverage -fprofile-update=atomic
VARIANT_FLAGS_fuzz    := -O1 -g -fno-omit-frame-pointer -fsanitize=fuzzer-no-link,address,undefined -fno-sanitize-recover=all
VARIANT_FLAGS         := $(VARIANT_FLAGS_$(VARIANT))
$(if $(VARIANT_FLAGS),,$(error VARIANT=$(VARIANT) is unknown: take release, asan, tsan, cov, fuzz or lint))
VARIANT_FLAGS         += $(if $(filter true,$(CI)),-Werror)

# pkg-config is asked once, when the first rule needs it: set-up, help and clean work without it.
pkg = $(shell pkg-config $1 $2)$(if $(filter 0,$(.SHELLSTATUS)),,$(error $2 not found by pkg-config: run tools/setup.sh $3))
PKG_CFLAGS    = $(eval PKG_CFLAGS := $(call pkg,--cflags,$(PACKAGES),build))$(PKG_CFLAGS)
PKG_LIBS      = $(eval PKG_LIBS := $(call pkg,--libs,$(PACKAGES),build))$(PKG_LIBS)
CMOCKA_CFLAGS = $(eval CMOCKA_CFLAGS := $(call pkg,--cflags,cmocka,unit))$(CMOCKA_CFLAGS)
CMOCKA_LIBS   = $(eval CMOCKA_LIBS := $(call pkg,--libs,cmocka,unit))$(CMOCKA_LIBS)

CPPFLAGS = -I. -D_GNU_SOURCE= -DCRIER_VERSION='"$(VERSION)"' $(PKG_CFLAGS)
CFLAGS   = -std=gnu11 -pthread -fPIE $(VARIANT_FLAGS) $(WARNINGS)
LDFLAGS  = -pthread -pie -Wl,-z,relro,-z,now,--as-needed $(VARIANT_FLAGS)
LDLIBS   = $(PKG_LIBS)
COMPILE  = $(CC) $(CPPFLAGS) $(CFLAGS)

# ---- rules ---------------------------------------------------------------------------------------

.DELETE_ON_ERROR:
.SECONDARY:
MAKEFLAGS += --no-builtin-rules --no-print-directory

# The targets that start a make of their own are done one after the other, whatever -j says; the inner make is parallel.
OUTER := all run test lint check-long interop asan tsan cov fuzz bench bench-peers format install uninstall clean
ifneq ($(filter $(OUTER) lint-%,$(or $(MAKECMDGOALS),all)),)
.NOTPARALLEL:
endif
INNER = $(MAKE) $(if $(findstring jobserver,$(MAKEFLAGS)),,-j$(shell nproc))
BUILD = tools/as_owner.sh $(INNER)# what root builds in a user's tree is the user's

Q    := $(if $(V),,@)
show  = @printf '  %-4s %s\n' $1 $@

# $1: more flags
define compile
	$(call show,CC)
	@mkdir -p $(@D)
	$(Q)$(COMPILE) $(if $(findstring /tests/unit/,$@),$(CMOCKA_CFLAGS)) $1 -MMD -MP -c -o $@ $<
endef

define link
	$(call show,LD)
	$(Q)$(CC) $(LDFLAGS) -o $@ $(filter %.o,$^) $(filter %.a,$^) $(if $(findstring /tests/unit/,$@),$(CMOCKA_LIBS)) $(LDLIBS)
endef

all: setup-build  ## build the server, its tools and the library (default)
	+@$(BUILD) programs

programs: $(CRIER) $(CRIER_RING) $(CRIER_BENCH) $(LIB) $(B)/crier.1 build/compile_commands.json
suite: programs $(SUITE_BIN) $(LOAD_BIN)
programs suite:; @:

# Rewritten only when the flags differ: everything that was compiled depends on it.
$(B)/flags: private export FINGERPRINT = $(COMPILE) | $(LDFLAGS) $(LDLIBS)
$(B)/flags: FORCE
	@mkdir -p $(@D)
	@printf '%s\n' "$$FINGERPRINT" | cmp -s - $@ || printf '%s\n' "$$FINGERPRINT" >$@

$(B)/%.o: %.c $(B)/flags
	$(compile)

$(B)/narrow/%.o: %.c $(B)/flags
	$(call compile,-DRING_TAG_BITS=3 -DCRIER_TESTPOINTS)

$(B)/worker/http/page.o: worker/http/page.html
$(LIB): $(LIB_C:%.c=$(B)/%.o)
$(B)/narrow/libshm.a: $(SHM_C:%.c=$(B)/narrow/%.o)
$(LIB) $(B)/narrow/libshm.a: $(B)/flags Makefile
	$(call show,AR)
	$(Q)rm -f $@ && $(AR) rcs $@ $(filter %.o,$^)

$(CRIER) $(MANUAL): $(APPS_C:%.c=$(B)/%.o)
$(MANUAL): $(B)/tools/manual.o
$(CRIER_RING): $(TOOLS:%=$(B)/tools/%.o)
$(CRIER_BENCH): $(BENCHER:%=$(B)/tools/%.o)
$(TEST_BIN): %: %.o
$(B)/tests/lib/durations: $(B)/tools/locate.o
$(FUZZ_BIN): $(if $(filter fuzz,$(VARIANT)),,$(B)/tests/fuzz/replay.o)
$(FUZZ_BIN): LDFLAGS += $(if $(filter fuzz,$(VARIANT)),-fsanitize=fuzzer)
$(filter $(B)/tests/unit/test_bench_%,$(UNIT_BIN)): $(B)/tests/unit/test_%: $(B)/tools/%.o
$(RIGGED:%=$(B)/tests/%): $(B)/tests/lib/conn_rig.o $(B)/tests/lib/hand_clock.o
$(CRIER) $(CRIER_RING) $(CRIER_BENCH) $(MANUAL) $(TEST_BIN): $(LIB)
	$(link)

$(B)/crier.1: docs/crier.1.in $(MANUAL)
	$(call show,MAN)
	$(Q)$(MANUAL) <$< >$@

$(NARROW_BIN): $(B)/%_narrow: $(B)/narrow/%.o $(B)/narrow/libshm.a
	$(link)

# For editors and clang-tidy. Building does not need cmocka: where it is missing, its flags are.
build/compile_commands.json: private export LINE = $(COMPILE) $(shell pkg-config --silence-errors --cflags cmocka)
build/compile_commands.json: $(B)/flags Makefile
	@tests/lint/compile_commands.sh "$$LINE" $(ALL_C) >$@

-include $(OBJECTS:.o=.d)

# ---- run and check -------------------------------------------------------------------------------

SETUPS := build unit test lint format bench peers long interop fuzz
$(SETUPS:%=setup-%): setup-%:; @tools/setup.sh $*

run: setup-build  ## build and start the server in the foreground: make run ARGS="--workers 4"
	+@$(BUILD) VARIANT=release programs >&2
	@exec build/release/crier $(ARGS)

plan:
	@NARROWED="$(foreach v,UNIT:unit FUZZ:programs TORTURE:programs E2E:pytest PYTEST:pytest,$(if $(filter file,$(origin $(word 1,$(subst :, ,$v)))),,$(word 2,$(subst :, ,$v))))" tests/run.sh --plan $(B) $(SUITE_BIN) $(E2E)

test: plan setup-$(if $(E2E),test,unit)  ## unit tests, fuzz corpora, torture and end-to-end tests
	+@$(BUILD) suite
	@tests/run.sh $(B) $(SUITE_BIN) $(E2E) -- $(PYTEST)

check-long: setup-long  ## the models, the mutants, then the same tests with CRIER_LONG=1: longer torture, larger numbers
	@tests/model/check.sh && tests/mutants/run.py
	@CRIER_LONG=1 $(MAKE) test

interop: setup-interop  ## clients of other projects, among them a browser and Java's own
	@$(MAKE) UNIT= FUZZ= TORTURE= E2E=tests/interop test

asan:  ## all tests under the address and undefined-behaviour sanitizers
	@$(MAKE) VARIANT=asan test

tsan:  ## unit and torture tests under the thread sanitizer
	@$(MAKE) VARIANT=tsan E2E= test

cov:  ## all tests, then the covered lines of each file
	@if [ -d build/cov ]; then find build/cov -name '*.gcda' -delete; fi
	@$(MAKE) VARIANT=cov test
	@tests/cov.sh build/cov

fuzz: setup-fuzz  ## fuzz each protocol part and a whole connection: FUZZ_SECONDS=60 each, FUZZ=conn only that
	+@$(BUILD) VARIANT=fuzz $(FUZZ_BIN:$(B)/%=build/fuzz/%)
	@tests/fuzz/run.sh build/fuzz $(if $(MERGE),merge,$(FUZZ_SECONDS)) $(FUZZ)

bench: setup-bench  ## measure: ring, fan-out, echo, memory, unmasking (BENCH=bench_ring: only that)
	+@$(BUILD) VARIANT=release build/release/crier $(BENCH_BIN)
	@set -e; for b in $(BENCH_BIN); do CRIER=$(CRIER) CRIER_BUILD=$(B) $$b; done

bench-peers: setup-peers  ## measure other servers beside it, into docs/BENCHMARKS.md: ARGS="--quick --only ws" for a look
	+@$(BUILD) VARIANT=release build/release/crier build/release/crier-bench
	@/usr/bin/python3 -B tests/bench/peers/compare.py $(ARGS) build/release

LINTS := tree format shell python manuals cppcheck tidy

lint: setup-lint  ## layout, formatting, warnings and static analysis; lint-tree, lint-tidy ... one alone
	@$(MAKE) -k $(LINTS:%=lint-%) lint-warnings && echo 'lint: clean'

$(LINTS:%=lint-%): private export CC_LINE = $(COMPILE) $(CMOCKA_CFLAGS) -Werror
$(LINTS:%=lint-%): lint-%: setup-lint
	@tests/lint/run.sh $* $(ALL_C)
lint-tidy: build/compile_commands.json

lint-warnings: setup-lint
	+@$(BUILD) VARIANT=lint suite $(BENCH_BIN:$(B)/%=build/lint/%) >/dev/null

format: setup-format  ## rewrite the C sources in the project's format
	@tests/lint/run.sh reformat

# ---- install -------------------------------------------------------------------------------------

install: all  ## install into PREFIX (/usr/local), below DESTDIR
uninstall:  ## remove what install put there
install uninstall:
	@DESTDIR="$(DESTDIR)" tools/install.sh $@ $(B) "$(PREFIX)" $(VERSION) "$(PACKAGES)"

clean:  ## remove build/
	rm -rf build

help:  ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-11s %s\n", $$1, $$2 }' Makefile
FORCE:
.PHONY: programs suite plan help FORCE $(OUTER) $(SETUPS:%=setup-%) $(LINTS:%=lint-%) lint-warnings
