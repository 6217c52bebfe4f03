"""Kernels over rows, written step by step: fold what a row holds, compute from that, map the row, put what it gave.

Steps are C++ expressions over tensors (their elements, widened), over states (numbers that a row has), and over numbers
that are passed; which of them an expression reads is seen from its names. `x_row` is where a row begins, `position` the
place of an element in its row.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import TypeAlias

from ...errors import KernelError
from ...types import DType, TensorType
from .expression import write
from .indexing import reciprocal
from .kernel import Argument, Kernel, Parameter, Ref
from .lowering import Site
from .operand import Operand, Sizes
from .prelude import c_type, computed
from .reduction_text import folds_text, settled_type
from .row_parts import stored_as
from .rows import PROCESSORS, Along, Lie, Walk, arrange, spread_strides, whole
from .signature import REGISTERS

Axes: TypeAlias = "Sequence[int] | Callable[[Operand], Sizes]"

_BYTES = 64
"""That a thread has on their way at once."""

_UNROLL = "#pragma unroll"

_FIELDS = {
    "Sum": ("value",), "Product": ("value",), "Extreme": ("value",), "Top": ("value",), "Best": ("value", "at"),
    "Online": ("top", "total"), "Moments": ("count", "mean", "squares"),
    "Joint": ("count", "mean", "squares", "products", "total"),
}  # fmt: skip
"""What a settled fold consists of: all of the type that is folded, but `at`, which is i64."""

_STATE = {
    "Sum": 1,
    "Product": 1,
    "Extreme": 1,
    "Top": 1,
    "Online": 2,
    "Best": 3,
    "Moments": 3,
    "Shifted": 4,
    "Joint": 5,
    "ShiftedJoint": 6,
}
"""How many registers a fold takes."""

_NAME = re.compile(r"[A-Za-z_]\w*")


def real(*dtypes: DType) -> str:
    """Return what floats of these types are calculated with."""
    return "double" if any(computed(t) == "double" for t in dtypes) else "float"


def sizes(t: TensorType) -> Sizes:
    """Return the sizes of a tensor, which are numbers in a CUDA plan."""
    return tuple(int(n) for n in t.shape)


def function(name: str, ctype: str) -> str:
    """Return what a function of the CUDA library is called for a type."""
    return name if ctype == "double" else f"{name}f"


def floats(*dtypes: DType) -> bool:
    """Whether kernels calculate with all of these as floats."""
    return all(t.name in ("float16", "bfloat16", "float32", "float64") for t in dtypes)


class RowKernel:
    """The text and arguments of one kernel over rows, as far as it is written.

    Attributes:
        walk: how threads walk.
        ctype: what states are, mostly.
    """

    def __init__(
        self,
        site: Site,
        name: str,
        shape: Sequence[int],
        reduced: Sequence[bool],
        reads: Sequence[Along],
        writes: Sequence[Along] = (),
        *,
        ctype: str | None = None,
        hold: Sequence[str] = (),
        cut: bool = False,
        each: bool = False,
        widest: int = 8,
        axes: Axes | None = None,
        least: str = "0",
        derived: Mapping[str, Sequence[str]] | None = None,
    ) -> None:
        """Start a kernel.

        Args:
            site: where; its epilogue is applied to the first output if `axes` are given.
            name: of the kernel.
            shape: of the walk.
            reduced: which of its axes are in a row.
            reads: tensors that are read; the first says how to walk.
            writes: tensors that are written.
            ctype: what states are; by default what the floats that are read are calculated with.
            hold: tensors that are kept in registers where they fit.
            cut: whether rows may be cut into pieces: then what is put has them outermost.
            each: whether rows may be cut freely.
            widest: elements of a pack at most.
            axes: the axes of the walk that the site's first output has, for its epilogue, or a function that returns
                an operand's strides along the walk.
            least: what an `Extreme` of nothing is.
            derived: the lines that compute elements of the tensors that are read, by the names that they declare.
        """
        self.derived = dict(derived or {})
        self.site, self.name, self.hold, self.least = site, name, tuple(hold), least
        self.epilogue = site.epilogue if axes is not None else None
        extra: list[Along] = []
        if self.epilogue is not None and axes is not None:
            for i, (o, ref) in enumerate(zip(self.epilogue.operands, site.epilogue_refs, strict=True)):
                strides = axes(o) if callable(axes) else spread_strides(o, axes, len(shape))
                extra.append(Along(f"a{i}", ref, strides))
        self.reads, self.writes = [*reads, *extra], list(writes)
        self.rounded = site.rounded() if axes is not None else None
        if self.rounded is not None:
            self.writes.append(Along("rounded", self.rounded, self.writes[0].strides))
        tensors = [*self.reads, *self.writes]
        self.walk: Walk = arrange(shape, reduced, tensors, hold=len(self.hold), cut=cut, each=each, widest=widest)
        self.lies = {t.name: y for t, y in zip(tensors, self.walk.lies, strict=True)}
        self.tensors = {t.name: t for t in tensors}
        self.ctype = ctype or real(*(t.ref.operand.dtype for t in reads))
        self.states: dict[str, str] = {}
        self.loaded: set[str] = set()
        self.numbers: dict[str, tuple[Parameter, int | float]] = {}
        self.flags: dict[str, Ref] = {}
        self.folds: list[str] = []
        self.slots: list[str] = []
        self.head: list[str] = []
        self.body: list[str] = []
        self.tail: list[str] = []
        self.turns = self.collected = 0

    @property
    def held(self) -> bool:
        """Whether threads keep what they have read of a row."""
        return self.walk.held > 0

    def number(self, name: str, value: int | float, kind: Parameter | None = None) -> str:
        """Pass a number to the kernel; by default of the type of its states."""
        self.numbers[name] = (kind or ("f64" if self.ctype == "double" else "f32"), value)
        return name

    def at(self, name: str, place: str) -> str:
        """Return the element of a tensor that lies so many elements behind where its row begins."""
        return f"widen({name}_row[{place}{self._step(name, 'w')}])"

    def fold(self, folds: Sequence[tuple[Sequence[str], str, str]], update: tuple[str, str] | None = None) -> None:
        """Fold the elements of each row.

        Args:
            folds: for each the names of the states that come of it, the fold (`Sum<float>`) and what is added.
            update: a tensor that is held and what becomes of it before anything is added.
        """
        first = len(self.folds) + 1
        several = self.walk.members * self.walk.lanes > 32 and self.walk.members > 1
        for n, (_, fold, _) in enumerate(folds, first):
            self.folds.append(fold)
            self.body += [f"{fold} f{n}[V];", _UNROLL, f"for (int e = 0; e < V; ++e) f{n}[e] = {fold}::none();"]
            if several:
                self.slots.append(f"__shared__ {settled_type(fold)} slots{n}[{self._slots()}];")
        lines = []
        if update is not None:
            lines += [f"{update[0]} = {update[1]};", f"{update[0]}_held[p][e] = {update[0]};"]
        lines += [f"f{n}[e].add({term});" for n, (_, _, term) in enumerate(folds, first)]
        self._pass(lines, mutable=update[0] if update else None)
        for n, (names, fold, _) in enumerate(folds, first):
            kind = settled_type(fold)
            ctype = kind[kind.index("<") + 1 : -1].split(",")[0]
            fields = dict(zip(names, _FIELDS[kind.split("<")[0]], strict=False))
            for name, field in fields.items():
                self.states[name] = "i64" if field == "at" else ctype
                self.body.append(f"{self.states[name]} {name}_[W];")
            lines = [f"{kind} s{n} = f{n}[w].settled();"]
            if not self.walk.columns and self.walk.width > 1:
                lines += [_UNROLL, f"for (int e = 1; e < V; ++e) s{n}.merge(f{n}[e].settled());"]
            if self.walk.members > 1:
                lines.append(f"together<LANES, MEMBERS>(s{n}, {f'slots{n}' if several else f'({kind}*)0'});")
            self._for_rows([*lines, *(f"{name}_[w] = s{n}.{field};" for name, field in fields.items())])

    def state(self, name: str, expression: str, ctype: str | None = None) -> None:
        """Compute a number that each row has."""
        self.states[name] = ctype or self.ctype
        self.body.append(f"{self.states[name]} {name}_[W];")
        self._for_rows([f"{name}_[w] = {expression};"])

    def flag(self, message: str, condition: str) -> None:
        """Set a flag of the site where a row fulfils a condition.

        Args:
            message: what is wrong with it, said of the op.
            condition: over states, tensors that have one element a row, and numbers.
        """
        name = f"flag{len(self.flags)}"
        self.flags[name] = self.site.flag(message)
        self._for_rows([f"if ({condition}) *{name} = 1;"], "if (live && member == 0)")

    def map(self, results: Mapping[str, str], collected: Mapping[str, str] | None = None) -> None:
        """Write tensors element by element.

        Args:
            results: what is written to each.
            collected: what is summed up over rows, place by place, in the tensors that `collecting` made.
        """
        lines, before, after = [], [], []
        if self.rounded is not None:
            results = {**results, "rounded": f"{self.writes[0].name}_value"}
        for name, expression in results.items():
            stored, step = c_type(self.tensors[name].ref.operand.dtype), self.lies[name].step
            lines += self._stored(name, expression)
            if step == 1 and self.walk.width > 1:
                before.append(f"pack<{stored}, V> {name}_pack;")
                lines.append(f"narrow({name}_value, &{name}_pack.at[e]);")
                after.append(f"*(pack<{stored}, V>*)({name}_row + {self._offset(name)}) = {name}_pack;")
            else:
                lines.append(f"narrow({name}_value, &{name}_row[{self._offset(name)}{self._step(name, 'e')}]);")
        for name, expression in (collected or {}).items():
            self.head += [f"{self.ctype} {name}_sum[HELD][V];", _UNROLL, "for (int i = 0; i < HELD * V; ++i)"]
            self.head.append(f"    {name}_sum[i / V][i % V] = 0;")
            lines.append(f"{name}_sum[p][e] += {expression};")
            self.tail += self._gathered(name)
        self._pass(lines, before, after)

    def put(self, results: Mapping[str, str]) -> None:
        """Write what each row gave; of pieces, each its own."""
        for name, expression in results.items():
            lie, target = self.lies[name], self.tensors[name].ref.operand
            stored = c_type(target.dtype)
            if self.walk.pieces > 1 and target.shape[0] != self.walk.pieces:
                raise KernelError(f"{self.name}: {name} is {target.shape}, for {self.walk.pieces} pieces")
            piece = f" + (i64)blockIdx.y * {name}_piece" if self.walk.pieces > 1 else ""
            lines = self._stored(name, expression)
            if self.walk.columns and lie.step == 1 and self.walk.width > 1 and not piece:
                body = [*self._named(lines, "w"), f"narrow({name}_value, &{name}_pack.at[w]);"]
                self._load_states(lines)
                self.body += [
                    "if (live && member == 0) {", f"pack<{stored}, V> {name}_pack;", _UNROLL,
                    "for (int w = 0; w < W; ++w) {", *body, "}", f"*(pack<{stored}, V>*){name}_row = {name}_pack;", "}",
                ]  # fmt: skip
                continue
            lines.append(f"narrow({name}_value, &{name}_row[0{self._step(name, 'w')}{piece}]);")
            self._for_rows(lines, "if (live && member == 0)")
            if piece:
                size = self.walk.units * self.walk.rows_each
                self.number(f"{name}_piece", size, "i64")

    def collecting(self, *names: str, each: int = 4) -> list[Ref]:
        """Let a block walk over several rows, about so many a group, and return tensors for what blocks collect.

        A tensor has a row for each block, as long as the rows of the walk.
        """
        count = -(-self.walk.units // self.walk.units_each)
        self.turns = max(1, min(PROCESSORS * (512 // self.walk.threads), -(-count // each)))
        shape = (self.turns, self.walk.packs * self.walk.width)
        self.collected = len(names)
        for name in names:
            along = Along(name, self.site.temporary(stored_as(self.ctype), shape), ())
            self.writes.append(along)
            self.tensors[name], self.lies[name] = along, Lie((), (), 0)
        return [self.tensors[name].ref for name in names]

    def _step(self, name: str, index: str) -> str:
        """Return what is added to a place for an element of a pack (`e`) or a row of a thread (`w`)."""
        step = self.lies[name].step
        if step == 0 or (index == "w" and not self.walk.columns):
            return ""
        return f" + {index}" if step == 1 else f" + {index} * {name}_s"

    def _slots(self) -> int:
        near = min(self.walk.members, max(1, 32 // self.walk.lanes))
        return self.walk.members // near * self.walk.lanes

    def _stored(self, name: str, expression: str) -> list[str]:
        dtype = self.tensors[name].ref.operand.dtype
        if self.epilogue is None or name != self.writes[0].name:
            return [f"const {computed(dtype)} {name}_value = ({computed(dtype)})({expression});"]
        names = [f"a{i}" for i in range(len(self.epilogue.operands))]
        before = computed(self.site.results[0].dtype)
        types = {"x": before, **{n: computed(self.tensors[n].ref.operand.dtype) for n in names}}
        written = write(
            self.epilogue.expression, {"x": "result", **{n: n for n in names}}, types, stored=dtype, prefix="t"
        )
        lines = [f"const {before} result = ({before})({expression});", *written.statements.splitlines()]
        return [*lines, f"const {computed(dtype)} {name}_value = {written.result};"]

    def _named(self, lines: Sequence[str], w: str) -> list[str]:
        """Return the declarations of the states that lines read, and the lines."""
        words = {word for line in lines for word in _NAME.findall(line)}
        found = [n for n in self.states if n in words]
        row_values = [n for n in self.tensors if n in words and not self._varies(n) and n not in self.states]
        kinds = {**self.states, **{n: self._computed(n) for n in row_values}}
        return [*(f"const {kinds[n]} {n} = {n}_[{w}];" for n in [*found, *row_values]), *lines]

    def _computed(self, name: str) -> str:
        return computed(self.tensors[name].ref.operand.dtype)

    def _varies(self, name: str) -> bool:
        """Whether a tensor's elements differ along a row."""
        lie = self.lies[name]
        return name in self.hold or any(lie.inner) or (not self.walk.columns and lie.step != 0)

    def _load_states(self, lines: Sequence[str]) -> None:
        """Load those tensors that have one element a row."""
        words = {word for line in lines for word in _NAME.findall(line)}
        for t in self.reads:
            if t.name in words and not self._varies(t.name) and t.name not in self.loaded:
                self.loaded.add(t.name)
                kind, stored = self._computed(t.name), c_type(t.ref.operand.dtype)
                load, element = "", f"widen({t.name}_row[0{self._step(t.name, 'w')}])"
                if self.walk.rows_each > 1 and self.lies[t.name].step == 1:
                    load = f"const pack<{stored}, V> {t.name}_pack = *(const pack<{stored}, V>*){t.name}_row;"
                    element = f"widen({t.name}_pack.at[w])"
                self.body += [
                    f"{kind} {t.name}_[W];", "{", *([load] if load else []), _UNROLL,
                    f"for (int w = 0; w < W; ++w) {t.name}_[w] = {element};", "}",
                ]  # fmt: skip

    def _for_rows(self, lines: Sequence[str], guard: str = "") -> None:
        self._load_states(lines)
        body = self._named(lines, "w")
        if guard:
            self.body.append(guard)
        self.body += [_UNROLL, "for (int w = 0; w < W; ++w) {", *body, "}"]

    def _offset(self, name: str) -> str:
        """Return where a pack lies behind the beginning of its row."""
        lie, last = self.lies[name], len(self.walk.inner) - 1
        terms = []
        for i, stride in enumerate(lie.inner):
            if stride == 0:
                continue
            index = f"j{i}" if last else "j"
            still = i == last and not self.walk.columns and lie.step == 1
            terms.append(f"{index} * {'V' if still else f'{name}_n{i}'}")
        return " + ".join(terms) or "0"

    def _pass(
        self, lines: Sequence[str], before: Sequence[str] = (), after: Sequence[str] = (), mutable: str | None = None
    ) -> None:
        """Write a walk over the packs of a row."""
        words = {word for line in lines for word in _NAME.findall(line)}
        lines = [*(line for name, how in self.derived.items() if name in words for line in how), *lines]
        self._load_states(lines)
        words = {word for line in lines for word in _NAME.findall(line)}
        fresh = []
        for t in self.reads:
            if t.name not in words or not self._varies(t.name):
                continue
            if self.held and t.name in self.hold:
                if t.name not in self.loaded:
                    self.loaded.add(t.name)
                    self._hold(t.name)
            else:
                fresh.append(t.name)
        loads, inner = [], []
        for name in fresh:
            load, element = self._read(name)
            loads += load
            inner.append(f"const {self._computed(name)} {name} = {element};")
        for t in self.reads:
            if self.held and t.name in self.hold and t.name in words:
                const = "" if t.name == mutable else "const "
                inner.append(f"{const}{self._computed(t.name)} {t.name} = {t.name}_held[p][e];")
        named = self._named(lines, "w")
        if "w" in words or any("_[w]" in line for line in named):
            inner.insert(0, "const int w = W == 1 ? 0 : e;")
        if "position" in words:
            inner.append(f"const i64 position = {'j' if self.walk.columns else '(i64)j * V + e'};")
        body = [*loads, *before, _UNROLL, "for (int e = 0; e < V; ++e) {", *inner, *named, "}", *after]
        moved = self.walk.width * sum(self.tensors[name].size for name in fresh)
        most = 8 if self.walk.width == 1 or moved <= _BYTES // 8 else 4
        self.body += self._loop(body, max(1, min(most, _BYTES // max(1, moved))))

    def _loop(self, body: Sequence[str], unroll: int = 1) -> list[str]:
        digits = []
        if len(self.walk.inner) > 1:
            digits.append("const span i0 = j;")
            for i in range(len(self.walk.inner) - 1, 0, -1):
                k, size = len(self.walk.inner) - 1 - i, self.walk.inner[i]
                over = f"i{k} / n{i}" if self.walk.far else f"(i32)(__umulhi((u32)i{k}, (u32)n{i}_m) >> n{i}_s)"
                digits.append(f"const span i{k + 1} = {over if size > 1 else f'i{k}'};")
                digits.append(f"const span j{i} = i{k} - i{k + 1} * n{i};")
            digits.append(f"const span j0 = i{len(self.walk.inner) - 1};")
        if self.held:
            return [
                _UNROLL, "for (int p = 0; p < HELD; ++p) {", "const span j = begin + p * MEMBERS;",
                "if (j < end) {", *digits, *body, "}", "}",
            ]  # fmt: skip
        return [f"#pragma unroll {unroll}", "for (span j = begin; j < end; j += MEMBERS) {", *digits, *body, "}"]

    def _read(self, name: str) -> tuple[list[str], str]:
        """Return the text that reads a pack, and an element of it."""
        stored, step, offset = c_type(self.tensors[name].ref.operand.dtype), self.lies[name].step, self._offset(name)
        if step == 1 and self.walk.width > 1:
            load = f"const pack<{stored}, V> {name}_pack = *(const pack<{stored}, V>*)({name}_row + {offset});"
            return [load], f"widen({name}_pack.at[e])"
        if step == 0 or self.walk.width == 1:
            return [f"const {self._computed(name)} {name}_one = widen({name}_row[{offset}]);"], f"{name}_one"
        return [], f"widen({name}_row[{offset}{self._step(name, 'e')}])"

    def _hold(self, name: str) -> None:
        load, element = self._read(name)
        self.body += [f"{self._computed(name)} {name}_held[HELD][V];"]
        self.body += self._loop([*load, _UNROLL, f"for (int e = 0; e < V; ++e) {name}_held[p][e] = {element};"])

    def _gathered(self, name: str) -> list[str]:
        """Return the text that adds up what the groups of a block have collected, in order, and writes it."""
        place = f"{name}_all[(p * MEMBERS + member) * V + e]"
        every = [_UNROLL, "for (int p = 0; p < HELD; ++p) {", _UNROLL, "for (int e = 0; e < V; ++e)"]
        lines = []
        if self.walk.groups > 1:
            lines = [
                f"__shared__ {self.ctype} {name}_all[HELD * MEMBERS * V];",
                "for (int g = GROUPS - 1; g > 0; --g) {",
                "if (group == g) {", *every, f"{place} = {name}_sum[p][e];", "}", "}", "__syncthreads();",
                "if (group == g - 1) {", *every, f"{name}_sum[p][e] += {place};", "}", "}", "__syncthreads();", "}",
            ]  # fmt: skip
        stored = c_type(self.tensors[name].ref.operand.dtype)
        value = f"narrow({name}_sum[p][e], &{name}[((i64)blockIdx.x * packs + j) * V + e]);"
        lines += [
            "if (group == 0) {", _UNROLL, "for (int p = 0; p < HELD; ++p) {", "const span j = member + p * MEMBERS;",
            "if (j < packs) {", _UNROLL, "for (int e = 0; e < V; ++e)", value, "}", "}", "}",
        ]  # fmt: skip
        assert stored in ("float", "double")
        return lines

    def text(self) -> tuple[str, tuple[Parameter, ...], list[Argument]]:
        """Return the code, its parameters and the arguments."""
        walk = self.walk
        parameters: list[str] = []
        kinds: list[Parameter] = []
        arguments: list[Argument] = []

        def add(kind: Parameter, text: str, value: Argument) -> None:
            kinds.append(kind)
            parameters.append(text)
            arguments.append(value)

        written = {t.name for t in self.writes}
        for t in self.tensors.values():
            const = "" if t.name in written else "const "
            add("pointer", f"{const}{c_type(t.ref.operand.dtype)}* __restrict__ {t.name}", t.ref)
        for name, ref in self.flags.items():
            add("pointer", f"i32* __restrict__ {name}", ref)
        span: Parameter = "i64" if walk.far else "i32"
        many: Parameter = "i64" if walk.units >= 2**31 - 2**20 else "i32"
        add(many, "unit units", walk.units)
        add(span, "span packs", walk.packs)
        add(span, "span piece", walk.piece)
        for i, n in enumerate(walk.kept[1:], 1):
            add(many, f"unit k{i}", n)
        for i, n in enumerate(walk.inner[1:], 1):
            add(span, f"span n{i}", n)
            if not walk.far and n > 1:
                multiplier, shift = reciprocal(n)
                add("i32", f"i32 n{i}_m", multiplier)
                add("i32", f"i32 n{i}_s", shift)
        rows = []
        for t in self.tensors.values():
            lie, terms = self.lies[t.name], [t.name]
            for i, s in enumerate(lie.kept):
                if s:
                    add("i64", f"i64 {t.name}_k{i}", s)
                    terms.append(f"u{i} * {t.name}_k{i}")
            for i, s in enumerate(lie.inner):
                if s and not (i == len(lie.inner) - 1 and not walk.columns and lie.step == 1):
                    add(span, f"span {t.name}_n{i}", s)
            if any(re.search(rf"\b{t.name}_s\b", line) for line in self.body):
                add(span, f"span {t.name}_s", lie.step)
            if any(re.search(rf"\b{t.name}_row\b", line) for line in self.body):
                const = "" if t.name in written else "const "
                rows.append(f"{const}{c_type(t.ref.operand.dtype)}* const {t.name}_row = {' + '.join(terms)};")
        for name, (kind, value) in self.numbers.items():
            ctype = {"f32": "float", "f64": "double"}.get(kind, kind)
            add(kind, f"{ctype} {name}", value)
        last = len(walk.kept) - 1
        digits = ["const unit r0 = live ? row : 0;"]
        for i in range(last, 0, -1):
            k = last - i
            digits.append(f"const unit r{k + 1} = r{k} / k{i};")
            digits.append(f"const i64 u{i} = r{k} - r{k + 1} * k{i};")
        digits.append(f"const i64 u0 = r{last};")
        body = [
            "const unit row = (block * GROUPS + group) * LANES + lane;", "const bool live = row < units;",
            *digits, *rows,
            *(["const span start = blockIdx.y * piece;", "const span begin = start + member;",
               "const span end = live ? (packs - start < piece ? packs : start + piece) : 0;"]
              if walk.pieces > 1 else ["const span begin = member, end = live ? packs : 0;"]),
            *self.body,
        ]  # fmt: skip
        if self.turns:
            body = ["for (unit block = blockIdx.x; block * (GROUPS * LANES) < units; block += gridDim.x) {", *body, "}"]
        else:
            body = ["const unit block = blockIdx.x;", *body]
        values = {
            "V": walk.width, "W": walk.rows_each, "LANES": walk.lanes, "MEMBERS": walk.members, "GROUPS": walk.groups,
        }  # fmt: skip
        registers = self._registers()
        if self.held:
            values["HELD"] = walk.held
        code = [
            f"typedef {span} span;", f"typedef {many} unit;",
            f"enum {{ {', '.join(f'{k} = {v}' for k, v in values.items())} }};",
            # Without a number of blocks ptxas spills to make room for more of them than these registers leave.
            f'extern "C" __global__ void __launch_bounds__({walk.threads}, {REGISTERS // (walk.threads * registers)})',
            f"{self.name}(",
            *(f"{p}," for p in parameters[:-1]), f"{parameters[-1]}) {{",
            *self.slots, "const int lane = threadIdx.x % LANES, member = threadIdx.x / LANES % MEMBERS;",
            "const int group = threadIdx.x / (LANES * MEMBERS);", *self.head, *body, *self.tail, "}",
        ]  # fmt: skip
        return folds_text(self.folds, least=self.least) + _indented(code), tuple(kinds), arguments

    def _registers(self) -> int:
        """Return how many registers a thread may take: more where it holds many values."""
        held = self.walk.held * self.walk.width * (len(self.hold) + self.collected)
        folded = self.walk.width * max((_STATE[f.split("<")[0]] for f in self.folds), default=1)
        return 64 if (held + folded) * (2 if self.ctype == "double" else 1) <= 16 else 128

    def launch(self) -> None:
        """Launch the kernel on the site."""
        code, kinds, arguments = self.text()
        walk = self.walk
        kernel = Kernel(self.name, code, kinds, walk.threads, self._registers())
        count = -(-walk.units // walk.units_each)
        first, last = len(self.reads), len(self.tensors) + len(self.flags)
        grid = (min(count, self.turns) if self.turns else count, walk.pieces, 1)
        self.site.launch(kernel, grid, (walk.threads, 1, 1), arguments, writes=range(first, last))


def source(site: Site, name: str, i: int) -> tuple[list[Along], dict[str, Sequence[str]]]:
    """Return what an input is read from along all axes of a walk, and the lines that compute its elements of that.

    Args:
        site: whose input it is.
        name: what its elements are called.
        i: its number.
    """
    before = site.prologue(i)
    if before is None:
        return [whole(name, site.read(i))], {}
    reads = [whole(f"{name}_in{n}", ref) for n, ref in enumerate(before.refs)]
    dtype = site.types[i].dtype
    values = {f"a{n}": t.name for n, t in enumerate(reads)}
    types = {f"a{n}": computed(t.ref.operand.dtype) for n, t in enumerate(reads)}
    written = write(before.expression, values, types, stored=dtype, prefix=f"{name}_t")
    return reads, {name: [*written.statements.splitlines(), f"const {computed(dtype)} {name} = {written.result};"]}


def _indented(lines: Sequence[str]) -> str:
    """Return lines with the indentation that their braces say."""
    out, depth = [], 0
    for line in lines:
        depth -= line.startswith("}")
        out.append(f"{'    ' * depth}{line}")
        depth += line.count("{") - line.count("}") + line.startswith("}")
    return "\n".join(out) + "\n"
