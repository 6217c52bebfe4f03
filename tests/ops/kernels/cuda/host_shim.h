// What CUDA C++ offers a kernel, for g++: see host.py. Includes nothing, so that a kernel compiles quickly.
#pragma GCC system_header
#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __noinline__ __attribute__((noinline))
#define __launch_bounds__(...)
#define __align__(n) alignas(n)
#define __constant__ const
#define __shared__ static __attribute__((section("host_shared")))
#define __grid_constant__

typedef decltype(sizeof(0)) size_t;
typedef unsigned long long host_word;

struct uint3 { unsigned x, y, z; };
extern "C" {
extern uint3 threadIdx, blockIdx, blockDim, gridDim;
extern unsigned char* host_dynamic;
[[noreturn]] void host_fail(const char* format, ...);
host_word host_barrier(int line, int vote, host_word value);
host_word host_warp(int line, int kind, unsigned mask, host_word value, unsigned source);
unsigned host_lane();
extern char __start_host_shared[] __attribute__((weak, visibility("hidden")));
extern char __stop_host_shared[] __attribute__((weak, visibility("hidden")));
}
static const int warpSize = 32;

#define HOST_VECTOR2(name, T) struct alignas(2 * sizeof(T)) name { T x, y; }; \
    static inline name make_##name(T x, T y) { return {x, y}; }
#define HOST_VECTOR4(name, T, A) struct alignas(A) name { T x, y, z, w; }; \
    static inline name make_##name(T x, T y, T z, T w) { return {x, y, z, w}; }
HOST_VECTOR2(float2, float) HOST_VECTOR2(double2, double) HOST_VECTOR2(int2, int) HOST_VECTOR2(uint2, unsigned)
HOST_VECTOR4(float4, float, 16) HOST_VECTOR4(int4, int, 16) HOST_VECTOR4(uint4, unsigned, 16)

// Bits.
template <typename To, typename From> static inline To host_bits(From x) {
    static_assert(sizeof(To) == sizeof(From), "");
    To y;
    __builtin_memcpy(&y, &x, sizeof y);
    return y;
}
static inline float __uint_as_float(unsigned x) { return host_bits<float>(x); }
static inline float __int_as_float(int x) { return host_bits<float>(x); }
static inline unsigned __float_as_uint(float x) { return host_bits<unsigned>(x); }
static inline int __float_as_int(float x) { return host_bits<int>(x); }
static inline double __longlong_as_double(long long x) { return host_bits<double>(x); }
static inline long long __double_as_longlong(double x) { return host_bits<long long>(x); }
static inline int __double2hiint(double x) { return (int)(host_bits<host_word>(x) >> 32); }
static inline int __double2loint(double x) { return (int)host_bits<host_word>(x); }
static inline double __hiloint2double(int hi, int lo) { return host_bits<double>((host_word)(unsigned)hi << 32 | (unsigned)lo); }
static inline int __clz(int x) { return x ? __builtin_clz((unsigned)x) : 32; }
static inline int __clzll(long long x) { return x ? __builtin_clzll((host_word)x) : 64; }
static inline int __ffs(int x) { return __builtin_ffs(x); }
static inline int __ffsll(long long x) { return __builtin_ffsll(x); }
static inline int __popcll(host_word x) {  // the builtin is a function of libgcc, which is not linked
    int n = 0;
    for (; x; x &= x - 1) n++;
    return n;
}
static inline int __popc(unsigned x) { return __popcll(x); }
static inline unsigned __brev(unsigned x) {
    unsigned y = 0;
    for (int i = 0; i < 32; i++) y |= (x >> i & 1u) << (31 - i);
    return y;
}
static inline unsigned __funnelshift_l(unsigned lo, unsigned hi, unsigned by) {
    return by & 31 ? hi << (by & 31) | lo >> (32 - (by & 31)) : hi;
}
static inline unsigned __funnelshift_r(unsigned lo, unsigned hi, unsigned by) {
    return by & 31 ? lo >> (by & 31) | hi << (32 - (by & 31)) : lo;
}
static inline unsigned __byte_perm(unsigned a, unsigned b, unsigned s) {
    host_word all = (host_word)b << 32 | a;
    unsigned y = 0;
    for (int i = 0; i < 4; i++) y |= (unsigned)(all >> (8 * (s >> (4 * i) & 7)) & 255) << (8 * i);
    return y;
}
static inline unsigned __umulhi(unsigned a, unsigned b) { return (unsigned)((host_word)a * b >> 32); }
static inline int __mulhi(int a, int b) { return (int)((long long)a * b >> 32); }
static inline host_word __umul64hi(host_word a, host_word b) { return (host_word)((unsigned __int128)a * b >> 64); }
static inline long long __mul64hi(long long a, long long b) { return (long long)((__int128)a * b >> 64); }
static inline unsigned __umul24(unsigned a, unsigned b) { return (a & 0xffffff) * (b & 0xffffff); }

// Mathematics: the host's, which differs in the last bits.
#define HOST_F1(name) extern "C" double name(double) noexcept; extern "C" float name##f(float) noexcept; \
    static inline float name(float x) { return name##f(x); }
#define HOST_F2(name) extern "C" double name(double, double) noexcept; \
    extern "C" float name##f(float, float) noexcept; \
    static inline float name(float x, float y) { return name##f(x, y); }
HOST_F1(exp) HOST_F1(exp2) HOST_F1(exp10) HOST_F1(expm1) HOST_F1(log) HOST_F1(log2) HOST_F1(log10) HOST_F1(log1p)
HOST_F1(sqrt) HOST_F1(cbrt) HOST_F1(sin) HOST_F1(cos) HOST_F1(tan) HOST_F1(asin) HOST_F1(acos) HOST_F1(atan)
HOST_F1(sinh) HOST_F1(cosh) HOST_F1(tanh) HOST_F1(asinh) HOST_F1(acosh) HOST_F1(atanh) HOST_F1(erf) HOST_F1(erfc)
HOST_F1(lgamma) HOST_F1(tgamma) HOST_F1(floor) HOST_F1(ceil) HOST_F1(trunc) HOST_F1(rint) HOST_F1(round)
HOST_F1(nearbyint) HOST_F1(fabs) HOST_F1(logb)
HOST_F2(pow) HOST_F2(atan2) HOST_F2(fmod) HOST_F2(remainder) HOST_F2(hypot) HOST_F2(copysign) HOST_F2(nextafter)
HOST_F2(fmin) HOST_F2(fmax) HOST_F2(fdim)
extern "C" double fma(double, double, double) noexcept;
extern "C" float fmaf(float, float, float) noexcept;
static inline float fma(float x, float y, float z) { return fmaf(x, y, z); }
extern "C" double ldexp(double, int) noexcept;
extern "C" float ldexpf(float, int) noexcept;
extern "C" double scalbn(double, int) noexcept;
extern "C" float scalbnf(float, int) noexcept;
extern "C" double frexp(double, int*) noexcept;
extern "C" float frexpf(float, int*) noexcept;
extern "C" double modf(double, double*) noexcept;
extern "C" float modff(float, float*) noexcept;
extern "C" int ilogb(double) noexcept;
extern "C" int ilogbf(float) noexcept;
extern "C" long long llrint(double) noexcept;
extern "C" long long llrintf(float) noexcept;
extern "C" void sincos(double, double*, double*) noexcept;
extern "C" void sincosf(float, float*, float*) noexcept;
extern "C" int abs(int) noexcept;
extern "C" long long llabs(long long) noexcept;
static inline long long abs(long long x) { return llabs(x); }
static inline long abs(long x) { return (long)llabs(x); }
static inline float abs(float x) { return fabsf(x); }
static inline double abs(double x) { return fabs(x); }
static inline float rsqrtf(float x) { return (float)(1.0 / sqrt((double)x)); }
static inline double rsqrt(double x) { return 1.0 / sqrt(x); }
static inline float rsqrt(float x) { return rsqrtf(x); }
static inline float rcbrtf(float x) { return 1.0f / cbrtf(x); }
static inline double rcbrt(double x) { return 1.0 / cbrt(x); }
static inline double normcdf(double x) { return 0.5 * erfc(-x * 0.70710678118654752440); }
static inline float normcdff(float x) { return (float)normcdf((double)x); }
static inline double sinpi(double x) { return sin(3.14159265358979323846 * remainder(x, 2.0)); }
static inline double cospi(double x) { return cos(3.14159265358979323846 * remainder(x, 2.0)); }
static inline float sinpif(float x) { return (float)sinpi((double)x); }
static inline float cospif(float x) { return (float)cospi((double)x); }
static inline void sincospif(float x, float* s, float* c) { *s = sinpif(x), *c = cospif(x); }
static inline double host_erfinv(double y) {
    if (!(y > -1 && y < 1)) return y == 1 ? __builtin_inf() : y == -1 ? -__builtin_inf() : __builtin_nan("");
    double lo = -6.5, hi = 6.5;
    for (int i = 0; i < 80; i++) {
        double mid = 0.5 * (lo + hi);
        (erf(mid) < y ? lo : hi) = mid;
    }
    return y == 0 ? y : 0.5 * (lo + hi);
}
static inline double erfinv(double x) { return host_erfinv(x); }
static inline float erfinvf(float x) { return (float)host_erfinv(x); }
static inline bool isnan(float x) { return __builtin_isnan(x); }
static inline bool isnan(double x) { return __builtin_isnan(x); }
static inline bool isinf(float x) { return __builtin_isinf(x); }
static inline bool isinf(double x) { return __builtin_isinf(x); }
static inline bool isfinite(float x) { return __builtin_isfinite(x); }
static inline bool isfinite(double x) { return __builtin_isfinite(x); }
static inline bool signbit(float x) { return __builtin_signbit(x); }
static inline bool signbit(double x) { return __builtin_signbit(x); }
static inline float __fdividef(float x, float y) { return x / y; }
static inline float __expf(float x) { return expf(x); }
static inline float __exp10f(float x) { return exp10f(x); }
static inline float __logf(float x) { return logf(x); }
static inline float __log2f(float x) { return log2f(x); }
static inline float __log10f(float x) { return log10f(x); }
static inline float __powf(float x, float y) { return powf(x, y); }
static inline float __sinf(float x) { return sinf(x); }
static inline float __cosf(float x) { return cosf(x); }
static inline float __tanf(float x) { return tanf(x); }
static inline float __saturatef(float x) { return x > 0 ? x < 1 ? x : 1.0f : 0.0f; }
static inline float __fadd_rn(float x, float y) { return x + y; }
static inline float __fsub_rn(float x, float y) { return x - y; }
static inline float __fmul_rn(float x, float y) { return x * y; }
static inline float __fdiv_rn(float x, float y) { return x / y; }
static inline float __frcp_rn(float x) { return 1.0f / x; }
static inline float __fsqrt_rn(float x) { return sqrtf(x); }
static inline float __frsqrt_rn(float x) { return rsqrtf(x); }
static inline float __fmaf_rn(float x, float y, float z) { return fmaf(x, y, z); }
static inline double __dadd_rn(double x, double y) { return x + y; }
static inline double __dsub_rn(double x, double y) { return x - y; }
static inline double __dmul_rn(double x, double y) { return x * y; }
static inline double __ddiv_rn(double x, double y) { return x / y; }
static inline double __drcp_rn(double x) { return 1.0 / x; }
static inline double __dsqrt_rn(double x) { return sqrt(x); }
static inline double __fma_rn(double x, double y, double z) { return fma(x, y, z); }

// Conversions saturate, and NaN becomes 0 (of 64 bits: the least), as the GPU's do.
template <typename I, typename F> static inline I host_integer(F x) {
    const I least = (I)-1 < 0 ? (I)((I)1 << (sizeof(I) * 8 - 1)) : (I)0, most = (I)~least;
    if (x != x) return sizeof(I) == 8 ? (I)((host_word)1 << 63) : (I)0;
    if (x <= (F)least) return least;
    if (x >= (F)most) return most;
    return (I)x;
}
#define HOST_CONVERT(from, F, to, I, f) \
    static inline I __##from##2##to##_rn(F x) { return host_integer<I>(rint##f(x)); } \
    static inline I __##from##2##to##_rz(F x) { return host_integer<I>(trunc##f(x)); } \
    static inline I __##from##2##to##_rd(F x) { return host_integer<I>(floor##f(x)); } \
    static inline I __##from##2##to##_ru(F x) { return host_integer<I>(ceil##f(x)); }
HOST_CONVERT(float, float, int, int, f) HOST_CONVERT(float, float, uint, unsigned, f)
HOST_CONVERT(float, float, ll, long long, f) HOST_CONVERT(float, float, ull, host_word, f)
HOST_CONVERT(double, double, int, int, ) HOST_CONVERT(double, double, uint, unsigned, )
HOST_CONVERT(double, double, ll, long long, ) HOST_CONVERT(double, double, ull, host_word, )
static inline float __int2float_rn(int x) { return (float)x; }
static inline float __uint2float_rn(unsigned x) { return (float)x; }
static inline float __ll2float_rn(long long x) { return (float)x; }
static inline float __ull2float_rn(host_word x) { return (float)x; }
static inline double __int2double_rn(int x) { return x; }
static inline double __uint2double_rn(unsigned x) { return x; }
static inline double __ll2double_rn(long long x) { return (double)x; }
static inline double __ull2double_rn(host_word x) { return (double)x; }
static inline float __double2float_rn(double x) { return (float)x; }

// min and max ignore NaN, as fminf and fmaxf do.
#define HOST_MINMAX(A, B, R) static inline R min(A a, B b) { return (R)a < (R)b ? (R)a : (R)b; } \
    static inline R max(A a, B b) { return (R)a > (R)b ? (R)a : (R)b; }
HOST_MINMAX(int, int, int) HOST_MINMAX(unsigned, unsigned, unsigned) HOST_MINMAX(int, unsigned, unsigned)
HOST_MINMAX(unsigned, int, unsigned) HOST_MINMAX(long, long, long) HOST_MINMAX(unsigned long, unsigned long, unsigned long)
HOST_MINMAX(long long, long long, long long) HOST_MINMAX(host_word, host_word, host_word)
HOST_MINMAX(long long, host_word, host_word) HOST_MINMAX(host_word, long long, host_word)
static inline float min(float a, float b) { return fminf(a, b); }
static inline float max(float a, float b) { return fmaxf(a, b); }
static inline double min(double a, double b) { return fmin(a, b); }
static inline double max(double a, double b) { return fmax(a, b); }
static inline double min(float a, double b) { return fmin(a, b); }
static inline double max(float a, double b) { return fmax(a, b); }
static inline double min(double a, float b) { return fmin(a, b); }
static inline double max(double a, float b) { return fmax(a, b); }
static inline unsigned umin(unsigned a, unsigned b) { return a < b ? a : b; }
static inline unsigned umax(unsigned a, unsigned b) { return a > b ? a : b; }

// Waiting for each other.
#define __syncthreads() ((void)host_barrier(__LINE__, 0, 0))
#define __syncthreads_or(x) ((int)host_barrier(__LINE__, 1, (x) != 0))
#define __syncthreads_and(x) ((int)host_barrier(__LINE__, 2, (x) != 0))
#define __syncthreads_count(x) ((int)host_barrier(__LINE__, 3, (x) != 0))
static inline void host_syncwarp(int line, unsigned mask = 0xffffffffu) { host_warp(line, 1, mask, 0, 0); }
#define __syncwarp(...) host_syncwarp(__LINE__ __VA_OPT__(,) __VA_ARGS__)
static inline void __threadfence() {}
static inline void __threadfence_block() {}
static inline void __nanosleep(unsigned) {}

template <typename T> static inline T host_shuffle(int line, unsigned mask, T x, unsigned source) {
    static_assert(sizeof(T) == 4 || sizeof(T) == 8, "shuffles move 4 or 8 bytes");
    host_word word = 0;
    __builtin_memcpy(&word, &x, sizeof x);
    word = host_warp(line, 0, mask, word, source);
    __builtin_memcpy(&x, &word, sizeof x);
    return x;
}
template <typename T> static inline T host_shfl(int line, unsigned mask, T x, int source, int width = 32) {
    unsigned lane = host_lane();
    return host_shuffle(line, mask, x, (lane & ~(width - 1)) | (source & (width - 1)));
}
template <typename T> static inline T host_shfl_xor(int line, unsigned mask, T x, int by, int width = 32) {
    unsigned lane = host_lane(), source = lane ^ by;
    return host_shuffle(line, mask, x, (source & ~(width - 1)) > (lane & ~(width - 1)) ? lane : source);
}
template <typename T> static inline T host_shfl_down(int line, unsigned mask, T x, unsigned by, int width = 32) {
    unsigned lane = host_lane();
    return host_shuffle(line, mask, x, (lane & (width - 1)) + by < (unsigned)width ? lane + by : lane);
}
template <typename T> static inline T host_shfl_up(int line, unsigned mask, T x, unsigned by, int width = 32) {
    unsigned lane = host_lane();
    return host_shuffle(line, mask, x, (lane & (width - 1)) >= by ? lane - by : lane);
}
#define __shfl_sync(...) host_shfl(__LINE__, __VA_ARGS__)
#define __shfl_xor_sync(...) host_shfl_xor(__LINE__, __VA_ARGS__)
#define __shfl_down_sync(...) host_shfl_down(__LINE__, __VA_ARGS__)
#define __shfl_up_sync(...) host_shfl_up(__LINE__, __VA_ARGS__)
#define __ballot_sync(mask, x) ((unsigned)host_warp(__LINE__, 2, mask, (x) != 0, 0))
#define __any_sync(mask, x) ((int)(__ballot_sync(mask, x) != 0))
#define __all_sync(mask, x) ((int)(__ballot_sync(mask, x) == (mask)))

// Atomics: only one thread runs at a time.
#define HOST_ATOMIC(name, result) template <typename T, typename U> static inline T name(T* p, U value) { \
    T old = *p, x = (T)value; (void)x; *p = (result); return old; }
HOST_ATOMIC(atomicAdd, (T)(old + x)) HOST_ATOMIC(atomicSub, (T)(old - x)) HOST_ATOMIC(atomicExch, x)
HOST_ATOMIC(atomicMax, old > x ? old : x) HOST_ATOMIC(atomicMin, old < x ? old : x)
HOST_ATOMIC(atomicAnd, old & x) HOST_ATOMIC(atomicOr, old | x) HOST_ATOMIC(atomicXor, old ^ x)
template <typename T, typename U, typename V> static inline T atomicCAS(T* p, U compare, V value) {
    T old = *p;
    if (old == (T)compare) *p = (T)value;
    return old;
}

// Loads and stores that only a cache tells apart.
template <typename T> static inline T __ldg(const T* p) { return *p; }
template <typename T> static inline T __ldcs(const T* p) { return *p; }
template <typename T> static inline T __ldcg(const T* p) { return *p; }
template <typename T> static inline T __ldca(const T* p) { return *p; }
template <typename T> static inline void __stcs(T* p, T x) { *p = x; }
template <typename T> static inline void __stcg(T* p, T x) { *p = x; }
template <typename T> static inline void __stwt(T* p, T x) { *p = x; }

// The entry: words become the arguments that the kernel's own type says.
template <typename T> struct host_kind;
template <typename T> struct host_kind<T*> { static const char code = 'p'; };
template <> struct host_kind<int> { static const char code = 'i'; };
template <> struct host_kind<long long> { static const char code = 'l'; };
template <> struct host_kind<float> { static const char code = 'f'; };
template <> struct host_kind<double> { static const char code = 'd'; };
template <unsigned... I> struct host_list {};
template <unsigned N, unsigned... I> struct host_count : host_count<N - 1, N - 1, I...> {};
template <unsigned... I> struct host_count<0, I...> { typedef host_list<I...> list; };
template <typename T> static inline T host_argument(const host_word& word) {
    T x;
    __builtin_memcpy(&x, &word, sizeof x);
    return x;
}
template <typename... A, unsigned... I>
static inline void host_call(void (*f)(A...), const host_word* words, host_list<I...>) {
    f(host_argument<A>(words[I])...);
}
template <typename... A> static inline void host_start(void (*f)(A...), const host_word* words) {
    host_call(f, words, typename host_count<sizeof...(A)>::list());
}
template <typename... A> static inline void host_kinds(void (*)(A...), char* to) {
    const char kinds[] = {host_kind<A>::code..., 0};
    __builtin_memcpy(to, kinds, sizeof kinds);
}
#define HOST_ENTRY(kernel) \
    extern "C" __attribute__((visibility("default"))) void host_entry(const host_word* words) { host_start(kernel, words); } \
    extern "C" __attribute__((visibility("default"))) void host_describe(char* to, char** begin, char** end) { \
        host_kinds(kernel, to); *begin = __start_host_shared; *end = __stop_host_shared; }
