"""A traced function on a device: the state that it replaces is fed to each run, other state is weights.

A training step replaces parameters and what the optimizer holds; what it only reads (all of it in a function that
computes without training, what is frozen else) is brought to the device, cast and laid out once for each version.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..graph.graph import Graph
from ..passes.rewriting import Pass, rebuild
from .buckets import Buckets
from .choice import compile_buckets, passes_for
from .program import CudaProgram


class TracedBuckets:
    """The programs of a traced graph.

    Attributes:
        buckets: its programs; state that changes comes behind its inputs.
        weights: the Tensors that its other state is, by name.
    """

    def __init__(
        self, graph: Graph, device: str, *, in_place: Mapping[int, int], weights: Mapping[str, Any],
        passes: Sequence[Pass],
    ) -> None:  # fmt: skip
        """Divide the state.

        Args:
            graph: whose feeds are its inputs, keys and state.
            device: `cuda:N`.
            in_place: outputs, and the feeds that they replace, by number.
            weights: the state that is a Tensor which the function reaches, by name.
            passes: for a graph that replaces state; one that does not is only run.
        """
        first, replaced = len(graph.inputs) + len(graph.keys), {*in_place.values()}
        names = list(graph.state)
        fed = [i for i, name in enumerate(names) if first + i in replaced or name not in weights]
        new = rebuild(graph)
        inputs = len(new.inputs)
        new.inputs += [new.state.pop(names[i]) for i in fed]
        order = [*range(inputs), *(first + i for i in fed), *range(inputs, first)]
        places = {feed: place for place, feed in enumerate(order)}
        self._order = order
        self.weights = {name: weights[name] for name in new.state}
        self.buckets: Buckets = compile_buckets(
            new, device, passes=passes if in_place else passes_for("float32"),
            in_place={output: places[feed] for output, feed in in_place.items()},
        )  # fmt: skip

    @property
    def programs(self) -> list[CudaProgram]:
        """The programs that there are, the one that was used last at the end."""
        return self.buckets.programs

    def run(self, feeds: Sequence[Any]) -> list[Any]:
        """Return the outputs; None for those that were written over what they replace.

        Args:
            feeds: of the graph that was given; those of weights are not looked at.
        """
        results, _ = self.buckets.run([feeds[i] for i in self._order], self.weights)
        return results
