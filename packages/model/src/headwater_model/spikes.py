"""Loss spikes and divergence: what is one, and what is done about it, as a pure state machine.

A spike is a loss or a gradient norm far above what the last steps had: more than `deviations` robust standard
deviations above the median, a robust standard deviation being 1.4826 times the median absolute deviation (Leys et al.
2013, Journal of Experimental Social Psychology 49, 764-766). Window and factor are OLMo-core's (SkipStepOptimizer: 128
steps, 6), which takes mean and standard deviation; those are blinded by the first spike in the window, the median is
not. Gradient norms are compared by their logarithm, since they scatter by factors. NaN and infinity are spikes at once,
and never enter the window. A run diverges when the median loss of the last steps lies well above the lowest one so far.

What is done, mildest first, each as often in a period as its limit says, then the next:

    skip      leave the batch out of the training: no update (OLMo-core)
    rollback  back to a checkpoint before, and leave out the batches seen since (PaLM, arXiv:2204.02311, section 5.1:
              about 100 steps back, 200 to 500 batches left out)
    lower_lr  the same, with a lower learning rate from there on (OPT, arXiv:2205.01068, section 2.5)
    stop      end the run with a line that says why

A finite gradient norm alone, with a loss as usual, is met by skipping at most, and trained on once skips are used up:
clipping bounds its update, and with small batches norms have heavy tails. If it does harm, the next losses say so.

The state is small and plain, is saved with each checkpoint, and the decision is a function of state and figures alone:
a run that was killed decides again as it did.
"""

from __future__ import annotations

import math
import statistics
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from .config import SpikeConfig

Kind = Literal["go", "skip", "rollback", "lower_lr", "stop"]
_ROBUST = 1.4826
"""Median absolute deviation -> standard deviation, for a normal distribution."""
_LEAST_LOSS, _LEAST_NORM = 0.02, 0.1
"""Smallest deviations that are believed, in nats and of the logarithm: a window of nearly equal values has none, and a
gradient norm a tenth above all others is no spike."""


@dataclass(frozen=True)
class Action:
    """What the training loop is to do now."""

    kind: Kind
    reason: str = ""
    target: int | None = None
    """rollback, lower_lr: the step whose checkpoint is to be loaded."""
    lr_factor: float = 1.0
    """What the schedule's learning rate is to be multiplied with from now on, all reductions so far in one."""
    skip_after: int = 0
    """rollback, lower_lr: batches to leave out after this one, beside those since the checkpoint."""

    def event(self, step: int) -> dict[str, Any]:
        """The line of the flight log."""
        event: dict[str, Any] = {"step": step, "what": self.kind, "why": self.reason}
        if self.target is not None:
            event |= {"to": self.target, "skip_after": self.skip_after}
        if self.kind == "lower_lr":
            event["lr_factor"] = self.lr_factor
        return event


class Policy:
    """Watches one run. Call `decide` between backward and update of every step, on all ranks with the same figures."""

    def __init__(self, config: SpikeConfig):
        self.config = config
        self.lr_factor = 1.0
        self._losses: deque[float] = deque(maxlen=config.window)
        self._norms: deque[float] = deque(maxlen=config.window)
        self._recent: deque[float] = deque(maxlen=config.drift_window)
        self._lowest = math.inf
        self._calls = 0
        self._taken: list[tuple[int, str]] = []
        """(number of the call, measure) of the last period."""

    def decide(
        self, step: int, loss: float, grad_norm: float, checkpoints: Callable[[], Sequence[int]] = lambda: ()
    ) -> Action:
        """Judge a step before its update.

        Args:
            step: that the update would finish.
            loss: of the batch, nats.
            grad_norm: before clipping.
            checkpoints: answers the steps to which the run can go back, oldest first; asked when something is wrong.
        """
        self._calls += 1
        spike, steep, drift = self._spike(loss, grad_norm), self._steep(grad_norm), self._drift(loss)
        self._remember(loss, grad_norm)
        self._taken = [(call, kind) for call, kind in self._taken if call > self._calls - self.config.period]
        if not spike and not drift:
            if steep and "skip" in self.config.measures and self._left("skip"):
                self._taken.append((self._calls, "skip"))
                return Action("skip", steep, lr_factor=self.lr_factor)
            return Action("go", lr_factor=self.lr_factor)
        before = [known for known in checkpoints() if known < step]
        measure = self._measure(can_skip=not drift, can_go_back=bool(before))
        self._taken.append((self._calls, measure))
        if measure == "lower_lr":
            self.lr_factor *= self.config.lr_factor
        if measure in ("rollback", "lower_lr"):
            times = sum(kind in ("rollback", "lower_lr") for _, kind in self._taken)
            target = before[max(0, len(before) - self.config.back * times)]
            return Action(measure, spike or drift, target, self.lr_factor, self.config.skip_after)
        return Action(measure, spike or drift, lr_factor=self.lr_factor)

    def state_dict(self) -> dict[str, Any]:
        """The whole state, as JSON takes it."""
        return {
            "losses": list(self._losses),
            "norms": list(self._norms),
            "recent": list(self._recent),
            "lowest": self._lowest if math.isfinite(self._lowest) else None,
            "calls": self._calls,
            "taken": [list(entry) for entry in self._taken],
            "lr_factor": self.lr_factor,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from `state_dict`."""
        self.rewind(state)
        self._calls = state["calls"]
        self._taken = [(call, kind) for call, kind in state["taken"]]
        self.lr_factor = state["lr_factor"]

    def rewind(self, state: dict[str, Any]) -> None:
        """After a rollback: what the checkpoint's state held as usual is usual again; measures taken stay counted."""
        self._losses = deque(state["losses"], maxlen=self.config.window)
        self._norms = deque(state["norms"], maxlen=self.config.window)
        self._recent = deque(state["recent"], maxlen=self.config.drift_window)
        self._lowest = math.inf if state["lowest"] is None else state["lowest"]

    def _spike(self, loss: float, grad_norm: float) -> str:
        """What is wrong with this step's loss, or with figures that are none; or an empty string."""
        for name, value in (("loss", loss), ("gradient norm", grad_norm)):
            if not math.isfinite(value):
                return f"{name} is {value}"
        if len(self._losses) < self.config.warmup:
            return ""
        return self._above(f"loss {loss:.4g}", loss, self._losses, _LEAST_LOSS)

    def _steep(self, grad_norm: float) -> str:
        """What is wrong with this step's finite gradient norm, or an empty string."""
        if len(self._norms) < self.config.warmup:
            return ""
        return self._above(f"gradient norm {grad_norm:.4g}", _log(grad_norm), self._norms, _LEAST_NORM)

    def _above(self, figure: str, value: float, window: Sequence[float], least: float) -> str:
        score = deviations(value, window, least)
        if score <= self.config.deviations:
            return ""
        return f"{figure} is {score:.1f} deviations above the median of {len(window)} steps"

    def _drift(self, loss: float) -> str:
        if not math.isfinite(loss):
            return ""
        recent = [*self._recent, loss][-self.config.drift_window :]
        if len(recent) < self.config.drift_window:
            return ""
        median = statistics.median(recent)
        if median <= self._lowest + self.config.drift * abs(self._lowest):
            return ""
        return f"median loss {median:.4g} of {len(recent)} steps, {self._lowest:.4g} at its lowest: diverging"

    def _remember(self, loss: float, grad_norm: float) -> None:
        if not (math.isfinite(loss) and math.isfinite(grad_norm)):
            return
        self._losses.append(loss)
        self._norms.append(_log(grad_norm))
        self._recent.append(loss)
        if len(self._recent) == self.config.drift_window:
            self._lowest = min(self._lowest, statistics.median(self._recent))

    def _measure(self, can_skip: bool, can_go_back: bool) -> Kind:
        """The mildest measure that is possible and has not reached its limit in this period."""
        possible = {"skip": can_skip, "rollback": can_go_back, "lower_lr": can_go_back, "stop": False}
        for measure in self.config.measures:
            if possible[measure] and self._left(measure):
                return measure
        return "stop"

    def _left(self, measure: str) -> int:
        """How often a measure may still be taken in this period."""
        limits = {"skip": self.config.skips, "rollback": self.config.rollbacks, "lower_lr": self.config.lower_lrs}
        return limits[measure] - sum(kind == measure for _, kind in self._taken)


def deviations(value: float, window: Sequence[float], least: float) -> float:
    """How many robust standard deviations, `least` at least, `value` lies above the median of `window`."""
    median = statistics.median(window)
    spread = _ROBUST * statistics.median(abs(other - median) for other in window)
    return (value - median) / max(spread, least)


def _log(norm: float) -> float:
    return math.log(max(norm, 1e-30))
