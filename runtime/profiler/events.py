"""What a profile saw: events in each other, their averages by name, and lists of either."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from ...ops.errors import InputError

STACK_METRICS = ("self_cpu_time_total",)


@dataclass
class Interval:
    """From when to when, in microseconds."""

    start: float
    end: float

    def elapsed_us(self) -> float:
        """Return how long."""
        return self.end - self.start


class _Times:
    """Times as text; for what has `count` and times in microseconds."""

    count: int

    @property
    def cpu_time(self) -> float:
        """Microseconds a call."""
        return self.cpu_time_total / self.count if self.count else 0.0  # type: ignore[attr-defined]

    @property
    def cpu_time_str(self) -> str:
        """Time a call."""
        return format_time(self.cpu_time)

    @property
    def cpu_time_total_str(self) -> str:
        """Time, with what it called."""
        return format_time(self.cpu_time_total)  # type: ignore[attr-defined]

    @property
    def self_cpu_time_total_str(self) -> str:
        """Time, without what it called."""
        return format_time(self.self_cpu_time_total)  # type: ignore[attr-defined]


class FunctionEvent(_Times):
    """One call of something.

    Attributes:
        id: counts the events of a profile.
        name: of what was called.
        kind: `op`, `backward`, `module`, `optimizer`, `data`, `compile`, `program`, `stage` or
            `annotation`.
        time_range: from when to when.
        thread: where.
        cpu_parent: the event that it happened in.
        cpu_children: the events that happened in it, directly.
        input_shapes: shapes of its arguments, [] for what has none; None where they were not recorded.
        stack: the caller's lines, innermost first; empty where they were not recorded.
        module_hierarchy: the path of the module that it happened in; "" where modules were not recorded.
        own_memory: bytes that its results take, without those of the events in it.
        own_flops: floating-point operations, without those of the events in it.
        scope: 1 for what backward calls, else 0.
        extra: what else a trace file says of it.
    """

    def __init__(self, id_: int, name: str, kind: str, thread: int, start_us: float) -> None:
        """Begin an event."""
        self.id, self.name, self.kind, self.thread = id_, name, kind, thread
        self.time_range = Interval(start_us, start_us)
        self.count = 1
        self.cpu_parent: FunctionEvent | None = None
        self.cpu_children: list[FunctionEvent] = []
        self.input_shapes: list[list[int]] | None = None
        self.stack: list[str] = []
        self.module_hierarchy = ""
        self.own_memory = self.own_flops = 0
        self.scope = 1 if kind == "backward" else 0
        self.extra: dict[str, Any] = {}

    @property
    def key(self) -> str:
        """What it is counted under; the steps of a schedule are counted together."""
        return "ProfilerStep*" if self.name.startswith("ProfilerStep#") else self.name

    @property
    def is_user_annotation(self) -> bool:
        """Whether `record_function` made it."""
        return self.kind == "annotation"

    @property
    def cpu_time_total(self) -> float:
        """Microseconds, with what it called."""
        return self.time_range.elapsed_us()

    @property
    def self_cpu_time_total(self) -> float:
        """Microseconds, without what it called."""
        return self.cpu_time_total - sum(child.cpu_time_total for child in self.cpu_children)

    @property
    def cpu_memory_usage(self) -> int:
        """Bytes that results take, its own and those of the events in it."""
        return self.own_memory + sum(child.cpu_memory_usage for child in self.cpu_children)

    @property
    def self_cpu_memory_usage(self) -> int:
        """Bytes that its own results take."""
        return self.own_memory

    @property
    def flops(self) -> int:
        """Floating-point operations, its own and those of the events in it."""
        return self.own_flops + sum(child.flops for child in self.cpu_children)

    def __repr__(self) -> str:
        """Return the event in a line."""
        return (
            f"<FunctionEvent id={self.id} name={self.name} cpu_time={self.cpu_time_str} "
            f"start_us={self.time_range.start:.3f} end_us={self.time_range.end:.3f} thread={self.thread} "
            f"cpu_children={[child.id for child in self.cpu_children]} input_shapes={self.input_shapes} "
            f"cpu_memory_usage={self.cpu_memory_usage} flops={self.flops}>"
        )


class FunctionEventAvg(_Times):
    """Events of one key together; the attributes are sums, `cpu_time` is the average."""

    def __init__(self) -> None:
        """Start with none."""
        self.key: str | None = None
        self.kind = ""
        self.count = 0
        self.cpu_time_total = self.self_cpu_time_total = 0.0
        self.cpu_memory_usage = self.self_cpu_memory_usage = self.flops = 0
        self.input_shapes: list[list[int]] | None = None
        self.stack: list[str] = []
        self.cpu_parent: FunctionEvent | None = None
        self.scope = 0
        self.is_user_annotation = False

    def add(self, other: FunctionEvent | FunctionEventAvg) -> FunctionEventAvg:
        """Add an event, and return this."""
        if not self.count:
            self.key, self.kind, self.scope = other.key, other.kind, other.scope
            self.input_shapes, self.stack, self.cpu_parent = other.input_shapes, other.stack, other.cpu_parent
            self.is_user_annotation = other.is_user_annotation
        self.cpu_time_total += other.cpu_time_total
        self.self_cpu_time_total += other.self_cpu_time_total
        self.cpu_memory_usage += other.cpu_memory_usage
        self.self_cpu_memory_usage += other.self_cpu_memory_usage
        self.flops += other.flops
        self.count += other.count
        return self

    def __iadd__(self, other: FunctionEvent | FunctionEventAvg) -> FunctionEventAvg:
        """Add an event."""
        return self.add(other)

    def __repr__(self) -> str:
        """Return the sums in a line."""
        return (
            f"<FunctionEventAvg key={self.key} self_cpu_time={self.self_cpu_time_total_str} "
            f"cpu_time={self.cpu_time_str} count={self.count} input_shapes={self.input_shapes} "
            f"cpu_memory_usage={self.cpu_memory_usage} flops={self.flops}>"
        )


E = TypeVar("E", bound="FunctionEvent | FunctionEventAvg")


class EventList(list[E], Generic[E]):
    """Events, or averages of them."""

    def __init__(self, events: Iterable[E] = (), *, profile_memory: bool = False, with_flops: bool = False) -> None:
        """Keep events, and which columns their table has."""
        super().__init__(events)
        self._profile_memory, self._with_flops = profile_memory, with_flops

    @property
    def self_cpu_time_total(self) -> float:
        """Microseconds, each counted once."""
        return sum(e.self_cpu_time_total for e in self)

    def key_averages(
        self, group_by_input_shapes: bool = False, group_by_stack_n: int = 0
    ) -> EventList[FunctionEventAvg]:
        """Return the events of each key together.

        Args:
            group_by_input_shapes: events with other shapes are other keys; needs `record_shapes`.
            group_by_stack_n: events with other callers are other keys: how many lines; needs `with_stack`.
        """
        found: dict[Any, FunctionEventAvg] = {}
        for e in self:
            key: tuple[Any, ...] = (e.key, e.kind)
            if group_by_input_shapes:
                key += (str(e.input_shapes),)
            if group_by_stack_n > 0:
                key += tuple(e.stack[:group_by_stack_n])
            found.setdefault(key, FunctionEventAvg()).add(e)
        for average in found.values():
            average.stack = average.stack[:group_by_stack_n]
            if not group_by_input_shapes:
                average.input_shapes = None
        return EventList(found.values(), profile_memory=self._profile_memory, with_flops=self._with_flops)

    def total_average(self) -> FunctionEventAvg:
        """Return all events together, as the key `Total`; what is in each other is counted more than once."""
        total = FunctionEventAvg()
        for e in self:
            total += e
        total.key = "Total"
        return total

    def table(
        self, sort_by: str | None = None, row_limit: int = 100, max_src_column_width: int | None = 75,
        max_name_column_width: int | None = 55, max_shapes_column_width: int | None = 80, header: str | None = None,
        top_level_events_only: bool = False, time_unit: str | None = None,
    ) -> str:  # fmt: skip
        """Return the events as a table.

        Args:
            sort_by: `cpu_time`, `cpu_time_total`, `self_cpu_time_total`, `cpu_memory_usage`,
                `self_cpu_memory_usage`, `flops` or `count`, largest first; in the order of their beginning by default.
            row_limit: how many rows; all where it is negative.
            max_src_column_width: how wide the column of callers may be.
            max_name_column_width: how wide the column of names may be.
            max_shapes_column_width: how wide the column of shapes may be.
            header: a line above the table.
            top_level_events_only: leave out events in other events.
            time_unit: `s`, `ms` or `us`; by size by default.

        Raises:
            InputError: if there is no such column or unit.
        """
        from .table import build_table

        return build_table(
            self, sort_by=sort_by, row_limit=row_limit, max_src_column_width=max_src_column_width,
            max_name_column_width=max_name_column_width, max_shapes_column_width=max_shapes_column_width,
            header=header, top_level_events_only=top_level_events_only, time_unit=time_unit,
            profile_memory=self._profile_memory, with_flops=self._with_flops,
        )  # fmt: skip

    def export_stacks(self, path: str | os.PathLike[str], metric: str = "self_cpu_time_total") -> None:
        """Write a line for each event with a recorded stack: its callers, outermost first, and its microseconds.

        Args:
            path: the file, as flame graph tools read it.
            metric: `self_cpu_time_total`.

        Raises:
            InputError: for another metric.
        """
        if metric not in STACK_METRICS:
            raise InputError(f"metric should be one of: {list(STACK_METRICS)}, found {metric!r}")
        words = str.maketrans(" ;\t\n", "____")
        with open(path, "w", encoding="utf-8") as file:
            for e in self:
                value = int(getattr(e, metric))
                if e.stack and value > 0:
                    file.write(";".join(line.translate(words) for line in reversed(e.stack)) + f" {value}\n")

    def __str__(self) -> str:
        """Return the table."""
        return self.table()


def format_time(us: float) -> str:
    """Return microseconds as text with a unit."""
    if us >= 1e6:
        return f"{us / 1e6:.3f}s"
    return f"{us / 1e3:.3f}ms" if us >= 1e3 else f"{us:.3f}us"


def format_memory(count: int) -> str:
    """Return bytes as text with a unit."""
    for size, unit in ((1 << 30, "GB"), (1 << 20, "MB"), (1 << 10, "KB")):
        if abs(count) >= size:
            return f"{count / size:.2f} {unit}"
    return f"{count} B"
