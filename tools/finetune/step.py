"""One step of finetuning as a compiled function, as long as that is possible."""

from __future__ import annotations

import warnings
from typing import Any

from ...ops.errors import InputError, OnnxGradError
from ...ops.types import Array
from ...runtime.nn.clip_grad import clip_grad_norm_
from ...runtime.optim.optimizer import Optimizer
from ...runtime.tracing.compile import Compiled
from .examples import Inputs
from .network import Network
from .objective import Objective


class CompiledStep:
    """Forward, loss, backward and the optimizer's step as one program.

    The first step of a training has to run without it: it shows that data and model fit, and how many classes there
    are.
    """

    def __init__(self, network: Network, objective: Objective, optimizer: Any, clip_norm: float | None) -> None:
        """Keep what a step needs; nothing is compiled before it is first called."""
        self.network, self.objective, self.optimizer, self.clip_norm = network, objective, optimizer, clip_norm
        self.parameters = [p for p in network.model.parameters() if p.requires_grad]
        self.possible = network.device == "cpu" and isinstance(optimizer, Optimizer)
        self.classes: int | None = None
        self._compiled = Compiled(self._step)

    def seen(self, output: Any) -> None:
        """Remember what the output of the first step tells."""
        first = output[0] if isinstance(output, tuple) else output
        if self.objective.classes and first.ndim > 1:
            self.classes = int(first.shape[1])

    def __call__(self, x: Inputs, y: Array) -> tuple[Any, Any] | None:
        """Take a step and return output and loss; None where steps cannot be compiled.

        Raises:
            InputError: if a target is no class.
        """
        if not self.possible or self.network.one_by_one:
            return None
        if self.classes is not None and y.size and not 0 <= int(y.min()) <= int(y.max()) < self.classes:
            wrong = int(y.min()) if y.min() < 0 else int(y.max())
            raise InputError(
                f"there is a target {wrong}, the model has {self.classes} classes: use replace_head({int(y.max()) + 1})"
            )
        features = self.network.features_of(x)
        try:
            program = self._compiled.program(features, y)
        except (OnnxGradError, TypeError, ValueError, AttributeError, IndexError, NotImplementedError) as error:
            self.possible = False
            warnings.warn(
                f"training runs uncompiled, some times slower: the step cannot become a graph ({error}); pass "
                "compile=False to do without this warning",
                RuntimeWarning,
                stacklevel=5,
            )
            return None
        del program
        return self._compiled(features, y)  # type: ignore[no-any-return]

    def _step(self, features: Any, y: Any) -> tuple[Any, Any]:
        self.optimizer.zero_grad()
        out = self.network.of_features(features)
        loss = self.objective(out, y)
        loss.backward()
        if self.clip_norm is not None:
            clip_grad_norm_(self.parameters, self.clip_norm)
        self.optimizer.step()
        return out, loss
