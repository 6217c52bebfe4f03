"""From kernels to addresses of native code: one module and one object for all kernels of a plan."""

from __future__ import annotations

import functools
import hashlib
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import llvmlite
import llvmlite.binding as llvm
import llvmlite.ir as ir

from ...errors import KernelError
from . import cache
from .emitter import Emitter
from .kernel import Kernel
from .target import Target, host_target


class BrokenKernelError(KernelError):
    """A kernel cannot be compiled; `key` says which."""

    def __init__(self, message: str, key: str) -> None:
        """Make it."""
        super().__init__(message)
        self.key = key


_lock = threading.Lock()
_engines: list[Any] = []
_compiled = 0


def compiled_modules() -> int:
    """Return how many modules this process has compiled rather than found; tests count recompilations with it."""
    return _compiled


@functools.cache
def _machine(target: Target) -> Any:
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    triple = llvm.get_default_triple()
    return llvm.Target.from_triple(triple).create_target_machine(
        cpu=target.cpu, features=target.features, opt=2, reloc="pic", codemodel="small"
    )


@functools.cache
def _compiler() -> str:
    """Return what tells this compiler from others."""
    how = hashlib.sha256(Path(__file__).read_bytes()).hexdigest()
    return f"{llvmlite.__version__} {llvm.llvm_version_info} {how}"


@functools.cache
def _sources() -> str:
    """Return a hash of the code that emits code: another version makes other objects."""
    digest = hashlib.sha256(_compiler().encode())
    for path in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def symbol(kernel: Kernel) -> str:
    """Return the name of a kernel's function."""
    return f"k_{kernel.key}"


def compile_kernels(kernels: Sequence[Kernel], target: Target | None = None) -> dict[str, int]:
    """Return the address of each kernel's native function, by the kernel's key.

    The object code comes from the disk cache where it is there.

    Raises:
        BrokenKernelError: naming the kernel that cannot be compiled.
    """
    target = target or host_target()
    distinct = {k.key: k for k in kernels}
    if not distinct:
        return {}
    ordered = [distinct[key] for key in sorted(distinct)]
    names = [symbol(k) for k in ordered]
    try:
        addresses = load_object(_identity(ordered, target), names, lambda: _emit(ordered, target), target)
    except BrokenKernelError:
        raise
    except KernelError:
        for k in ordered:  # which of them is it?
            try:
                _object(_emit([k], target), target)
            except KernelError as error:
                raise BrokenKernelError(f"kernel {k.name}: {error}", k.key) from error
        raise
    return {k.key: addresses[symbol(k)] for k in ordered}


def _identity(ordered: Sequence[Kernel], target: Target) -> str:
    return "\n".join([_sources(), repr(target), *(k.key for k in ordered)])


def object_key(kernels: Sequence[Kernel], target: Target) -> str:
    """Return the key in the cache of the object that `compile_kernels` makes of these."""
    distinct = {k.key: k for k in kernels}
    return _cache_key(_identity([distinct[key] for key in sorted(distinct)], target))


def _cache_key(identity: str) -> str:
    return hashlib.sha256(identity.encode()).hexdigest()


def find_object(key: str, names: Sequence[str], target: Target) -> dict[str, int] | None:
    """Return the addresses of functions of an object in the cache, or None where it is not there."""
    data = cache.read(key)
    try:
        return None if data is None else _link(data, names, target)
    except (RuntimeError, KernelError) as error:
        cache.warn_once(f"an object in {cache.folder()} cannot be loaded ({error}); it is made again")
        return None


def load_object(identity: str, names: Sequence[str], emit: Callable[[], Any], target: Target) -> dict[str, int]:
    """Return the addresses of functions of a module, from the cache or compiled now.

    Args:
        identity: what the object depends on; the cache's key.
        names: of the functions.
        emit: writes the module (`ir.Module` or text), if the object is not in the cache.
        target: what CPU it is for.
    """
    key = _cache_key(identity)
    found = find_object(key, names, target)
    if found is not None:
        return found
    data = _object(emit(), target)
    addresses = _link(data, names, target)
    cache.write(key, data)
    return addresses


def load_text(text: str, names: Sequence[str], target: Target) -> dict[str, int]:
    """Return the addresses of functions of a module written in LLVM's own language."""

    def emit() -> str:
        return f'target triple = "{llvm.get_default_triple()}"\n{text}'

    return load_object("\n".join([text, _compiler(), repr(target)]), names, emit, target)


def _emit(kernels: Sequence[Kernel], target: Target) -> ir.Module:
    module = ir.Module("plan")
    module.triple = llvm.get_default_triple()
    for k in kernels:
        emitter = Emitter(module, symbol(k), target, k.operands, k.dims, prefix=k.name)
        try:
            k.emit(emitter, k.params)
        except Exception as error:
            raise BrokenKernelError(f"kernel {k.name}: {type(error).__name__}: {error}", k.key) from error
        emitter.finish()
    return module


def _object(module: Any, target: Target) -> bytes:
    global _compiled
    with _lock:
        machine = _machine(target)
        try:
            parsed = llvm.parse_assembly(str(module))
        except RuntimeError as error:
            raise KernelError(f"LLVM refuses the emitted code: {error}") from error
        _compiled += 1
        return machine.emit_object(parsed)  # type: ignore[no-any-return]


def assembly(kernels: Sequence[Kernel], target: Target | None = None) -> str:
    """Return the assembly of kernels, to read."""
    target = target or host_target()
    with _lock:
        return str(_machine(target).emit_assembly(llvm.parse_assembly(str(_emit(kernels, target)))))


_MAGICS = (b"\x7fELF", b"\xcf\xfa\xed\xfe", b"\x64\x86", b"\x64\xaa")
"""How object files of Linux, macOS and Windows begin; LLVM's loader does not survive what is none."""


def _link(data: bytes, names: Sequence[str], target: Target) -> dict[str, int]:
    if not data.startswith(_MAGICS):
        raise KernelError("it is no object file")
    with _lock:
        engine = llvm.create_mcjit_compiler(llvm.parse_assembly(""), _fresh_machine(target))
        engine.add_object_file(llvm.ObjectFileRef.from_data(data))
        engine.finalize_object()
        addresses = {name: engine.get_function_address(name) for name in names}
        _engines.append(engine)
    missing = [n for n, a in addresses.items() if not a]
    if missing:
        raise KernelError(f"the object lacks {missing[0]}")
    return addresses


def _fresh_machine(target: Target) -> Any:
    """Return a target machine for one engine, which comes to own it."""
    _machine(target)
    return llvm.Target.from_triple(llvm.get_default_triple()).create_target_machine(
        cpu=target.cpu, features=target.features, opt=2, reloc="pic", codemodel="small", jit=True
    )
