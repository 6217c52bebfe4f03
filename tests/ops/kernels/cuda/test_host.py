"""The emulator: what it computes, and that it refuses what a GPU does not forgive."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import pytest

from onnxgrad.ops.kernels.cuda.kernel import Kernel

from ..cpu.site import guarded
from . import host

pytestmark = pytest.mark.skipif(host.why_not() is not None, reason=str(host.why_not()))

FULL = "0xffffffffu"


def _kernel(body: str, parameters: str, threads: int = 256, before: str = "") -> Kernel:
    """Return a kernel `k` with this body; `parameters` as `const float* x, i64 n`."""
    kinds: dict[str, Any] = {"i32": "i32", "i64": "i64", "float": "f32", "double": "f64"}
    names = [p.split() for p in parameters.split(",")]
    code = f'{before}\nextern "C" __global__ void __launch_bounds__({threads}) k({parameters}) {{\n{body}\n}}\n'
    declared = tuple("pointer" if "*" in "".join(n) else kinds[n[0]] for n in names)
    return Kernel("k", code, declared, threads)  # type: ignore[arg-type]


def _run(k: Kernel, *arguments: Any, grid: int = 1, block: int = 32, shared: int = 0, seed: int = 0) -> None:
    words = [a.ctypes.data if isinstance(a, np.ndarray) else a for a in arguments]
    host.run(k, (grid, 1, 1), (block, 1, 1), words, shared, seed=seed)


def test_each_thread_of_each_block_runs_once() -> None:
    k = _kernel(
        """i64 i = threadIdx.x + (i64)blockDim.x * (threadIdx.y + blockDim.y * (threadIdx.z + (i64)blockDim.z *
        (blockIdx.x + gridDim.x * (blockIdx.y + gridDim.y * blockIdx.z))));
    atomicAdd(&y[i], 1);""",
        "i32* y",
    )
    y = np.zeros(4 * 2 * 3 * 5 * 2 * 3, np.int32)
    host.run(k, (5, 2, 3), (4, 2, 3), [y.ctypes.data])
    assert (y == 1).all()


def test_seeds_order_the_blocks() -> None:
    k = _kernel("if (threadIdx.x == 0) order[atomicAdd(count, 1)] = blockIdx.x;", "i32* order, i32* count")
    orders = []
    for seed in range(4):
        order, count = np.zeros(50, np.int32), np.zeros(1, np.int32)
        _run(k, order, count, grid=50, seed=seed)
        assert sorted(order) == list(range(50))
        orders.append(tuple(order))
    assert len(set(orders)) > 2
    assert tuple(range(50)) not in orders


def test_numbers_are_passed_by_their_types() -> None:
    k = _kernel("y[0] = a; y[1] = (double)b; y[2] = c; y[3] = d;", "double* y, i32 a, i64 b, float c, double d")
    y = np.zeros(4)
    _run(k, y, -7, -(2**40), 0.1, 0.1, block=1)
    assert y.tolist() == [-7, -(2**40), float(np.float32(0.1)), 0.1]


@pytest.mark.parametrize("block", [32, 96, 256, 1024])
def test_a_block_sums(block: int) -> None:
    k = _kernel(
        """__shared__ float parts[32];
    float s = 0;
    for (i32 i = threadIdx.x; i < n; i += blockDim.x) s += x[blockIdx.x * n + i];
    s = warp_sum(s);
    if (threadIdx.x % 32 == 0) parts[threadIdx.x / 32] = s;
    __syncthreads();
    if (threadIdx.x >= 32) return;
    s = warp_sum(threadIdx.x < blockDim.x / 32 ? parts[threadIdx.x] : 0.0f);
    if (threadIdx.x == 0) y[blockIdx.x] = s;""",
        "const float* x, float* y, i32 n",
        1024,
        f"""static __device__ float warp_sum(float v) {{
    for (int by = 16; by; by >>= 1) v += __shfl_xor_sync({FULL}, v, by);
    return v;
}}""",
    )
    x = np.random.default_rng(0).integers(-9, 9, (3, 777)).astype(np.float32)
    y = np.zeros(3, np.float32)
    _run(k, x, y, 777, grid=3, block=block)
    assert y.tolist() == x.sum(1).tolist()


@pytest.mark.parametrize(
    ("c", "dtype"), [("float", "f4"), ("double", "f8"), ("i32", "i4"), ("u32", "u4"), ("i64", "i8"), ("u64", "u8")]
)
def test_shuffles(c: str, dtype: str) -> None:
    k = _kernel(
        f"""{c} v = x[threadIdx.x];
    i32 t = threadIdx.x;
    y[t] = __shfl_sync({FULL}, v, (t * 7 + 3) % 32);
    y[64 + t] = __shfl_xor_sync({FULL}, v, 5);
    y[128 + t] = __shfl_down_sync({FULL}, v, 3, 8);
    y[192 + t] = __shfl_up_sync({FULL}, v, 3);
    y[256 + t] = __shfl_sync({FULL}, v, 2, 16);
    y[320 + t] = __shfl_xor_sync({FULL}, v, 20, 16);""",
        f"const {c}* x, {c}* y",
    )
    x = (np.random.default_rng(0).standard_normal(64) * 100).astype(dtype)
    y = np.zeros((6, 64), dtype)
    _run(k, x, y, block=64)
    lane, warp = np.arange(64) % 32, np.arange(64) // 32 * 32
    t = np.arange(64)
    assert np.array_equal(y[0], x[warp + (t * 7 + 3) % 32])
    assert np.array_equal(y[1], x[warp + (lane ^ 5)])
    assert np.array_equal(y[2], x[np.where(lane % 8 + 3 < 8, t + 3, t)])
    assert np.array_equal(y[3], x[np.where(lane >= 3, t - 3, t)])
    assert np.array_equal(y[4], x[t // 16 * 16 + 2])
    # A lane whose partner lies in a later segment keeps its own value; earlier segments may be read.
    assert np.array_equal(y[5], x[np.where(lane < 16, t, warp + (lane ^ 20))])


def test_halves_of_a_warp_meet_apart() -> None:
    k = _kernel(
        """u32 mask = threadIdx.x < 16 ? 0x0000ffffu : 0xffff0000u;
    i32 s = 0;
    for (i32 i = 0; i < (threadIdx.x < 16 ? 3 : 5); i++) s += __shfl_xor_sync(mask, (i32)threadIdx.x, 1);
    y[threadIdx.x] = s;""",
        "i32* y",
    )
    y = np.zeros(32, np.int32)
    _run(k, y)
    t = np.arange(32)
    assert np.array_equal(y, (t ^ 1) * np.where(t < 16, 3, 5))


def test_votes() -> None:
    k = _kernel(
        f"""i32 t = threadIdx.x;
    u32 b = __ballot_sync({FULL}, t % 3 == 0);
    i32 any = __any_sync({FULL}, t == 40), all = __all_sync({FULL}, t < 32);
    i32 count = __syncthreads_count(t % 5 == 0), o = __syncthreads_or(t == 63), a = __syncthreads_and(t < 63);
    __syncwarp();
    i64* to = y + t / 32 * 6;
    if (t % 32 == 0) {{ to[0] = b; to[1] = any; to[2] = all; to[3] = count; to[4] = o; to[5] = a; }}""",
        "i64* y",
    )
    y = np.zeros((2, 6), np.int64)
    _run(k, y, block=64)
    ballots = [sum(1 << lane for lane in range(32) if (lane + w * 32) % 3 == 0) for w in range(2)]
    assert y.tolist() == [[ballots[0], 0, 1, 13, 1, 0], [ballots[1], 1, 0, 13, 1, 0]]


def test_atomics() -> None:
    k = _kernel(
        """atomicAdd(&f[0], 0.5f);
    atomicAdd(&i[0], 2); atomicMax(&i[1], (i32)threadIdx.x); atomicMin(&i[2], -(i32)threadIdx.x);
    u32 seen = atomicExch((u32*)&i[3], 9u);
    if (atomicCAS((u32*)&i[4], 0u, 1u) == 0u) i[5] = 7;
    atomicAdd((u64*)&wide[0], (u64)1 << 33);
    atomicOr(&i[6], 1 << (threadIdx.x % 8));""",
        "float* f, i32* i, i64* wide",
    )
    f, i, wide = np.zeros(1, np.float32), np.zeros(7, np.int32), np.zeros(1, np.int64)
    _run(k, f, i, wide)
    assert f[0] == 16
    assert i.tolist() == [64, 31, -31, 9, 1, 7, 255]
    assert wide[0] == 32 << 33


def test_dynamic_shared_memory() -> None:
    k = _kernel(
        """extern __shared__ __align__(16) unsigned char dynamic[];
    float* tile = reinterpret_cast<float*>(dynamic);
    tile[threadIdx.x] = x[threadIdx.x];
    __syncthreads();
    y[threadIdx.x] = tile[63 - threadIdx.x];""",
        "const float* x, float* y",
    )
    x, y = np.arange(64, dtype=np.float32), np.zeros(64, np.float32)
    _run(k, x, y, block=64, shared=256)
    assert np.array_equal(y, x[::-1])
    with pytest.raises(host.HostError, match="shared memory behind its end"):
        _run(k, x, y, block=64, shared=240)


def test_shared_memory_is_poisoned_for_each_block() -> None:
    k = _kernel(
        """__shared__ float tile[4];
    y[blockIdx.x] = tile[3];
    __syncthreads();
    tile[3] = 5.0f;""",
        "float* y",
    )
    y = np.zeros(3, np.float32)
    _run(k, y, grid=3, block=1)
    assert np.isnan(y).all()


def test_shared_memory_in_templates_is_one_each() -> None:
    k = _kernel(
        "y[threadIdx.x] = backwards<float>(x[threadIdx.x]) + (float)backwards<i32>((i32)x[threadIdx.x]);",
        "const float* x, float* y",
        before="""template <typename T> static __device__ T backwards(T v) {
    __shared__ T tile[64];
    tile[threadIdx.x] = v;
    __syncthreads();
    return tile[63 - threadIdx.x];
}""",
    )
    x, y = np.arange(64, dtype=np.float32), np.zeros(64, np.float32)
    _run(k, x, y, block=64)
    assert np.array_equal(y, 2 * x[::-1])


@pytest.mark.parametrize("before", ["", "__syncthreads();"])
def test_a_missing_barrier_shows(before: str) -> None:
    k = _kernel(
        f"""__shared__ float tile[64];
    for (i32 round = 0; round < 3; round++) {{
        {before}
        tile[threadIdx.x] = x[threadIdx.x] + round;
        {"__syncthreads();" if not before else ""}
        y[round * 64 + threadIdx.x] = tile[63 - threadIdx.x];
    }}""",
        "const float* x, float* y",
    )
    x = np.arange(64, dtype=np.float32)
    right = 0
    for seed in range(8):
        y = np.zeros((3, 64), np.float32)
        _run(k, x, y, block=64, seed=seed)
        right += np.array_equal(y, x[::-1] + np.arange(3)[:, None])
    assert right < 4


@pytest.mark.parametrize(("c", "dtype"), [("f16", np.float16), ("bf16", ml_dtypes.bfloat16)])
def test_half_precision_widens_and_rounds_to_nearest_even(c: str, dtype: Any) -> None:
    widen = _kernel("i64 i = blockIdx.x * 256 + threadIdx.x; y[i] = widen(x[i]);", f"const {c}* x, float* y")
    narrow = _kernel("i64 i = blockIdx.x * 256 + threadIdx.x; narrow(x[i], &y[i]);", f"const float* x, {c}* y")
    halves = np.arange(65536, dtype=np.uint16).view(dtype)
    wide = np.zeros(65536, np.float32)
    _run(widen, halves, wide, grid=256, block=256)
    with np.errstate(invalid="ignore"):
        np.testing.assert_array_equal(wide, halves.astype(np.float32))
    finite = np.sort(wide[np.isfinite(wide)])
    middle = ((finite[1:].astype(np.float64) + finite[:-1]) / 2).astype(np.float32)
    random = np.random.default_rng(0).integers(0, 2**32, 1 << 16, dtype=np.uint32).view(np.float32)
    limits = np.array([65504, 65519.996, 65520, 3.4e38, np.inf, np.nan, 0, 2**-24, 2**-25, 1e-45], np.float32)
    every = np.concatenate([finite, middle, np.nextafter(middle, np.inf), np.nextafter(middle, -np.inf), random])
    every = np.concatenate([every, limits, -limits])
    every = np.resize(every, -(-every.size // 256) * 256)
    got = np.zeros(every.size, dtype)
    _run(narrow, every, got, grid=every.size // 256, block=256)
    with np.errstate(all="ignore"):
        wanted = every.astype(dtype)
    nan = np.isnan(every)
    assert np.isnan(got[nan].astype(np.float32)).all()
    assert np.array_equal(got[~nan].view(np.uint16), wanted[~nan].view(np.uint16))


def test_conversions_saturate() -> None:
    k = _kernel("y[threadIdx.x] = __float2int_rn(x[threadIdx.x]);", "const float* x, i32* y")
    x = np.array([2.5, -3.5, 1e20, -np.inf, np.nan, 2147483647], np.float32)
    y = np.zeros(6, np.int32)
    _run(k, x, y, block=6)
    assert y.tolist() == [2, -4, 2**31 - 1, -(2**31), 0, 2**31 - 1]


def test_packs_are_read_at_once_where_they_are_aligned() -> None:
    k = _kernel(
        """pack<float, 4> v = *reinterpret_cast<const pack<float, 4>*>(x + 4 * threadIdx.x);
    for (int i = 0; i < 4; i++) y[4 * threadIdx.x + i] = v.at[i];""",
        "const float* x, float* y",
    )
    x, y = guarded(576, at_end=False).view(np.float32), np.zeros(128, np.float32)
    x[:] = np.arange(144)
    _run(k, x, y)
    assert np.array_equal(y, np.arange(128))
    with pytest.raises(host.HostError, match="not a multiple"):
        _run(k, x[1:], y)


WRONG = {
    "a barrier that half of a warp reaches": ("if (threadIdx.x < 16) __syncthreads(); else __syncwarp();", "waits for"),
    "two barriers": ("if (threadIdx.x < 32) __syncthreads();\nelse __syncthreads();", "different __syncthreads"),
    "a shuffle with lanes that ended": (
        f"if (threadIdx.x % 32 > 9) return;\ny[0] = __shfl_sync({FULL}, y[0], 0);",
        r"names lane \d+, which has ended.*\n    y.0. = __shfl_sync|lanes that ended",
    ),
    "a shuffle in one branch": (
        f"if (threadIdx.x % 2) y[0] = __shfl_sync({FULL}, y[0], 0);\nelse y[0] = __shfl_sync({FULL}, y[1], 0);",
        "different places",
    ),
    "a mask without its caller": ("y[0] = __shfl_sync(0xfffffffeu, y[0], 1);", "is called by lane 0"),
    "a lane outside of the mask": (
        "if (threadIdx.x < 16) y[0] = __shfl_sync(0xffffu, y[0], 20);",
        "reads lane 20",
    ),
    "an index beyond its array": ("float a[4]; for (int i = 0; i <= n; i++) a[i] = 0.0f; y[0] = a[n - 1];", "index 4"),
    "memory behind": ("y[16 + threadIdx.x] = 1.0f;", "not its own"),
    "memory before": ("y[-300 * n] = 1.0f;", "not its own"),
    "no memory": ("*(float*)0 = 1.0f;", "not its own"),
    "a division by zero": ("y[0] = 7 / (n - 4);", "by 0"),
    "a shift by all bits": ("y[0] = 1 << (n * 8);", "shifts by 32"),
    "waiting for another block": ("while (*(volatile float*)y == 0.0f) {}", "does not end"),
    "too much local memory": (
        "volatile float a[40000]; for (int i = 0; i < 40000; i++) a[i] = n; __syncthreads();",
        "larger than",
    ),
}  # fmt: skip


@pytest.mark.parametrize("wrong", WRONG)
def test_refused(wrong: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host, "_SECONDS", 1)
    body, message = WRONG[wrong]
    memory = guarded(64, at_end=True).view(np.float32)
    memory[:] = 0
    with pytest.raises(host.HostError, match=message):
        _run(_kernel(body, "float* y, i32 n"), memory, 4, block=64)
    _run(_kernel("y[0] = n;", "float* y, i32 n"), memory, 4)  # and the next one runs
    assert memory[0] == 4


def test_a_partial_warp_has_no_full_mask() -> None:
    with pytest.raises(host.HostError, match="lane 16, which the block does not have"):
        _run(_kernel(f"y[0] = __shfl_sync({FULL}, y[0], 0);", "float* y"), np.zeros(1, np.float32), block=16)


def test_texts_that_do_not_compile_say_where() -> None:
    with pytest.raises(host.HostError, match=r"k.cu:\d+.*\n?.*nothing"):
        host.compile_kernels([_kernel("nothing(y);", "float* y")])


def test_parameters_are_those_of_the_text() -> None:
    k = Kernel("k", 'extern "C" __global__ void __launch_bounds__(32) k(float* y, i64 n) {}', ("pointer", "i32"), 32)
    with pytest.raises(host.HostError, match=r"takes \(pl\) in its text and declares \(pi\)"):
        host.compile_kernels([k])
