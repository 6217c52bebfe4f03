"""NVRTC: texts become machine code, and errors say where."""

from __future__ import annotations

import sys
from typing import Any

import pytest

from onnxgrad.ops.errors import KernelError
from onnxgrad.ops.kernels.cuda import nvrtc
from onnxgrad.ops.kernels.cuda.kernel import Kernel
from onnxgrad.ops.kernels.cuda.prelude import C_TYPES, PRELUDE

from .nvrtc import ARCHITECTURES, check, compile_all, why_no_nvrtc

needs_nvrtc = pytest.mark.skipif(why_no_nvrtc() is not None, reason=str(why_no_nvrtc()))


def _kernel(body: str, **how: Any) -> Kernel:
    bound = how.get("threads", 256)
    code = f'extern "C" __global__ void __launch_bounds__({bound}) k(float* y, i64 n) {{ {body} }}'
    return Kernel("k", code, ("pointer", "i64"), **how)


@needs_nvrtc
def test_a_kernel_compiles_for_every_generation() -> None:
    made = compile_all(_kernel("if (threadIdx.x < n) y[threadIdx.x] = expf(y[threadIdx.x]);"))
    assert tuple(made) == ARCHITECTURES
    assert all(0 < registers <= 64 and spills == 0 for registers, spills in made.values())


@needs_nvrtc
@pytest.mark.parametrize("c", sorted(set(C_TYPES.values())))
def test_the_prelude_holds_for_every_element_type(c: str) -> None:
    code = f"""extern "C" __global__ void __launch_bounds__(256) k(const {c}* x, {c}* y) {{
        pack<{c}, 2> v = *reinterpret_cast<const pack<{c}, 2>*>(x + 2 * threadIdx.x);
        for (int i = 0; i < 2; i++) narrow(widen(v.at[i]), &y[2 * threadIdx.x + i]);
    }}"""
    check(Kernel("k", code, ("pointer", "pointer")))


@needs_nvrtc
def test_the_log_tells_what_a_kernel_takes() -> None:
    made = nvrtc.compile_text(
        _kernel(
            "__shared__ float t[256]; t[threadIdx.x] = n; __syncthreads(); y[threadIdx.x] = t[255 - threadIdx.x];"
        ).text,
        "sm_90a",
    )
    assert made.code.startswith(b"\x7fELF")
    assert made.shared_bytes == 1024
    assert (made.spill_bytes, made.stack_bytes) == (0, 0)
    assert nvrtc.Cubin.unpack(made.pack()) == made
    # 1024 threads have 64 registers each; here a thread needs more at once.
    much = "float a[100]; for (int i = 0; i < 100; i++) a[i] = y[i * n];\n__syncthreads();\n"
    much += "for (int i = 0; i < 100; i++) y[i * n + 1] = a[i] + a[(i * 7) % 100];"
    spilled = nvrtc.compile_text(_kernel(much, threads=1024).text.replace("for (", '_Pragma("unroll") for ('), "sm_90a")
    assert spilled.registers == 64
    assert spilled.spill_bytes > 0
    with pytest.raises(AssertionError, match="spills"):
        check(_kernel(much.replace("for (", '_Pragma("unroll") for ('), threads=1024))


@needs_nvrtc
def test_too_many_registers_are_seen() -> None:
    with pytest.raises(AssertionError, match="declares 4"):
        check(_kernel("if (threadIdx.x < n) y[threadIdx.x] = expf(y[threadIdx.x]);", registers=4))


@needs_nvrtc
def test_errors_have_the_compilers_words_and_the_line() -> None:
    wrong = _kernel("\n    y[0] = nothing(n);\n")
    line = PRELUDE.count("\n") + 2
    with pytest.raises(
        KernelError, match=rf'(?s)k does not compile for sm_80:.*"nothing" is undefined.*line {line}: y.0. ='
    ) as e:
        nvrtc.compile_text(wrong.text, "sm_80", name="k")
    assert "widen(bf16)" not in str(e.value)
    with pytest.raises(KernelError, match="sm_1"):
        nvrtc.compile_text(wrong.text, "sm_1", name="k")


@pytest.mark.parametrize(
    ("capability", "known", "wanted"),
    [
        ((8, 0), (75, 80, 86, 90, 100), "sm_80"),
        ((8, 6), (75, 80, 86, 90, 100), "sm_86"),
        ((8, 9), (75, 80, 86, 90, 100), "sm_86"),
        ((9, 0), (80, 90, 100), "sm_90a"),
        ((10, 0), (90, 100, 103), "sm_100"),
        ((10, 3), (90, 100), "sm_100"),
        ((12, 1), (100, 120, 121), "sm_121"),
        ((13, 0), (100, 120), None),
        ((7, 0), (75, 80), None),
    ],
)
def test_architectures(
    capability: tuple[int, int], known: tuple[int, ...], wanted: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nvrtc, "supported", lambda: known)
    monkeypatch.setattr(nvrtc, "version", lambda: (13, 4))
    if wanted is None:
        with pytest.raises(KernelError, match=rf"NVRTC 13.4 has no code .* capability {capability[0]}.{capability[1]}"):
            nvrtc.architecture(capability)
    else:
        assert nvrtc.architecture(capability) == wanted


def test_without_bindings_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cuda.bindings", None)
    with pytest.raises(KernelError, match="pip install"):
        nvrtc.compile_text(PRELUDE, "sm_80")


@pytest.mark.parametrize("data", [b"", b"short", bytes(24) + b"\x7fELF", b"\x01\0\0\0\x04\0\0\0" + bytes(16) + b"ELF?"])
def test_other_bytes_are_no_cubin(data: bytes) -> None:
    with pytest.raises(ValueError, match="cubin"):
        nvrtc.Cubin.unpack(data)
