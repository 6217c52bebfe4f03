"""Profiles: what they count, that nothing is left behind, and the files they write."""

import json
import math
import sys
import threading
import types

import numpy as np
import pytest

import onnxgrad as og
import onnxgrad.nn.functional as F
from onnxgrad import nn
from onnxgrad.errors import InputError, ProfilerError
from onnxgrad.ops.op import Op
from onnxgrad.profiler import (
    ProfilerAction,
    ProfilerActivity,
    profile,
    record_function,
    schedule,
    supported_activities,
)
from onnxgrad.runtime.autograd import record as recording, tape
from onnxgrad.runtime.autograd.node import Node
from onnxgrad.runtime.graph import execute as executing
from onnxgrad.runtime.nn.module import Module
from onnxgrad.runtime.tensor.methods import promotion
from onnxgrad.utils.data import DataLoader, TensorDataset

CPU = [ProfilerActivity.CPU]


class Net(nn.Module):
    """A convolution and a linear layer in a container."""

    def __init__(self):
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1, bias=False), nn.ReLU())
        self.head = nn.Linear(4, 5, bias=False)

    def forward(self, x):
        return self.head(self.features(x).mean((2, 3)))


def named(prof, name):
    return [e for e in prof.events() if e.name == name]


def average(prof, key, **how):
    (found,) = [a for a in prof.key_averages(**how) if a.key == key]
    return found


def entries():
    """What a profile replaces."""
    return [
        recording.record, promotion.record, tape._accumulate, executing.execute, Op.run, Module.__call__,
        Node.gradients, recording.OpNode.gradients, recording.PointwiseNode.gradients, nn.Module.__dict__["__call__"],
        og.optim.Optimizer.step, og.optim.SGD.__dict__.get("step"), DataLoader.__iter__,
        og.autograd.Function.__dict__["apply"],
    ]  # fmt: skip


@pytest.fixture(autouse=True)
def nothing_is_left_installed():
    before = entries()
    yield
    assert all(a is b for a, b in zip(before, entries(), strict=True))


class TestCounts:
    def test_a_known_graph(self):
        a, b = og.randn(4, 5, requires_grad=True), og.randn(5, 6, requires_grad=True)
        with profile(activities=CPU, record_shapes=True, profile_memory=True, with_flops=True) as prof:
            y = (a @ b).relu().sum()
            y.backward()
        counts = {e.key: e.count for e in prof.key_averages()}
        assert (counts["matmul"], counts["relu"], counts["sum"]) == (1 + 2, 1, 1)
        assert counts["MmBackward0"] == counts["ReluBackward0"] == counts["SumBackward0"] == 1
        assert counts["AccumulateGrad"] == 2
        first = named(prof, "matmul")[0]
        assert first.input_shapes == [[4, 5], [5, 6]]
        assert first.flops == 2 * 4 * 5 * 6
        assert first.cpu_memory_usage == first.self_cpu_memory_usage == 4 * 4 * 6
        back = named(prof, "MmBackward0")[0]
        assert back.scope == 1 and back.flops == 2 * first.flops
        assert {c.name for c in back.cpu_children} >= {"matmul"}
        assert back.cpu_memory_usage == 4 * (20 + 30)

    def test_views_take_no_memory(self):
        x = og.randn(4, 6)
        with profile(activities=CPU, profile_memory=True) as prof:
            x.reshape(24)
            x.T  # noqa: B018
            x[1:]
            x + 1
        assert prof.total_average().self_cpu_memory_usage == 4 * 24

    @pytest.mark.parametrize(("name", "run", "flops"), [
        ("conv", lambda x, w: F.conv2d(x, w, padding=1), 2 * (2 * 4 * 8 * 8) * 27),
        ("add", lambda x, w: x + x, 2 * 3 * 8 * 8),
        ("sum", lambda x, w: x.sum(), 2 * 3 * 8 * 8),
        ("reshape", lambda x, w: x.reshape(-1), 0),
        ("einsum", lambda x, w: og.einsum("nchw,ochw->no", x[..., :3, :3], w), 2 * 2 * 4 * 27),
    ])  # fmt: skip
    def test_operations(self, name, run, flops):
        x, w = og.randn(2, 3, 8, 8), og.randn(4, 3, 3, 3)
        with profile(activities=CPU, with_flops=True) as prof:
            run(x, w)
        assert average(prof, name).flops == flops

    def test_gradients_of_convolutions(self):
        x, w = og.randn(2, 3, 8, 8, requires_grad=True), og.randn(4, 3, 3, 3, requires_grad=True)
        y = F.conv2d(x, w, padding=1).sum()
        with profile(activities=CPU, with_flops=True) as prof:
            y.backward()
        forward = 2 * (2 * 4 * 8 * 8) * 27
        assert average(prof, "conv_input_grad").flops == average(prof, "conv_weight_grad").flops == forward
        assert average(prof, "ConvolutionBackward0").flops == 2 * forward

    @pytest.mark.oracle
    def test_operations_are_pytorch_s(self):
        torch = pytest.importorskip("torch")
        shapes = (2, 3, 8, 8), (4, 3, 3, 3), (4, 5)

        def run(lib, prof, cpu):
            x, w, v = (lib.ones(*s) for s in shapes)
            with prof(activities=[cpu], with_flops=True, record_shapes=True, profile_memory=True) as p:
                lib.nn.functional.conv2d(x, w, padding=1).mean((2, 3)) @ v
                x * x
                x + x
            return {e.key: e for e in p.key_averages()}

        theirs = run(torch, torch.profiler.profile, torch.profiler.ProfilerActivity.CPU)
        ours = run(og, profile, ProfilerActivity.CPU)
        for mine, other in (("conv", "conv2d"), ("matmul", "mm"), ("mul", "mul"), ("add", "add")):
            assert ours[mine].flops == theirs[f"aten::{other}"].flops
            assert ours[mine].cpu_memory_usage == theirs[f"aten::{other}"].cpu_memory_usage
            assert ours[mine].count == theirs[f"aten::{other}"].count


class TestEvents:
    def test_self_times_add_up_and_children_lie_within(self):
        net = Net()
        with profile(activities=CPU, with_modules=True) as prof:
            net(og.randn(2, 3, 8, 8)).sum().backward()
        events = prof.events()
        top = sum(e.cpu_time_total for e in events if e.cpu_parent is None)
        assert math.isclose(events.self_cpu_time_total, top, rel_tol=1e-9)
        for e in events:
            assert e.self_cpu_time_total >= -1e-6
            for child in e.cpu_children:
                assert child.cpu_parent is e
                assert e.time_range.start <= child.time_range.start <= child.time_range.end <= e.time_range.end
        assert [e.time_range.start for e in events] == sorted(e.time_range.start for e in events)
        assert prof.total_average().count == len(events)
        assert prof.total_average().self_cpu_time_total == pytest.approx(events.self_cpu_time_total)

    def test_modules_by_their_paths(self):
        net = Net()
        with profile(activities=CPU, with_modules=True, with_flops=True) as prof:
            net(og.randn(2, 3, 8, 8))
        names = [e.name for e in prof.events() if e.kind == "module"]
        assert names == [
            "nn.Module: Net", "nn.Module: features (Sequential)", "nn.Module: features.0 (Conv2d)",
            "nn.Module: features.1 (ReLU)", "nn.Module: head (Linear)",
        ]  # fmt: skip
        (conv,) = named(prof, "conv")
        assert conv.module_hierarchy == "features.0 (Conv2d)"
        assert average(prof, "nn.Module: features (Sequential)").flops == conv.flops + 2 * 4 * 64
        with profile(activities=CPU) as plain:
            net(og.randn(2, 3, 8, 8))
        assert not [e for e in plain.events() if e.kind == "module"]

    def test_record_function_nests_and_decorates(self):
        @record_function("inner")
        def inner(x):
            return x * 2

        x = og.ones(3)
        inner(x)  # outside of a profile it does nothing
        with profile(activities=CPU) as prof, record_function("outer", "what for"):
            inner(x)
            inner(x)
        (outer,) = named(prof, "outer")
        assert [c.name for c in outer.cpu_children] == ["inner", "inner"]
        assert [c.name for c in outer.cpu_children[0].cpu_children] == ["mul"]
        assert outer.is_user_annotation and average(prof, "inner").count == 2

    def test_training_is_seen_as_a_whole(self):
        net = Net()
        optimizer = og.optim.SGD(net.parameters(), lr=0.1)
        loader = DataLoader(TensorDataset(og.randn(4, 3, 8, 8), og.tensor([0, 1, 2, 3])), batch_size=2)
        with profile(activities=CPU) as prof:
            for x, t in loader:
                optimizer.zero_grad()
                F.cross_entropy(net(x), t).backward()
                optimizer.step()
        counts = {e.key: e.count for e in prof.key_averages()}
        assert counts["Optimizer.step#SGD.step"] == counts["Optimizer.zero_grad#SGD.zero_grad"] == 2
        assert counts["enumerate(DataLoader)#DataLoader.__next__"] == 3  # the last one finds the end
        assert counts["AccumulateGrad"] == 4

    def test_a_function_of_ones_own(self):
        class Twice(og.autograd.Function):
            @staticmethod
            def forward(ctx, x):
                return x * 2

            @staticmethod
            def backward(ctx, g):
                return g * 2

        with profile(activities=CPU) as prof:
            Twice.apply(og.ones(3, requires_grad=True)).sum().backward()
        assert [c.name for c in named(prof, "Twice")[0].cpu_children] == ["mul"]
        assert [c.name for c in named(prof, "TwiceBackward")[0].cpu_children] == ["mul"]

    def test_gradients_of_gradients(self):
        x = og.ones(3, requires_grad=True)
        with profile(activities=CPU) as prof:
            (g,) = og.autograd.grad((x**3).sum(), x, create_graph=True)
            g.sum().backward()
        assert average(prof, "SumBackward0").count == 2
        assert x.grad.tolist() == [6.0, 6.0, 6.0]

    def test_every_thread_is_seen(self, tmp_path):
        def work():
            og.ones(3) * 2

        with profile(activities=CPU) as prof:
            thread = threading.Thread(target=work, name="worker")
            thread.start()
            thread.join()
            work()
        assert len({e.thread for e in named(prof, "mul")}) == 2
        prof.export_chrome_trace(tmp_path / "t.json")
        trace = json.loads((tmp_path / "t.json").read_text())["traceEvents"]
        assert any("worker" in e["args"].get("name", "") for e in trace if e["ph"] == "M")

    def test_callers(self):
        with profile(activities=CPU, with_stack=True) as prof:
            og.ones(3) * 2
        (event,) = named(prof, "mul")
        assert event.stack[0].startswith(f"{__file__}(") and event.stack[0].endswith(": test_callers")
        (one,) = [a for a in prof.key_averages(group_by_stack_n=1) if a.key == "mul"]
        assert one.stack == event.stack[:1] and "Source Location" in prof.key_averages(group_by_stack_n=1).table()

    def test_shapes_group(self):
        with profile(activities=CPU, record_shapes=True) as prof:
            for n in (2, 3, 3):
                og.ones(n) * og.ones(n)
        found = [(a.count, a.input_shapes) for a in prof.key_averages(group_by_input_shape=True) if a.key == "mul"]
        assert found == [(1, [[2], [2]]), (2, [[3], [3]])]
        assert average(prof, "mul").input_shapes is None

    def test_numbers_are_the_same_under_a_profile(self):
        og.manual_seed(0)
        net, x = Net(), og.randn(2, 3, 8, 8)
        results = []
        for watched in (False, True):
            net.zero_grad()
            with profile(activities=CPU) if watched else record_function(""):
                y = net(x).square().sum()
                y.backward()
            results.append((y.item(), *(p.grad.numpy().copy() for p in net.parameters())))
        assert all(np.array_equal(a, b) for a, b in zip(*results, strict=True))

    def test_tracing_is_not_measured(self):
        net = nn.Linear(3, 2)
        with profile(activities=CPU) as prof:
            og.compile(net)(og.randn(4, 3))
        assert not named(prof, "matmul") or all(e.kind == "stage" for e in named(prof, "matmul"))


class TestPlans:
    def model(self):
        from ..tools.small_models import cnn

        return cnn()

    def feeds(self, model):
        return {model.inputs[0].name: np.zeros((1, 2, 8, 8), np.float32)}

    def test_stages_of_a_compiled_model(self):
        pytest.importorskip("llvmlite")
        model = self.model()
        feeds = self.feeds(model)
        before = [model.run(feeds)[0] for _ in range(3)]  # the short way is taken by now
        with profile(activities=CPU, with_flops=True, profile_memory=True) as prof:
            during = model.run(feeds)[0]
        (program,) = [e for e in prof.events() if e.kind == "program"]
        stages = [e for e in prof.events() if e.kind == "stage"]
        assert stages == program.cpu_children and len(stages) == len(model.plan().compiler.stages)
        assert program.flops == sum(s.flops for s in stages) > 2 * 4 * 64 * 18
        assert program.own_memory == during.nbytes
        assert np.array_equal(before[-1], during) and np.array_equal(model.run(feeds)[0], during)

    def test_compiling_is_one_event(self):
        pytest.importorskip("llvmlite")
        model = self.model()
        with profile(activities=CPU) as prof:
            model.run(self.feeds(model))
        first, *_, last = [e for e in prof.events() if e.cpu_parent is None]
        assert (first.kind, first.cpu_children, last.kind) == ("compile", [], "program")

    def test_an_eager_op_is_one_event_however_it_runs(self):
        x = og.randn(1, 32, 64, 64, requires_grad=True)  # large enough for a compiled kernel
        w = og.randn(32, 32, 3, 3)
        F.conv2d(x, w)
        with profile(activities=CPU) as prof:
            F.conv2d(x, w)
        assert [e.name for e in prof.events()] == ["conv"]

    def test_steps_on_array_kernels(self, monkeypatch):
        monkeypatch.setenv("ONNXGRAD_CPU", "off")
        model = self.model()
        with profile(activities=CPU, profile_memory=True) as prof:
            model.run(self.feeds(model))
        stages = [e for e in prof.events() if e.kind == "stage"]
        assert {"conv", "relu", "max_pool"} <= {e.name for e in stages}
        assert all(e.cpu_parent.name == "Plan" for e in stages)

    def test_an_imported_model_on_the_tape(self):
        model = self.model()
        with profile(activities=CPU, with_modules=True) as prof:
            model(og.randn(2, 2, 8, 8)).sum().backward()
        counts = {e.key: e.count for e in prof.key_averages()}
        assert counts["conv"] == counts["ConvolutionBackward0"] == 2 and counts["nn.Module: Model"] == 1


class TestSchedule:
    @pytest.mark.parametrize("how", [
        {"wait": 1, "warmup": 1, "active": 2}, {"wait": 0, "warmup": 2, "active": 1, "repeat": 2},
        {"wait": 2, "warmup": 1, "active": 1, "skip_first": 3},
        {"wait": 2, "warmup": 1, "active": 1, "skip_first_wait": 1},
    ])  # fmt: skip
    @pytest.mark.oracle
    def test_it_is_pytorch_s(self, how):
        torch = pytest.importorskip("torch")
        ours, theirs = schedule(**how), torch.profiler.schedule(**how)
        assert [ours(i).name for i in range(20)] == [theirs(i).name for i in range(20)]

    def test_cycles(self):
        seen = []

        def ready(prof):
            seen.append((prof.step_num, {e.key: e.count for e in prof.key_averages()}))

        plan = schedule(wait=1, warmup=1, active=2, repeat=2)
        with profile(activities=CPU, schedule=plan, on_trace_ready=ready) as prof:
            for _ in range(10):
                og.ones(3) * 2
                prof.step()
        assert [step for step, _ in seen] == [4, 8]
        assert all(counts == {"ProfilerStep*": 2, "mul": 2} for _, counts in seen)

    def test_all_cycles_together(self):
        with profile(activities=CPU, schedule=schedule(wait=1, warmup=1, active=1), acc_events=True) as prof:
            for _ in range(6):
                og.ones(3) * 2
                prof.step()
        assert average(prof, "mul").count == 2
        assert [e.name for e in prof.events() if e.is_user_annotation] == ["ProfilerStep#2", "ProfilerStep#5"]

    def test_nothing_is_installed_while_waiting(self):
        before = recording.record
        with profile(activities=CPU, schedule=schedule(wait=1, warmup=1, active=1)) as prof:
            assert recording.record is before
            prof.step()
            assert recording.record is not before

    def test_wrong_schedules(self):
        with pytest.raises(InputError, match="active=0"):
            schedule(wait=1, warmup=1, active=0)
        with pytest.warns(UserWarning, match="warmup"):
            schedule(wait=0, warmup=0, active=1)
        actions = [ProfilerAction.RECORD, ProfilerAction.NONE]
        prof = profile(activities=CPU, schedule=lambda i: actions[min(i, 1)])
        with pytest.warns(UserWarning, match="RECORD followed by NONE"), prof:
            prof.step()


class TestEnds:
    def test_an_exception_inside(self):
        prof = profile(activities=CPU)
        with pytest.raises(ZeroDivisionError), prof, record_function("outer"):
            og.ones(3) * 2
            1 / 0  # noqa: B018
        assert [e.name for e in prof.events()] == ["outer", "mul"]
        with profile(activities=CPU) as again:
            og.ones(3) * 2
        assert len(again.events()) == 1

    def test_an_exception_in_an_op(self):
        with profile(activities=CPU) as prof, pytest.raises(RuntimeError):
            og.ones(3) @ og.ones(4)
        assert all(e.time_range.end >= e.time_range.start for e in prof.events())

    def test_an_exception_in_the_callback(self):
        def fail(prof):
            raise KeyError("no")

        with pytest.raises(KeyError), profile(activities=CPU, on_trace_ready=fail):
            og.ones(3) * 2
        with profile(activities=CPU):
            pass

    def test_an_exception_in_the_schedule(self):
        def plan(step):
            if step:
                raise KeyError("no")
            return ProfilerAction.RECORD

        with pytest.raises(KeyError), profile(activities=CPU, schedule=plan) as prof:
            prof.step()

    def test_one_at_a_time(self):
        prof = profile(activities=CPU)
        with profile(activities=CPU), pytest.raises(ProfilerError, match="already enabled"):
            prof.start()
        with pytest.raises(ProfilerError, match="with block"):
            prof.step()
        prof.stop()

    def test_without_a_with_block(self):
        prof = profile(activities=CPU)
        prof.start()
        og.ones(3) * 2
        prof.stop()
        prof.stop()
        assert len(prof.events()) == 1
        og.ones(3) * 2
        assert len(prof.events()) == 1

    def test_a_loader_that_goes_on_afterwards(self):
        batches = None
        with profile(activities=CPU) as prof:
            batches = iter(DataLoader(TensorDataset(og.ones(4, 2)), batch_size=2))
            next(batches)
        assert len(list(batches)) == 1
        assert len([e for e in prof.events() if e.kind == "data"]) == 1

    def test_a_module_that_is_imported_meanwhile(self, monkeypatch):
        late = types.ModuleType("onnxgrad.runtime.late")
        with profile(activities=CPU):
            late.record = recording.record
            monkeypatch.setitem(sys.modules, late.__name__, late)
        assert late.record is recording.record

    def test_activities(self):
        assert ProfilerActivity.CPU in supported_activities()
        with pytest.raises(InputError, match="No valid profiler activities"):
            profile(activities=[])
        if ProfilerActivity.CUDA not in supported_activities():
            with pytest.warns(UserWarning, match="CUDA is not available"):
                profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA])

    def test_importing_the_face_does_not_load_the_compiler(self):
        assert og.profiler.profile is profile is og.autograd.profiler.profile
        assert sys.modules["onnxgrad.profiler"].record_function is record_function
