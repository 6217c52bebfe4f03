"""What is allocated, at most and by whom; limits; and what an op says that finds no memory."""

import gc

import numpy as np
import pytest

import onnxgrad as og
from onnxgrad.ops.errors import InputError, OutOfMemoryError
from onnxgrad.runtime.cuda.availability import cupy
from onnxgrad.runtime.cuda.holders import note_holder

KIB = 1 << 10


@pytest.fixture(autouse=True)
def _clean(two_devices):
    gc.collect()


def test_what_is_allocated():
    assert og.cuda.memory_allocated() == og.cuda.memory_reserved() == og.cuda.max_memory_allocated() == 0
    x = og.zeros(64 * KIB // 4, device="cuda")
    y = og.zeros(32 * KIB // 4, device="cuda:1")
    assert og.cuda.memory_allocated() == og.cuda.memory_allocated("cuda:0") == 64 * KIB
    assert og.cuda.memory_allocated(1) == 32 * KIB and og.cuda.memory_allocated(y.device) == y.nbytes
    z = x[10:]
    assert og.cuda.memory_allocated() == 64 * KIB  # a view takes nothing
    del x, z
    assert og.cuda.memory_allocated() == 0 and og.cuda.memory_reserved() == 64 * KIB
    assert og.cuda.max_memory_allocated() == og.cuda.max_memory_reserved() == 64 * KIB
    assert og.cuda.mem_get_info() == ((1 << 20) - 64 * KIB, 1 << 20)
    og.cuda.empty_cache()
    assert og.cuda.memory_reserved() == 0 and og.cuda.mem_get_info(0)[0] == 1 << 20
    og.cuda.reset_peak_memory_stats()
    assert og.cuda.max_memory_allocated() == 0
    assert og.cuda.memory_stats(1)["allocated_bytes.all.peak"] == 32 * KIB


def test_the_peak_is_exact_though_the_pool_is_rarely_asked(monkeypatch):
    """The pool goes through all arrays to say what is in use."""
    rng = np.random.default_rng(0)
    pool = cupy().get_default_memory_pool()
    asked, count = [], type(pool).used_bytes
    monkeypatch.setattr(type(pool), "used_bytes", lambda self: asked.append(1) or count(self))
    held, most = [og.zeros(KIB, device="cuda") for _ in range(50)], 0
    for _ in range(400):
        if len(held) > 20 and rng.random() < 0.5:
            del held[int(rng.integers(len(held)))]
        elif len(held) < 60:
            held.append(og.zeros(int(rng.integers(1, 4 * KIB)) // 4 * 4, device="cuda"))
        most = max(most, count(pool))
    assert og.cuda.max_memory_allocated() == most
    assert len(asked) < 200


def test_a_limit():
    og.cuda.set_memory_limit(100 * KIB)
    assert og.cuda.get_memory_limit() == 100 * KIB and og.cuda.get_memory_limit("cuda:1") is None
    with pytest.raises(OutOfMemoryError, match=r"the limit is 100.00 KiB"):
        og.zeros(101 * KIB // 4, device="cuda")
    og.zeros(101 * KIB // 4, device="cuda:1")
    og.cuda.set_per_process_memory_fraction(0.25, "cuda:1")
    assert og.cuda.get_memory_limit(1) == 256 * KIB
    with pytest.raises(InputError, match="Allowed range: 0 to 1"):
        og.cuda.set_per_process_memory_fraction(1.5)
    og.cuda.set_memory_limit(None)
    assert og.cuda.get_memory_limit() is None


def test_an_op_that_finds_no_memory_says_who_has_it_and_leaves_the_process_usable():
    weight = og.zeros(256 * KIB // 4, device="cuda")
    weight.name = "layer.weight"
    trained = og.nn.Parameter(og.ones(300 * KIB // 4, device="cuda"))
    activations = trained[: 128 * KIB // 4].exp()
    before = og.cuda.memory_allocated()
    with pytest.raises(MemoryError) as caught:
        og.cat([weight, weight, trained.detach()])
    said = str(caught.value)
    assert isinstance(caught.value, og.cuda.OutOfMemoryError) and isinstance(caught.value, RuntimeError)
    assert said.startswith("CUDA out of memory: concat asked for 812.00 KiB on cuda:0, where 340.00 KiB of 1.00 MiB")
    assert said.index("parameter float32[76800]") < said.index("layer.weight: float32[65536]")
    assert "float32[32768], made by ExpBackward0" in said
    assert og.cuda.memory_allocated() == before
    del weight
    assert og.cat([activations.detach(), activations.detach()]).sum().item() > 0


def test_backward_says_which_node_found_no_memory():
    x = og.ones(200 * KIB // 4, device="cuda", requires_grad=True)
    y = (x.exp().sin().sum()) * 2
    og.cuda.set_memory_limit(og.cuda.memory_allocated() + KIB)
    with pytest.raises(OutOfMemoryError, match=r"CUDA out of memory: (Sum|Expand|Sin|Mul|Exp)Backward0 asked for"):
        y.backward()
    og.cuda.set_memory_limit(None)


def test_summaries_name_programs_too():
    class Program:
        def held(self):
            return [(0, 5000, "arena of the program 'resnet'"), (1, 1, "elsewhere")]

    kept = Program()
    note_holder(kept)
    grown = og.ones(KIB, device="cuda", requires_grad=True)
    (grown * 2).sum().backward()
    found = og.cuda.memory_summary()
    assert "cuda:0:" in found and "of 1.00 MiB free" in found and "elsewhere" not in found
    assert "4.88 KiB  arena of the program 'resnet'" in found and "gradient float32[1024]" in found
    assert "arena" not in og.cuda.memory_summary(abbreviated=True)
    del kept
    gc.collect()
    assert "arena" not in og.cuda.memory_summary()
