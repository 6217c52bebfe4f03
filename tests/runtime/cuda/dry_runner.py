"""A `Runner` that has no memory and does nothing: programs of any size are made for it, and looked at."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass

import numpy as np

from onnxgrad.ops.kernels.cuda.kernel import Launch, LibraryCall, Prepared
from onnxgrad.runtime.cuda.printing import kernel_name
from onnxgrad.runtime.cuda.program import CudaProgram


@dataclass(frozen=True)
class Nowhere:
    """A block without memory."""

    nbytes: int
    address: int = 1 << 20


class MadeError(Exception):
    """A program was made and is to run."""

    def __init__(self, program):
        super().__init__()
        self.program = program


class DryRunner:
    """Takes every kernel and every call of a library as it is."""

    name, index, stream = "dry", 0, 0

    @contextlib.contextmanager
    def running(self):
        yield

    def allocate(self, nbytes):
        return Nowhere(nbytes)

    def lies(self, array):
        return False

    def array(self, array):
        return np.asarray(array)

    def load(self, kernel):
        return kernel

    def prepare(self, call):
        return Prepared(lambda *a: None, 0)


def caught(monkeypatch, call):
    """Return the program that a call makes first, which does not run."""

    def run(self, *args, **how):
        raise MadeError(self)

    monkeypatch.setattr(CudaProgram, "run", run)
    try:
        call()
    except MadeError as made:
        return made.program
    raise AssertionError("no program was made")


def count(program, name):
    """Return how many steps run a kernel, or a call of a library, whose name begins so."""
    return sum(kernel_name(s).startswith(name) for s in program.steps)


def launches(program):
    """Return how many pieces of work a program is on the device."""
    return sum(isinstance(s.work, Launch | LibraryCall) for s in program.steps)
