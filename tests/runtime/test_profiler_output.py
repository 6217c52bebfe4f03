"""What a profile shows and writes: tables, Chrome traces, stacks."""

import gzip
import json
import time

import pytest

import onnxgrad as og
from onnxgrad import nn
from onnxgrad.errors import InputError
from onnxgrad.profiler import ProfilerActivity, profile, record_function, tensorboard_trace_handler

CPU = [ProfilerActivity.CPU]


class TestTable:
    def prof(self, **how):
        with profile(activities=CPU, **how) as prof:
            x = og.randn(30, 40)
            for _ in range(3):
                x @ x.T
            x.exp()
        return prof

    def test_rows_and_columns(self):
        table = self.prof(profile_memory=True, with_flops=True, record_shapes=True).key_averages().table()
        rule, head, *rest = table.splitlines()
        assert set(rule) == {"-", " "}
        columns = ["Name", "Self CPU %", "Self CPU", "CPU total %", "CPU total", "CPU time avg", "CPU Mem"]
        columns += ["Self CPU Mem", "# of Calls", "Total FLOPs"]
        assert [c.strip() for c in head.split("  ") if c.strip()] == columns
        rows = [line.split() for line in rest[1:-2]]
        assert sorted([r[0] for r in rows], key="matmul transpose exp".find)[-3:] == ["matmul", "transpose", "exp"]
        assert rest[-1].startswith("Self CPU time total: ")
        assert all(len(line) == len(rule) for line in (head, *rest[:-1]))

    @pytest.mark.parametrize(
        "key", ["cpu_time", "cpu_time_total", "self_cpu_time_total", "cpu_memory_usage", "flops", "count"]
    )
    def test_it_is_sorted_as_asked(self, key):
        averages = self.prof(profile_memory=True, with_flops=True).key_averages()
        first = max(averages, key=lambda a: getattr(a, key))
        line = averages.table(sort_by=key, row_limit=1).splitlines()[3]
        found = next(a for a in averages if a.key == line.split()[0])
        assert getattr(found, key) == getattr(first, key)
        assert len(averages.table(sort_by=key, row_limit=1).splitlines()) == 6

    def test_units_headers_and_wrong_ones(self):
        averages = self.prof().key_averages()
        assert "ms" in averages.table(time_unit="ms").splitlines()[3]
        assert averages.table(header="title").splitlines()[1] == "title"
        assert str(averages) == averages.table()
        with pytest.raises(InputError, match="sort_by is one of"):
            averages.table(sort_by="size")
        with pytest.raises(InputError, match="time_unit is one of"):
            averages.table(time_unit="h")

    def test_top_level_events_only(self):
        with profile(activities=CPU) as prof, record_function("outer"):
            og.ones(3) * 2
        lines = prof.events().table(top_level_events_only=True).splitlines()
        assert "outer" in lines[5] and not any("mul" in line for line in lines)

    def test_long_names_are_cut(self):
        with profile(activities=CPU) as prof, record_function("n" * 90):
            pass
        assert "n" * 52 + "..." in prof.key_averages().table()

    @pytest.mark.oracle
    def test_it_is_laid_out_as_pytorch_s(self):
        torch = pytest.importorskip("torch")
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as theirs:
            torch.ones(3) * 2
        theirs = theirs.key_averages().table(sort_by="cpu_time_total").splitlines()
        ours = self.prof(profile_memory=True).key_averages().table(sort_by="cpu_time_total").splitlines()
        assert theirs[1].split() == ours[1].split()
        assert theirs[-1].partition(":")[0] == ours[-1].partition(":")[0]
        assert len(theirs[0].split()) == len(ours[0].split())


class TestTrace:
    def test_a_chrome_trace(self, tmp_path):
        net = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU())
        prof = profile(activities=CPU, record_shapes=True, with_modules=True, with_flops=True)
        with prof, record_function("step", "first"):
            net(og.randn(2, 3, 8, 8)).sum().backward()
        prof.add_metadata("run", "seven")
        prof.add_metadata_json("layers", "[1, 2]")
        prof.export_chrome_trace(tmp_path / "trace.json")
        content = json.loads((tmp_path / "trace.json").read_text())
        assert content["displayTimeUnit"] == "ms" and (content["run"], content["layers"]) == ("seven", [1, 2])
        entries = content["traceEvents"]
        complete = [e for e in entries if e["ph"] == "X"]
        assert len(complete) == len(prof.events()) and {e["ph"] for e in entries} == {"X", "M"}
        for e in complete:
            assert {"name", "cat", "pid", "tid", "ts", "dur", "args"} <= e.keys()
            assert e["ts"] >= 0 and e["dur"] >= 0 and isinstance(e["tid"], int)
        assert {"thread_name", "process_name"} <= {e["name"] for e in entries if e["ph"] == "M"}
        (step,) = [e for e in complete if e["name"] == "step"]
        assert step["cat"] == "user_annotation" and step["args"]["args"] == "first"
        conv = next(e for e in complete if e["name"] == "conv")
        assert conv["args"]["Input Dims"] == [[2, 3, 8, 8], [4, 3, 3, 3]] and conv["args"]["FLOPs"] > 0
        assert step["ts"] <= conv["ts"] and conv["ts"] + conv["dur"] <= step["ts"] + step["dur"] + 0.01

    def test_compressed_and_for_tensorboard(self, tmp_path):
        handler = tensorboard_trace_handler(tmp_path / "log", "w", use_gzip=True)
        with profile(activities=CPU, on_trace_ready=handler):
            og.ones(3) * 2
        (path,) = (tmp_path / "log").iterdir()
        assert path.name.startswith("w.") and path.name.endswith(".pt.trace.json.gz")
        with gzip.open(path, "rt") as file:
            assert any(e["name"] == "mul" for e in json.load(file)["traceEvents"])

    def test_stacks(self, tmp_path):
        with profile(activities=CPU, with_stack=True) as prof, record_function("slow"):
            time.sleep(0.002)
        prof.export_stacks(tmp_path / "stacks.txt")
        line = (tmp_path / "stacks.txt").read_text().splitlines()[0]
        assert "test_stacks" in line and int(line.rpartition(" ")[2]) >= 2000
        with pytest.raises(InputError, match="metric"):
            prof.export_stacks(tmp_path / "x", "cuda")
