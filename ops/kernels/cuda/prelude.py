"""The CUDA C++ that stands before every kernel: short names of types, half precision as storage, vectors of elements.

It includes no header, so that a kernel compiles in milliseconds and wherever NVRTC lies. Half precision is storage: its
elements are converted to float, computed with, and rounded to nearest even once.
"""

from __future__ import annotations

from ...errors import KernelError
from ...types import DType

C_TYPES = {
    "float32": "float",
    "float64": "double",
    "float16": "f16",
    "bfloat16": "bf16",
    "bool": "bool8",
    "int8": "i8",
    "uint8": "u8",
    "int16": "i16",
    "uint16": "u16",
    "int32": "i32",
    "uint32": "u32",
    "int64": "i64",
    "uint64": "u64",
}
"""The name in CUDA C++ of what an element is stored as."""

COMPUTED = {"f16": "float", "bf16": "float", "bool8": "bool"}
"""What an element is calculated with where that is not what it is stored as."""


def c_type(dtype: DType) -> str:
    """Return what elements of a type are stored as.

    Raises:
        KernelError: if kernels have no such elements.
    """
    try:
        return C_TYPES[dtype.name]
    except KeyError:
        raise KernelError(f"CUDA kernels have no elements of type {dtype.name}") from None


def computed(dtype: DType) -> str:
    """Return what elements of a type are calculated with: float for half precision."""
    stored = c_type(dtype)
    return COMPUTED.get(stored, stored)


PRELUDE = r"""
typedef signed char i8;
typedef unsigned char u8;
typedef short i16;
typedef unsigned short u16;
typedef int i32;
typedef unsigned int u32;
typedef long long i64;
typedef unsigned long long u64;

struct alignas(2) f16 { u16 bits; };
struct alignas(2) bf16 { u16 bits; };
struct bool8 { u8 byte; };

#ifdef __CUDACC__
static __device__ __forceinline__ float widen(f16 x) {
    float y;
    asm("cvt.f32.f16 %0, %1;" : "=f"(y) : "h"(x.bits));
    return y;
}
static __device__ __forceinline__ float widen(bf16 x) { return __uint_as_float((u32)x.bits << 16); }
static __device__ __forceinline__ void narrow(float x, f16* y) {
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(y->bits) : "f"(x));
}
static __device__ __forceinline__ void narrow(float x, bf16* y) {
    asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(y->bits) : "f"(x));
}
#endif

static __device__ __forceinline__ bool widen(bool8 x) { return x.byte != 0; }
template <typename T> static __device__ __forceinline__ T widen(T x) { return x; }
static __device__ __forceinline__ void narrow(bool x, bool8* y) { y->byte = x ? 1 : 0; }
template <typename T> static __device__ __forceinline__ void narrow(T x, T* y) { *y = x; }

/* N elements that are read or written at once; their address is a multiple of their bytes. */
template <typename T, int N> struct alignas(sizeof(T) * N) pack { T at[N]; };
"""
"""Defines i8 ... u64, f16, bf16, bool8, `widen(stored)`, `narrow(value, &stored)` and `pack<T, N>`."""
