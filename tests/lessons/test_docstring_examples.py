"""What PyTorch's docstrings show works here: every example that does not is listed, with the reason, in the TOML."""

import importlib.metadata
import tomllib
from pathlib import Path

import pytest

from .docstring_examples import compare, examples, statements

LISTED = tomllib.loads(Path(__file__).with_suffix(".toml").read_text())
LARGE = frozenset(LISTED["large"])
REASONS = {name: group["reason"] for group in LISTED["exceptions"] for name in group["names"]}
GROUPS = ("torch.nn.functional", "torch.nn.", "torch.optim", "torch.autograd", "torch.Tensor", "torch.linalg", "torch.")


@pytest.fixture
def torch(tmp_path, monkeypatch):
    found = pytest.importorskip("torch")
    installed = importlib.metadata.version("torch").partition("+")[0]
    if installed != LISTED["version"]:
        pytest.skip(
            f"the exceptions are those of PyTorch {LISTED['version']}, installed is {installed}: list them anew"
        )
    monkeypatch.chdir(tmp_path)
    return found


def group_of(name):
    return next(g for g in GROUPS if name.startswith(g))


@pytest.mark.oracle
@pytest.mark.parametrize("group", GROUPS)
def test_examples_do_as_in_pytorch(torch, group):
    names = [n for n in examples() if group_of(n) == group and n not in LARGE]
    failures = {n: f for n in names if (f := compare(torch, n)) is not None}
    unlisted = [f"{n}: {f.kind}: {f.statement!r}: {f.found}" for n, f in failures.items() if n not in REASONS]
    mended = [n for n in REASONS if group_of(n) == group and n not in failures]
    assert not unlisted, "\n".join(unlisted)
    assert not mended, f"these work now, take them off the list: {mended}"


@pytest.mark.oracle
def test_there_are_many_examples_and_few_exceptions(torch):
    found = examples()
    assert len(found) > 600 and sum(map(len, found.values())) > 3500
    assert set(REASONS) | LARGE <= set(found)
    assert len(REASONS) < 0.1 * len(found)


def test_statements_of_a_docstring():
    doc = "text\n>>> x = f(1,\n...       2)\n>>> for i in x:\n>>>     print(i)\n1\n>>> y = (\n\n>>> z\n"
    assert statements(doc) == ["x = f(1,\n      2)", "for i in x:\n    print(i)", "z"]
