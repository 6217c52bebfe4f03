// Runs the blocks of a kernel on the CPU: threads of a block are fibers that wait for each other.
// Errors leave through `fail`, which jumps back to `host_run`; addresses that are not mapped end there too.
#include <csetjmp>
#include <csignal>
#include <cstdarg>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <sys/mman.h>
#include <sys/time.h>
#include <ucontext.h>

extern "C" {

struct Index { unsigned x, y, z; };
Index threadIdx, blockIdx, blockDim, gridDim;
unsigned char* host_dynamic;

typedef void (*Entry)(const uint64_t* words);

struct Result {
    char message[512];
    uint64_t address;
};

[[noreturn]] void host_fail(const char* format, ...);
}

namespace {

enum State { READY, AT_BLOCK, AT_WARP, ENDED };
enum Kind { SHUFFLE = 0, SYNC = 1, BALLOT = 2 };
const char* const KINDS[] = {"__shfl_sync", "__syncwarp", "__ballot_sync"};
enum Vote { NONE = 0, OR = 1, AND = 2, COUNT = 3 };

const size_t STACK = 64 << 10;
const unsigned LIMIT = 1024;
const size_t PAGE = 4096, DYNAMIC = 228 << 10;

struct Fiber {
    ucontext_t context;
    void* pointer;
    State state;
    Index index;
    int line, kind, vote;
    unsigned mask, source;
    uint64_t in, out;
};

// Lanes that wait for each other; those of one warp have masks without a lane in common.
struct Meeting { unsigned mask, arrived; int kind, line; };
struct Warp { unsigned lives, meetings; Meeting meeting[32]; };

Fiber fibers[LIMIT];
Warp warps[LIMIT / 32];
unsigned threads, live, current;
bool in_block;
unsigned char* stacks;
unsigned char* dynamic_end;
ucontext_t scheduler_context;
void* scheduler_pointer;
Entry entry;
const uint64_t* words;
Result* result;
sigjmp_buf leave;
uint64_t random_state;

uint64_t next_random() {
    random_state += 0x9e3779b97f4a7c15ull;
    uint64_t z = random_state;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
    return z ^ (z >> 31);
}

}  // namespace

#if defined(__x86_64__) && !defined(HOST_UCONTEXT)
extern "C" void host_switch(void** save, void* load);
asm(R"(
    .text
    .globl host_switch
    .hidden host_switch
    .type host_switch, @function
host_switch:
    pushq %rbp
    pushq %rbx
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    movq %rsp, (%rdi)
    movq %rsi, %rsp
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %rbx
    popq %rbp
    ret
)");
#endif

namespace {

void yield_to_scheduler() {
#if defined(__x86_64__) && !defined(HOST_UCONTEXT)
    host_switch(&fibers[current].pointer, scheduler_pointer);
#else
    swapcontext(&fibers[current].context, &scheduler_context);
#endif
}

void thread_main() {
    entry(words);
    fibers[current].state = ENDED;
    warps[current / 32].lives &= ~(1u << current % 32);
    live--;
    yield_to_scheduler();
    abort();
}

void start(unsigned i) {
    unsigned char* bottom = stacks + i * (STACK + PAGE) + PAGE;
    Fiber& f = fibers[i];
    f.state = READY;
    f.line = 0;
#if defined(__x86_64__) && !defined(HOST_UCONTEXT)
    void** top = (void**)(bottom + STACK);
    *--top = nullptr;
    *--top = (void*)thread_main;
    for (int k = 0; k < 6; k++) *--top = nullptr;
    f.pointer = top;
#else
    getcontext(&f.context);
    f.context.uc_stack.ss_sp = bottom;
    f.context.uc_stack.ss_size = STACK;
    f.context.uc_link = nullptr;
    makecontext(&f.context, thread_main, 0);
#endif
}

void resume(unsigned i) {
    current = i;
    threadIdx = fibers[i].index;
#if defined(__x86_64__) && !defined(HOST_UCONTEXT)
    host_switch(&scheduler_pointer, fibers[i].pointer);
#else
    swapcontext(&scheduler_context, &fibers[i].context);
#endif
}

void say_where(char* to, size_t size) {
    if (!in_block) {
        *to = 0;
        return;
    }
    snprintf(to, size, " [block (%u, %u, %u), thread (%u, %u, %u)]", blockIdx.x, blockIdx.y, blockIdx.z, threadIdx.x,
             threadIdx.y, threadIdx.z);
}

// The lanes of `mask` have all arrived: give each its result.
void complete(unsigned warp, unsigned mask, int kind) {
    Fiber* lanes = fibers + warp * 32;
    uint64_t votes = 0;
    if (kind == BALLOT)
        for (unsigned l = 0; l < 32; l++)
            if (mask >> l & 1 && lanes[l].in) votes |= 1ull << l;
    for (unsigned l = 0; l < 32; l++) {
        if (!(mask >> l & 1)) continue;
        Fiber& f = lanes[l];
        if (kind == SHUFFLE) {
            if (!(mask >> f.source & 1)) {
                threadIdx = f.index;
                host_fail("line %d: __shfl_sync reads lane %u, which is not in its mask %#x", f.line, f.source, mask);
            }
            f.out = lanes[f.source].in;
        } else {
            f.out = votes;
        }
        f.state = READY;
    }
}

void diverged() {
    unsigned barrier = 0, warp = 0, first_barrier = 0, first_warp = 0;
    for (unsigned i = 0; i < threads; i++) {
        if (fibers[i].state == AT_BLOCK && !barrier++) first_barrier = i;
        if (fibers[i].state == AT_WARP && !warp++) first_warp = i;
    }
    Fiber& w = fibers[first_warp];
    threadIdx = w.index;
    if (barrier) {
        host_fail("line %d: %s of mask %#x waits for lanes of which some wait at __syncthreads (line %d): "
                  "%u threads wait in warps, %u at __syncthreads, %u ended",
                  w.line, KINDS[w.kind], w.mask, fibers[first_barrier].line, warp, barrier, threads - live);
    }
    host_fail("line %d: %s of mask %#x waits for lanes that ended or that wait elsewhere (%u wait, %u ended)", w.line,
              KINDS[w.kind], w.mask, warp, threads - live);
}

void release_block() {
    int line = 0, vote = 0;
    uint64_t any = 0, all = 1, count = 0;
    bool first = true;
    for (unsigned i = 0; i < threads; i++) {
        Fiber& f = fibers[i];
        if (f.state == ENDED) continue;
        if (!first && (f.line != line || f.vote != vote)) {
            threadIdx = f.index;
            host_fail("threads of a block wait at different __syncthreads: lines %d and %d", line, f.line);
        }
        line = f.line, vote = f.vote, first = false;
        any |= f.in != 0, all &= f.in != 0, count += f.in != 0;
    }
    for (unsigned i = 0; i < threads; i++) {
        if (fibers[i].state == ENDED) continue;
        fibers[i].out = vote == OR ? any : vote == AND ? all : count;
        fibers[i].state = READY;
    }
}

void run_block() {
    unsigned count = (threads + 31) / 32;
    live = threads;
    for (unsigned i = 0; i < threads; i++) start(i);
    for (unsigned w = 0; w < count; w++) {
        unsigned lanes = threads - w * 32;
        warps[w].lives = lanes < 32 ? (1u << lanes) - 1 : ~0u;
        warps[w].meetings = 0;
    }
    while (live) {
        // Another order in each round shows what is read without a barrier.
        uint64_t r = next_random();
        unsigned turn = (unsigned)(r >> 8) % count;
        for (unsigned k = 0; k < count; k++) {
            unsigned w = (r & 1 ? k : count - 1 - k) + turn;
            if (w >= count) w -= count;
            unsigned base = w * 32, lanes = threads - base < 32 ? threads - base : 32;
            for (bool ran = true; ran;) {
                ran = false;
                for (unsigned l = 0; l < lanes; l++) {
                    unsigned i = base + (r & 2 ? l : lanes - 1 - l);
                    if (fibers[i].state == READY) {
                        resume(i);
                        ran = true;
                    }
                }
            }
        }
        if (!live) return;
        for (unsigned i = 0; i < threads; i++)
            if (fibers[i].state == AT_WARP) diverged();
        release_block();
    }
}

void on_signal(int number, siginfo_t* info, void*) {
    if (number == SIGSEGV || number == SIGBUS) {
        result->address = (uint64_t)info->si_addr;
        for (unsigned i = 0; stacks && i < LIMIT; i++) {
            unsigned char* guard = stacks + i * (STACK + PAGE);
            if ((unsigned char*)info->si_addr >= guard && (unsigned char*)info->si_addr < guard + PAGE)
                host_fail("the local memory of a thread is larger than %zu KB", STACK >> 10);
        }
        if ((unsigned char*)info->si_addr >= dynamic_end && (unsigned char*)info->si_addr < dynamic_end + PAGE)
            host_fail("touches dynamic shared memory behind its end");
        host_fail("touches memory that is not its own");
    }
    if (number == SIGFPE) host_fail("divides an integer by 0, or the least by -1");
    if (number == SIGVTALRM) host_fail("does not end: blocks may not wait for others");
    host_fail("does what the CPU has no instruction for (signal %d)", number);
}

unsigned gcd(unsigned a, unsigned b) { return b ? gcd(b, a % b) : a; }

const int SIGNALS[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGVTALRM};

}  // namespace

extern "C" {

[[noreturn]] void host_fail(const char* format, ...) {
    char where[128];
    say_where(where, sizeof where);
    va_list rest;
    va_start(rest, format);
    int n = vsnprintf(result->message, sizeof result->message, format, rest);
    va_end(rest);
    if (n >= 0 && (size_t)n < sizeof result->message)
        snprintf(result->message + n, sizeof result->message - n, "%s", where);
    siglongjmp(leave, 1);
}

uint64_t host_barrier(int line, int vote, uint64_t value) {
    Fiber& f = fibers[current];
    f.state = AT_BLOCK;
    f.line = line;
    f.vote = vote;
    f.in = value;
    yield_to_scheduler();
    return fibers[current].out;
}

uint64_t host_warp(int line, int kind, unsigned mask, uint64_t value, unsigned source) {
    Fiber& f = fibers[current];
    unsigned lane = current % 32;
    Warp& w = warps[current / 32];
    if (!(mask >> lane & 1)) host_fail("line %d: %s of mask %#x is called by lane %u", line, KINDS[kind], mask, lane);
    if (unsigned missing = mask & ~w.lives) {
        unsigned l = __builtin_ctz(missing);
        host_fail("line %d: the mask %#x of %s names lane %u, which %s", line, mask, KINDS[kind], l,
                  current / 32 * 32 + l >= threads ? "the block does not have" : "has ended");
    }
    f.state = AT_WARP;
    f.line = line;
    f.kind = kind;
    f.mask = mask;
    f.in = value;
    f.source = source;
    unsigned k = 0;
    for (; k < w.meetings; k++) {
        Meeting& m = w.meeting[k];
        if (!(m.mask & mask)) continue;
        if (m.mask != mask || m.kind != kind || m.line != line)
            host_fail("lanes of a warp wait for each other in different places: %s (line %d, mask %#x) and %s "
                      "(line %d, mask %#x)",
                      KINDS[kind], line, mask, KINDS[m.kind], m.line, m.mask);
        break;
    }
    if (k == w.meetings) w.meeting[w.meetings++] = {mask, 0, kind, line};
    w.meeting[k].arrived |= 1u << lane;
    if (w.meeting[k].arrived == mask) {
        w.meeting[k] = w.meeting[--w.meetings];
        complete(current / 32, mask, kind);
    } else {
        yield_to_scheduler();
    }
    return fibers[current].out;
}

unsigned host_lane() { return current % 32; }

// Handlers of GCC's checks: each is passed the place in the text first.
struct Place { const char* file; unsigned line, column; };
void __ubsan_handle_out_of_bounds(Place* p, uint64_t index) {
    host_fail("line %u: index %lld is outside of its array", p->line, (long long)index);
}
void __ubsan_handle_type_mismatch_v1(Place* p, uint64_t address) {
    host_fail("line %u: address %#llx is not a multiple of what is read or written there", p->line,
              (unsigned long long)address);
}
void __ubsan_handle_shift_out_of_bounds(Place* p, uint64_t, uint64_t by) {
    host_fail("line %u: shifts by %lld", p->line, (long long)by);
}
void __ubsan_handle_divrem_overflow(Place* p, uint64_t, uint64_t) {
    host_fail("line %u: divides an integer by 0", p->line);
}

// Run all blocks of a grid, in an order that `seed` decides. Returns 0, or 1 with `result` telling what went wrong.
int host_run(Entry f, const uint64_t* arguments, const unsigned* grid, const unsigned* block, unsigned shared_bytes,
             unsigned char* shared_begin, unsigned char* shared_end, uint64_t seed, int waits, unsigned seconds,
             Result* out) {
    result = out;
    in_block = false;
    entry = f;
    words = arguments;
    random_state = seed;
    result->address = 0;
    gridDim = {grid[0], grid[1], grid[2]};
    blockDim = {block[0], block[1], block[2]};
    threads = block[0] * block[1] * block[2];
    if (!dynamic_end) {
        unsigned char* all = (unsigned char*)mmap(nullptr, DYNAMIC + 2 * PAGE, PROT_READ | PROT_WRITE,
                                                  MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        mprotect(all, PAGE, PROT_NONE);
        mprotect(all + PAGE + DYNAMIC, PAGE, PROT_NONE);
        dynamic_end = all + PAGE + DYNAMIC;
    }
    if (waits && !stacks) {
        stacks = (unsigned char*)mmap(nullptr, LIMIT * (STACK + PAGE), PROT_READ | PROT_WRITE,
                                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        for (unsigned i = 0; i < LIMIT; i++) mprotect(stacks + i * (STACK + PAGE), PAGE, PROT_NONE);
    }
    static unsigned char signal_stack[64 << 10];
    stack_t alternative = {}, alternative_before;
    alternative.ss_sp = signal_stack;
    alternative.ss_size = sizeof signal_stack;
    sigaltstack(&alternative, &alternative_before);
    struct sigaction action = {}, before[5];
    action.sa_sigaction = on_signal;
    action.sa_flags = SA_SIGINFO | SA_ONSTACK;
    for (int i = 0; i < 5; i++) sigaction(SIGNALS[i], &action, &before[i]);
    itimerval timer = {}, off = {};
    timer.it_value.tv_sec = seconds;
    setitimer(ITIMER_VIRTUAL, &timer, nullptr);

    volatile int status = 1;
    if (!sigsetjmp(leave, 1)) {
        if (threads == 0 || threads > LIMIT) host_fail("a block of %u threads", threads);
        if (shared_bytes > DYNAMIC - (1 << 10)) host_fail("%u bytes of dynamic shared memory", shared_bytes);
        size_t dynamic = (shared_bytes + 15) & ~15u;
        host_dynamic = dynamic_end - dynamic;
        uint64_t count = (uint64_t)grid[0] * grid[1] * grid[2];
        if (count > 1u << 30) host_fail("%llu blocks are too many for the CPU", (unsigned long long)count);
        uint64_t step = 1, first = 0;
        if (count > 1) {
            first = next_random() % count;
            do step = 1 + next_random() % count;
            while (gcd((unsigned)step, (unsigned)count) != 1);
        }
        for (unsigned i = 0; i < threads; i++)
            fibers[i].index = {i % block[0], i / block[0] % block[1], i / block[0] / block[1]};
        for (uint64_t n = 0, b = first; n < count; n++, b = (b + step) % count) {
            blockIdx = {(unsigned)(b % grid[0]), (unsigned)(b / grid[0] % grid[1]), (unsigned)(b / grid[0] / grid[1])};
            in_block = true;
            memset(shared_begin, 0xff, shared_end - shared_begin);
            memset(host_dynamic, 0xff, dynamic);
            if (waits) {
                run_block();
            } else {
                bool backwards = next_random() & 1;
                for (unsigned i = 0; i < threads; i++) {
                    threadIdx = fibers[backwards ? threads - 1 - i : i].index;
                    f(words);
                }
            }
        }
        status = 0;
    }
    setitimer(ITIMER_VIRTUAL, &off, nullptr);
    for (int i = 0; i < 5; i++) sigaction(SIGNALS[i], &before[i], nullptr);
    sigaltstack(&alternative_before, nullptr);
    return status;
}
}
