"""What is done when an update of policy or value function goes wrong: skipped, gone back, or the end, and noted.

Both trainers have a policy on spikes of their own (headwater_model.spikes), asked between backward and update. A spike
of either costs that one update; when it keeps happening, both go back to a checkpoint, and the prompts since are passed
over.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from .._contracts.errors import UserError
from ..engine import Action, Event, FlightLog, Policy, RunConfig

NAMES = ("policy", "value")


class GoBack(Exception):  # noqa: N818  (a course, no error)
    """The run is to go on from the checkpoint of `action.target`."""

    def __init__(self, action: Action):
        super().__init__(action.reason)
        self.action = action


class Guard:
    """Watches the updates of one run; every rank asks the same questions."""

    def __init__(
        self,
        settings: RunConfig,
        flight: FlightLog,
        checkpoints: Callable[[], Sequence[int]],
        log: Callable[[str], None],
    ):
        """
        Args:
            checkpoints: answers the steps to which the run can go back, oldest first.
        """
        self._spikes = {name: Policy(settings.spikes) for name in NAMES} if settings.spikes else {}
        self._flight, self._checkpoints, self._log = flight, checkpoints, log
        self.step, self.rollbacks, self.skipped = 0, 0, 0

    def begin(self, step: int, rollbacks: int) -> None:
        """A step of the run, counted from 1, begins."""
        self.step, self.rollbacks, self.skipped = step, rollbacks, 0

    def accept(self, name: str, row: dict[str, float]) -> bool:
        """Whether trainer `name` is to make the update whose figures are `row`.

        Raises:
            GoBack: the run is to go on from a checkpoint.
            UserError: nothing is left to try.
        """
        if not self._spikes:
            if all(abs(value) < float("inf") for value in (row["loss"], row["grad_norm"])):
                return True
            raise UserError(
                f"step {self.step}: the {name}'s loss is {row['loss']}, its gradient norm {row['grad_norm']}; lower "
                "the learning rate, or let the policy on spikes act (spikes)"
            )
        action = self._spikes[name].decide(self.step, row["loss"], row["grad_norm"], self._checkpoints)
        if action.kind == "go":
            return True
        self._note(action, name)
        if action.kind == "skip":
            self.skipped += 1
            return False
        if action.kind == "stop":
            raise UserError(
                f"step {self.step}: the {name}'s {action.reason}; nothing is left to try (spikes): lower the learning "
                "rate or raise kl_coef"
            )
        raise GoBack(action)

    def _note(self, action: Action, name: str) -> None:
        details = {k: v for k, v in action.event(self.step).items() if k not in ("step", "what", "why")}
        event = Event(self.step, action.kind, f"{name}: {action.reason}", self.rollbacks, details)
        if self._flight.add(event):
            self._log(f"step {self.step}: {action.kind}: {event.why}")

    def lr_factor(self, name: str) -> float:
        """What is left of the learning rate of trainer `name`."""
        return self._spikes[name].lr_factor if self._spikes else 1.0

    def state_dict(self) -> dict[str, Any]:
        """The whole state, as JSON takes it."""
        return {name: policy.state_dict() for name, policy in self._spikes.items()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from `state_dict`."""
        for name, policy in self._spikes.items():
            policy.load_state_dict(state[name])

    def rewind(self, state: dict[str, Any]) -> None:
        """After going back: what was usual at the checkpoint is usual again; measures taken stay counted."""
        for name, policy in self._spikes.items():
            policy.rewind(state[name])
