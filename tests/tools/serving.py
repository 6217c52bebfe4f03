"""A stand-in for a model, and a real server on a free port, for the tests of the inference server."""

import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np

from onnxgrad.ops.dims import Dim
from onnxgrad.ops.errors import InputError
from onnxgrad.ops.types import STRING, TensorType


@dataclass(frozen=True)
class Port:
    name: str
    type: object


def port(name, dtype, *shape):
    dims = tuple(Dim.symbol(d) if isinstance(d, str) else d for d in shape)
    return Port(name, TensorType(np.dtype(dtype), dims))


class Stub:
    """Computes its outputs with a function of its feeds."""

    def __init__(self, inputs, outputs, function):
        self.inputs, self.outputs, self.function = tuple(inputs), tuple(outputs), function

    def run(self, feeds, outputs=None):
        for missing in {p.name for p in self.inputs} - set(feeds):
            raise InputError(f"input {missing!r} is missing")
        found = self.function(**feeds)
        return [found[name] for name in outputs or [p.name for p in self.outputs]]


def echo(dtype, *shape):
    """Return a stub whose output `y` is its input `x`."""
    return Stub([port("x", dtype, *shape)], [port("y", dtype, *shape)], lambda x: {"y": x})


def sums():
    """Return a stub of two inputs and two outputs."""
    return Stub(
        [port("a", np.float32, "n", 2), port("b", np.int64, "n")],
        [port("sum", np.float32, "n"), port("twice", np.int64, "n")],
        lambda a, b: {"sum": a.sum(1) + b.astype(np.float32), "twice": 2 * b},
    )


def shout():
    """Return a stub that makes strings loud."""
    return Stub(
        [port("x", STRING, "n")],
        [port("y", STRING, "n")],
        lambda x: {"y": np.array([v.upper() for v in x], object)},
    )


def broken():
    """Return a stub that fails as a bug would."""

    def fail(x):
        raise ZeroDivisionError("secret path /etc/passwd")

    return Stub([port("x", np.float32, "n")], [port("y", np.float32, "n")], fail)


@contextmanager
def running(app):
    """Serve an application from a thread; yields its address `127.0.0.1:port`."""
    from onnxgrad.tools.serve.server import listen, make_server

    with listen("127.0.0.1", 0) as listener:
        server = make_server(app)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            while not server.started:
                assert thread.is_alive()
                time.sleep(0.01)
            yield f"127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join(20)
    assert not thread.is_alive()
