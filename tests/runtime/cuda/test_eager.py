"""Eager ops on a device: the device's kernels, in the emulator, against PyTorch and the array kernels."""

from __future__ import annotations

import threading

import numpy as np
import pytest

import onnxgrad as og
from onnxgrad import nn
from onnxgrad.nn import functional as F
from onnxgrad.ops import conv, dropout, index, layout, matmul, normalize, pointwise as pw, pool, reduce
from onnxgrad.ops.errors import DeviceError, OpError, OutOfMemoryError
from onnxgrad.ops.kernels.cuda.kernel import Prepared
from onnxgrad.ops.types import TensorType
from onnxgrad.runtime.cuda import choice, compiler, eager as engine
from onnxgrad.runtime.cuda.eager import dense_order
from onnxgrad.runtime.cuda.eager_calls import ON_DEVICE
from onnxgrad.runtime.graph.execute import execute, plan_of
from onnxgrad.runtime.graph.graph import Graph

from ...ops.device_arrays import library, made, ndarray
from .eager_runner import EagerRunner, eager as eager
from .fake_driver import CUDARuntimeError, driver

DEVICE_OPS = [op for ops in ON_DEVICE.values() for op in ops]


def floats(*shape, seed=0):
    return np.random.default_rng([seed, *shape]).standard_normal(shape).astype(np.float32)


def there(array, **how):
    return og.tensor(array, device="cuda", **how)


def device_kernel(op):
    return op.eager_kernel.device


def programs():
    """Return the programs of all ops, by the op's name."""
    return {op.name: device_kernel(op).programs for op in DEVICE_OPS if device_kernel(op).programs}


def refusals():
    return [reason for op in DEVICE_OPS for reason in device_kernel(op).refused]


LABELS = np.array([2, 0, 4, 1])
TOKENS = np.array([[1, 5, 5], [0, 6, 2]])
CASES = {
    "conv": (lambda F, x, w, b: F.conv2d(x, w, b, stride=2, padding=1), [(2, 4, 7, 7), (6, 4, 3, 3), (6,)]),
    "conv of a pixel": (lambda F, x, w: F.conv2d(x, w), [(2, 4, 5, 5), (6, 4, 1, 1)]),
    "depthwise": (lambda F, x, w: F.conv2d(x, w, padding=1, groups=4), [(2, 4, 5, 5), (4, 1, 3, 3)]),
    "conv_transpose": (lambda F, x, w: F.conv_transpose2d(x, w, stride=2), [(2, 4, 4, 4), (4, 3, 3, 3)]),
    "max_pool": (lambda F, x: F.max_pool2d(x, 3, 2, 1), [(2, 3, 8, 8)]),
    "avg_pool": (lambda F, x: F.avg_pool2d(x, 3, 2, 1), [(2, 3, 8, 8)]),
    "linear": (lambda F, x, w, b: F.linear(x, w, b), [(3, 4, 8), (5, 8), (5,)]),
    "batch_norm": (lambda F, x, w, b: F.batch_norm(x, None, None, w, b, True), [(3, 4, 5, 5), (4,), (4,)]),
    "group_norm": (lambda F, x, w, b: F.group_norm(x, 2, w, b), [(2, 4, 5, 5), (4,), (4,)]),
    "layer_norm": (lambda F, x, w, b: F.layer_norm(x, (8,), w, b), [(3, 4, 8), (8,), (8,)]),
    "softmax": (lambda F, x: F.softmax(x, -1), [(3, 4, 8)]),
    "log_softmax": (lambda F, x: F.log_softmax(x, 1), [(3, 4, 8)]),
    "attention": (
        lambda F, q, k, v: F.scaled_dot_product_attention(q, k, v, is_causal=True), [(2, 2, 5, 16)] * 3,
    ),
    "cross_entropy": (lambda F, x, labels: F.cross_entropy(x, labels), [(4, 5), LABELS]),
    "embedding": (lambda F, tokens, w: F.embedding(tokens, w), [TOKENS, (7, 8)]),
}  # fmt: skip


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", CASES)
def test_values_and_gradients_are_pytorchs(eager, name, dtype):
    torch = pytest.importorskip("torch")
    f, shapes = CASES[name]
    arrays = [floats(*s, seed=i) if isinstance(s, tuple) else s for i, s in enumerate(shapes)]
    mine = [there(a).to(dtype).requires_grad_() if a.dtype == np.float32 else there(a) for a in arrays]
    theirs = [
        torch.tensor(a).to(getattr(torch, dtype)).requires_grad_() if a.dtype == np.float32 else torch.tensor(a)
        for a in arrays
    ]
    y, wanted = f(F, *mine), f(torch.nn.functional, *theirs)
    g = floats(*y.shape, seed=9)
    y.backward(there(g).to(dtype))
    wanted.backward(torch.tensor(g).to(wanted.dtype))
    assert y.dtype == dtype and type(y._array) is ndarray and y.is_contiguous()
    close = {"rtol": 1e-4, "atol": 1e-5} if dtype == "float32" else {"rtol": 0.05, "atol": 0.05}
    pairs = [(y, wanted), *((a.grad, b.grad) for a, b in zip(mine, theirs, strict=True) if a.requires_grad)]
    for a, b in pairs:
        np.testing.assert_allclose(a.detach().float().cpu().numpy(), b.detach().float().numpy(), **close)
    assert programs() and not refusals()


def test_graphs_that_run_node_by_node_use_them(eager):
    """What is behind sizes that only running tells is no program; its products still are the device's."""
    graph = Graph("behind")
    with graph.building():
        x, w = (graph.input(n, TensorType(np.dtype(np.float32), s)) for n, s in (("x", (6, 8)), ("w", (8, 4))))
        kept = index.gather(x, layout.reshape(index.nonzero(pw.greater(reduce.sum_(x, axes=(1,)), 0.0)), shape=(-1,)))
        graph.outputs = [normalize.softmax(matmul.matmul(kept, w), axis=-1)]
    a, b = floats(6, 8), floats(8, 4)
    (found,), _ = execute(plan_of(graph), [there(a)._array, there(b)._array])
    rows = a[a.sum(axis=1) > 0].astype(np.float64) @ b
    wanted = np.exp(rows - rows.max(axis=1, keepdims=True))
    np.testing.assert_allclose(found.get(), wanted / wanted.sum(axis=1, keepdims=True), rtol=1e-4)
    assert {"matmul", "softmax", "gather", "sum"} <= programs().keys()


class Residual(nn.Module):
    """A small network of the kind of ResNet."""

    def __init__(self):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.side, self.head = nn.Conv2d(8, 8, 1, bias=False), nn.Linear(8, 5)

    def forward(self, x):
        x = F.max_pool2d(F.relu(self.norm(self.conv(x))), 3, 2, 1)
        return self.head(F.adaptive_avg_pool2d(x + self.side(x), 1).flatten(1))


class Encoder(nn.Module):
    """A small network of the kind of BERT."""

    def __init__(self):
        super().__init__()
        self.embedding, self.norm = nn.Embedding(11, 16), nn.LayerNorm(16)
        self.layer = nn.TransformerEncoderLayer(16, 2, 32, dropout=0.1, batch_first=True, activation="gelu")
        self.head = nn.Linear(16, 5)

    def forward(self, x):
        return self.head(self.norm(self.layer(self.embedding(x)))[:, 0])


RESNET = {
    "conv", "conv_input_grad", "conv_weight_grad", "batch_norm_train", "batch_norm_train_grad", "max_pool",
    "max_pool_grad", "matmul", "sum_to", "softmax_cross_entropy", "softmax_cross_entropy_grad",
}  # fmt: skip
BERT = {
    "gather", "gather_grad", "attention_weights", "layer_norm", "layer_norm_grad", "matmul", "dropout_train", "sum_to",
    "softmax_cross_entropy", "softmax_cross_entropy_grad",
}  # fmt: skip


@pytest.mark.parametrize(
    ("network", "x", "wanted"),
    [(Residual, floats(4, 3, 8, 8), RESNET), (Encoder, np.arange(28).reshape(4, 7) % 11, BERT)],
    ids=["resnet", "bert"],
)
def test_training_is_that_of_the_cpu_and_runs_kernels(eager, network, x, wanted):
    def trained(device):
        og.manual_seed(0)
        module = network().to(device)
        method = og.optim.SGD(module.parameters(), lr=0.1)
        losses = []
        for _ in range(3):
            method.zero_grad()
            loss = F.cross_entropy(module(og.tensor(x, device=device)), og.tensor(LABELS, device=device))
            loss.backward()
            method.step()
            losses.append(loss.item())
        return losses, [p.detach().cpu().numpy() for p in module.parameters()]

    found, expected = trained("cuda"), trained("cpu")
    np.testing.assert_allclose(found[0], expected[0], rtol=1e-4)
    for a, b in zip(found[1], expected[1], strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4)
    assert wanted <= set(programs()) and not refusals()


def test_autocast_calls_kernels_of_half_precision(eager):
    x, w = there(floats(2, 4, 6, 6)), there(floats(5, 4, 3, 3, seed=1), requires_grad=True)
    with og.amp.autocast("cuda", dtype="bfloat16"):
        y = F.conv2d(x, w)
    y.float().sum().backward()
    assert y.dtype == "bfloat16" and w.grad.dtype == "float32"
    assert {key[2][0].name for key in device_kernel(conv.conv)._programs} == {"bfloat16"} and not refusals()


# signatures -----------------------------------------------------------------------------------------------------------


def test_a_signature_is_compiled_once(eager):
    x, w = there(floats(3, 8)), there(floats(8, 5))
    first = F.softmax(x @ w, -1)
    count, _ = len(eager.log), eager.log.clear()
    assert count and len(programs()["softmax"]) == len(programs()["matmul"]) == 1
    second = F.softmax(x @ w, -1)
    assert eager.log == ["cublaslt", "softmax"] and len(programs()["softmax"]) == 1
    np.testing.assert_array_equal(first.cpu().numpy(), second.cpu().numpy())
    eager.log.clear()
    F.softmax(there(floats(4, 5)), -1)  # other sizes take the kernels that there are
    assert eager.log == ["softmax"] and len(programs()["softmax"]) == 2


def test_tf32_has_programs_of_its_own(eager):
    a = there(floats(8, 8))
    for allowed in (False, True, False):
        og.backends.cuda.matmul.allow_tf32 = allowed
        a @ a
    assert [d.compute for d in eager.prepared] == ["f32", "tf32"] and len(programs()["matmul"]) == 2


def test_the_signatures_of_an_op_are_bounded(eager, monkeypatch):
    monkeypatch.setattr(engine, "SIGNATURES", 2)
    x = there(floats(6, 2, 4, 4))
    for n in (1, 2, 1, 3):
        F.avg_pool2d(x[:n], 3, 2, 1, count_include_pad=False)
    assert [key[2][1][0] for key in device_kernel(pool.sum_pool)._programs] == [1, 3]


# how arrays lie -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("shape", "strides", "order"),
    [
        ((2, 3, 4), (48, 16, 4), (0, 1, 2)),
        ((2, 3, 4), (48, 4, 12), (0, 2, 1)),
        ((1, 3, 4), (4, 16, 4), (0, 1, 2)),
        ((2, 3), (32, 4), None),
        ((2, 3), (0, 4), None),
        ((), (), ()),
    ],
)
def test_the_order_in_which_an_array_lies(shape, strides, order):
    assert dense_order(shape, strides, 4) == order


def aligned(array):
    """Return a device array of these elements as CuPy's pool aligns it."""
    found = ndarray(array.shape, array.dtype)
    found[...] = made(array)
    return found


@pytest.mark.parametrize(
    ("view", "copies"),
    [
        (lambda a: a, 0),
        (lambda a: a.T, 0),
        (lambda a: a[::2], 1),
        (lambda a: a[1:], 1),
        (lambda a: a[:, 1:], 1),
        (lambda a: library.broadcast_to(a[:1], (6, 6)), 1),
    ],
    ids=["whole", "turned", "every second", "not aligned", "with gaps", "broadcast"],
)
def test_matrices_are_read_where_they_lie(eager, view, copies, monkeypatch):
    a = view(aligned(floats(6, 6)))
    b = aligned(floats(a.shape[1], 6, seed=1))
    write, written = ndarray.__setitem__, []
    monkeypatch.setattr(ndarray, "__setitem__", lambda *given: written.append(given) or write(*given))
    y = matmul.matmul.eager_kernel(a, b)
    assert len(written) == copies and device_kernel(matmul.matmul).programs[0].kernels == ("cublaslt MatMul",)
    np.testing.assert_allclose(y.get(), a.get() @ b.get(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("size", [(2, 4, 6, 6), (1, 4, 6, 6), (2, 4, 1, 6)])
def test_images_that_lie_channels_last_are_convolved_as_they_lie(eager, size):
    n, c, h, w = size
    last = aligned(floats(n, h, w, c)).transpose(0, 3, 1, 2)
    filters = aligned(floats(5, c, 1, 3, seed=1))
    win = conv.Window((1, 1), ((0, 0), (0, 0)), (1, 1))
    y = conv.conv.eager_kernel(last, filters, win=win)
    (program,) = device_kernel(conv.conv).programs
    assert program.kernels[1] == "cudnn ConvForward" and len(program.kernels) == 3  # filters and result are copied
    assert y.flags.c_contiguous
    np.testing.assert_allclose(y.get(), conv.conv.run(last.get(), filters.get(), win=win), rtol=1e-4, atol=1e-5)


def test_results_are_whole_new_arrays(eager):
    x, w = there(floats(2, 3, 6, 6)), there(floats(4, 3, 3, 3))
    y = F.conv2d(x, w)
    assert y.is_contiguous() and y._array.base is None and y.view(2, -1).shape == (2, 64)
    y += 1
    again = F.conv2d(x, w)
    np.testing.assert_allclose(y.cpu().numpy(), again.cpu().numpy() + 1, rtol=1e-6)


def test_the_keys_of_draws_come_from_the_host(eager):
    x = floats(4, 33)
    found, wanted = [], []
    for place, kept in (("cuda", found), ("cpu", wanted)):
        og.manual_seed(3)
        kept += [F.dropout(og.tensor(x, device=place), 0.4).cpu().numpy() for _ in range(2)]
    np.testing.assert_array_equal(found, wanted)
    assert len(device_kernel(dropout.dropout_train).programs) == 1 and "dropout_train" in eager.log


# what has no kernel ---------------------------------------------------------------------------------------------------


def test_an_op_without_a_rule_runs_its_array_kernel(eager, monkeypatch):
    monkeypatch.setattr(compiler, "LOWERINGS", {})
    x = there(floats(3, 8))
    for _ in range(2):
        y = F.softmax(x, -1)
    np.testing.assert_array_equal(y.cpu().numpy(), normalize.softmax.run(x.cpu().numpy(), axis=-1))
    (reason,) = device_kernel(normalize.softmax).refused
    assert "(softmax): it has no kernel for CUDA" in reason and not eager.log


@pytest.mark.parametrize("dtype", [np.complex64, np.float16])
def test_types_without_a_kernel_run_array_kernels(eager, dtype):
    a = made(np.ones((4, 4), dtype)) if dtype == np.complex64 else aligned(np.ones((4, 4), dtype))
    np.testing.assert_array_equal(matmul.matmul.eager_kernel(a, a).get(), np.full((4, 4), 4, dtype))
    assert bool(refusals()) == (dtype == np.complex64)


def test_no_elements(eager):
    x = there(np.zeros((0, 8), np.float32))
    assert F.softmax(x, -1).shape == (0, 8) and (x.T @ x).sum().item() == 0


def test_a_library_that_fails_at_first_is_not_asked_again(eager, monkeypatch):
    asked = []

    def broken(*_):
        asked.append(1)
        raise RuntimeError("CUDNN_STATUS_NOT_SUPPORTED")

    monkeypatch.setattr(EagerRunner, "prepare", lambda self, call: Prepared(broken, 16))
    a = there(floats(4, 4))
    with pytest.warns(RuntimeWarning, match=r"matmul: cublaslt failed: CUDNN_STATUS_NOT_SUPPORTED; it runs its array"):
        y = a @ a
    np.testing.assert_allclose(y.cpu().numpy(), a.cpu().numpy() @ a.cpu().numpy(), rtol=1e-6)
    np.testing.assert_array_equal((a @ a).cpu().numpy(), y.cpu().numpy())
    assert len(asked) == 1


def test_programs_can_be_switched_off(eager, monkeypatch):
    monkeypatch.setenv(choice.VARIABLE, "off")
    F.softmax(there(floats(3, 8)), -1)
    assert refusals() == ["ONNXGRAD_CUDA is off"] and not eager.log


# errors ---------------------------------------------------------------------------------------------------------------


def test_errors_of_the_device_name_the_op(eager, monkeypatch):
    x = there(floats(3, 8), requires_grad=True)
    y = F.softmax(x, -1)

    def broken(*_, **__):
        raise CUDARuntimeError("cudaErrorIllegalAddress: an illegal memory access was encountered")

    monkeypatch.setattr(EagerRunner, "launch", broken)
    with pytest.raises(DeviceError, match=r"^softmax: cudaErrorIllegalAddress"):
        F.softmax(x, -1)
    with pytest.raises(DeviceError, match=r"^SoftmaxBackward0: cudaErrorIllegalAddress"):
        y.backward(there(floats(3, 8)))


def test_a_library_that_fails_later_is_an_error_of_the_op(eager, monkeypatch):
    failing = []

    def run(*_):
        if failing:
            raise failing[0]

    monkeypatch.setattr(EagerRunner, "prepare", lambda self, call: Prepared(run))
    a = there(floats(4, 4))
    a @ a
    failing.append(RuntimeError("CUBLAS_STATUS_EXECUTION_FAILED"))
    with pytest.raises(DeviceError, match=r"^matmul: cublaslt failed: CUBLAS_STATUS_EXECUTION_FAILED"):
        a @ a


def test_too_little_memory_names_the_op(eager):
    x = there(floats(64, 64))
    x @ x
    driver().pool.free_all_blocks()
    driver().memory = driver().pool.used_bytes() + 1000
    with pytest.raises(OutOfMemoryError, match=r"CUDA out of memory: matmul asked for 16.00 KiB on cuda:0"):
        x @ x
    driver().memory = 1 << 20
    (x @ x).cpu()


def test_an_index_outside_is_found_where_the_host_waits(eager):
    w = there(floats(5, 4))
    good, bad = there(np.array([0, 4, -1])), there(np.array([0, 5]))
    F.embedding(good, w).cpu()
    y = F.embedding(bad, w)
    with pytest.raises(OpError, match=r"^gather\(float32\(5, 4\), int64\(2,\)\): an index is outside its axis\. This"):
        y.cpu()
    assert np.isnan(y.cpu().numpy()[1]).all()
    og.cuda.set_sync_debug_mode("launch")
    with pytest.raises(OpError, match=r"an index is outside its axis$"):
        index.gather(w, bad)
    F.embedding(good, w).cpu()


# streams and threads --------------------------------------------------------------------------------------------------


def test_launches_go_to_the_current_stream(eager):
    x = there(floats(3, 8))
    stream = og.cuda.Stream()
    F.softmax(x, -1)
    with og.cuda.stream(stream):
        F.softmax(x, -1)
    F.softmax(x, -1)
    assert eager.streams == [0, stream.cuda_stream, 0] and len(programs()["softmax"]) == 1


def test_two_threads(eager):
    sizes = [(3, 4), (5, 6), (3, 4), (7, 2)]
    found = {}

    def work(name):
        for i in range(24):
            m, n = sizes[(i + name) % len(sizes)]
            a, b = floats(m, n, seed=i), floats(n, m, seed=name)
            y = matmul.matmul.eager_kernel(aligned(a), aligned(b)).get()
            found[name, i] = np.abs(y - a @ b).max()

    threads = [threading.Thread(target=work, args=(name,)) for name in range(2)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert len(found) == 48 and max(found.values()) < 1e-5 and len(programs()["matmul"]) == 3


def test_arrays_of_the_host_keep_their_kernels(eager):
    x = floats(3, 8)
    y = F.log_softmax(og.tensor(x), -1)
    np.testing.assert_array_equal(y.numpy(), normalize.log_softmax.array_kernel(x, axis=-1))
    assert normalize.log_softmax.eager_kernel.device and not programs()
