"""The training loop: from step to step, and whatever may happen between two of them.

    changes due -> one step -> the policy on spikes -> curve and trackers -> validation, samples -> checkpoint

What decides the weights is in the checkpoint or in the flight log: killed anywhere, the run goes on to the same ones.
"""

from __future__ import annotations

import json
import signal
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import headwater_model.cpu as cpu

import torch
import torch.distributed as dist

from . import checkpoint
from ._contracts import manifest as artefacts
from ._contracts.config import parse, resolved
from ._contracts.errors import UserError
from .config import RunConfig
from .curve import Curve
from .flight_log import Event, FlightLog
from .megatron_config import set_activation
from .onlooker import Onlooker
from .saver import Saver
from .spikes import Action, Policy
from .steering import SETTINGS, Orders, Settings
from .task import Task
from .trainer import Trainer

STATE = "loop.json"
"""The file of a checkpoint that holds `Place`."""
SHOWN = ("heldout_loss", "heldout_bits_per_byte")
"""What of a held-out row is told on the terminal."""


@dataclass
class Place:
    """Where a run stands, beside what the trainer itself holds; in every checkpoint."""

    settings: dict[str, Any]
    """As `steering.Settings`."""
    consumed: int = 0
    """Places of the task's order (sequences, in pre-training) that were trained on or passed over."""
    tokens: int = 0
    """Tokens trained on."""
    rollbacks: int = 0
    lr_factor: float = 1.0
    """What the policy on spikes has left of the learning rate."""
    planned: int = 0
    """Planned changes that were made."""
    orders: int = 0
    """Orders that were taken."""
    policy: dict[str, Any] = field(default_factory=dict)
    """State of the policy on spikes."""
    waiting: list[dict[str, float]] = field(default_factory=list)
    """Losses that wait for their row of the curve."""


class Loop:
    """One rank's way through a run; every rank calls the same methods at the same steps."""

    def __init__(
        self,
        trainer: Trainer,
        task: Task,
        settings: Settings,
        config: RunConfig,
        steps: int,
        work: Path,
        planned: Sequence[Event],
        flight: FlightLog,
        policy: Policy | None,
        saver: Saver,
        onlooker: Onlooker,
        log: Callable[[str], None],
        report: Callable[[int, float], None] | None = None,
    ):
        """Set a run up at its start; `resume` goes on from a checkpoint.

        Args:
            settings: as the plan and the config give them.
            steps: where the run ends.
            work: the run's folder.
            planned: changes to be made, each once, in order, as soon as its step and rollbacks are reached.
            policy: on spikes; None: a loss that is no number ends the run.
            report: takes step and held-out loss of each validation; what it raises ends the run.
        """
        self.trainer, self.task, self.settings, self.config, self.steps = trainer, task, settings, config, steps
        self.work, self.flight, self.policy, self.saver = work, flight, policy, saver
        self.onlooker, self.log, self.report = onlooker, log, report
        self.planned = planned
        self.curve = Curve(config.log_every, task.mean)
        self.place = Place(resolved(settings))
        self.orders = Orders(work)
        self._terminated = Terminated()

    def resume(self, folder: Path) -> None:
        """Go on from a checkpoint of this run."""
        self._load(folder)
        taken = [event.details["order"] + 1 for event in self.flight.events if "order" in event.details]
        self.orders.skip(max([self.place.orders, *taken]))
        self.log(f"going on from step {self.trainer.step_count}")

    def go_on(self, state: Path, place: Mapping[str, Any]) -> None:
        """Go on from the final state of another run, at its step; this run's settings hold from there on.

        Args:
            state: a distributed checkpoint.
            place: as `saved_place` gave it.
        """
        there, settings = Place(**place), self.settings
        self._apply(parse(Settings, there.settings, "settings"), there.lr_factor)
        self.trainer.load(state)
        self.place = replace(there, settings=self.place.settings, lr_factor=1.0, planned=0, orders=0, rollbacks=0)
        self._apply(settings, 1.0)

    def saved_place(self) -> dict[str, Any]:
        """Where the run stands, as JSON takes it."""
        self.place.waiting = self.curve.waiting()
        self.place.policy = self.policy.state_dict() if self.policy else {}
        return asdict(self.place)

    def run(self) -> None:
        """Train to the end.

        Raises:
            UserError: the run diverged and the policy had nothing left to try.
            SystemExit: SIGTERM came; a checkpoint of the last step is there (143).
        """
        self._publish_settings()
        if self.trainer.step_count == 0 and not self.curve.rows:
            self._validate()
        while self.trainer.step_count < self.steps:
            ordered, ended = self._asked()
            if ended:
                self._save()
                self.saver.wait()
                self.log(f"asked to end: step {self.trainer.step_count} is saved; run the same command to go on")
                raise SystemExit(143)
            if ordered:
                self._take_orders()
            self._make_changes()
            if self._step():
                self._after()
            self.saver.poll()
        self.saver.wait()
        self._terminated.restore()

    def _step(self) -> bool:
        """One batch; answer False where the run went back instead."""
        size = self.task.size(self.settings, self.place.consumed)
        batches = self.task.draw(self.place.consumed, size)
        action: Action | None = None

        def accept(row: dict[str, float]) -> bool:
            nonlocal action
            if self.policy is not None:
                action = self.policy.decide(
                    self.trainer.step_count + 1, row["loss"], row["grad_norm"], self.saver.steps
                )
            return action is None or action.kind == "go"

        row = self.trainer.step(batches, self.task.loss, accept)
        tokens = self.task.tokens(self.place.consumed, size)
        self.place.consumed += size
        if action is not None and action.kind != "go":
            return self._act(action, size)
        if row["loss"] != row["loss"]:
            raise UserError(
                f"the loss is not a number at step {self.trainer.step_count}; lower the learning rate, train in "
                "float32, or let the policy on spikes act (spikes)"
            )
        self.place.tokens += tokens
        self.onlooker.stepped(self.trainer.step_count, self.place.tokens, row)
        self._add(self.curve.train(self.trainer.step_count, self.place.tokens, row, self._last))
        return True

    def _agreed(self, *figures: float) -> list[float]:
        """Rank 0's figures on every rank: what is decided from them must be the same everywhere."""
        if dist.get_world_size() == 1:
            return list(figures)
        table = torch.tensor(figures, dtype=torch.float64, device=cpu.DEVICE)
        dist.broadcast(table, src=0)
        return table.tolist()

    def _act(self, action: Action, size: int) -> bool:
        """Do what the policy on spikes decided; answer whether the step stands, if without an update."""
        step = self.trainer.step_count
        details = {key: value for key, value in action.event(step).items() if key not in ("step", "what", "why")}
        self._note(Event(step, action.kind, action.reason, self.place.rollbacks, details))
        if action.kind == "skip":
            return True
        if action.kind == "stop":
            raise UserError(
                f"step {step}: {action.reason}; nothing is left to try (spikes): lower the learning rate, or look "
                f"at the data; {self.flight.path} has the history"
            )
        assert action.target is not None and self.policy is not None
        now, measures = self.place, self.policy.state_dict()
        self.saver.wait()
        self._load(checkpoint.place(self.saver.root, action.target))
        usual = self.place.policy
        self.policy.load_state_dict(measures)
        self.policy.rewind(usual)
        self.place.consumed = now.consumed + action.skip_after * size
        self.place.rollbacks, self.place.lr_factor = now.rollbacks + 1, action.lr_factor
        self.place.planned, self.place.orders = now.planned, now.orders  # changes that were made stay made
        self._apply(parse(Settings, now.settings, "settings"), action.lr_factor)
        self.saver.forget_after(action.target)
        self._save()  # the same step, with what was decided since
        return False

    def _after(self) -> None:
        """Validation, samples, checkpoint, where they are due."""
        step, loss = self.trainer.step_count, None
        if step % self.config.validate_every == 0 or self._last:
            loss = self._validate()
        if step % self.config.checkpoint_every == 0 or self._last:
            self._save(loss)

    def _validate(self) -> float:
        with self.onlooker.patience():
            row = self.task.validate(self.trainer)
        self._add(self.curve.add({"step": self.trainer.step_count, **row}))
        told = ", ".join(
            f"{name.removeprefix('heldout_').replace('_', ' ')} {row[name]:.4f}" for name in SHOWN if name in row
        )
        self.log(f"step {self.trainer.step_count}: held-out {told}")
        if self.report:
            self.report(self.trainer.step_count, row["heldout_loss"])
        return row["heldout_loss"]

    def _save(self, heldout_loss: float | None = None) -> None:
        files = {STATE: artefacts.canonical_json(self.saved_place())}
        if dist.get_rank() == 0:
            self.curve.write(self.work)
        with self.onlooker.patience():
            own = self.trainer.own_files()
            self.saver.save(self.trainer.step_count, self.trainer.state, heldout_loss, files, own)

    def _load(self, folder: Path) -> None:
        """Weights, optimiser and place as they were."""
        place = Place(**json.loads((folder / STATE).read_text()))
        # The optimiser's state is of the kind that it had then.
        self._apply(parse(Settings, place.settings, "settings"), place.lr_factor)
        self.trainer.load(folder)
        self.place = place
        if self.policy:
            self.policy.load_state_dict(place.policy)
        self.curve.read(self.work)
        self.curve.go_back(self.trainer.step_count, place.waiting)

    def _asked(self) -> tuple[bool, bool]:
        """Whether there are new orders, and whether the run shall end; the same on every rank, and of every replica."""
        here = [self.orders.waiting() if dist.get_rank() == 0 else False, self._terminated.here]
        if dist.get_world_size() == 1:
            return here[0], self.trainer.agree(here[1])
        flags = torch.tensor(here, dtype=torch.int, device=cpu.DEVICE)
        dist.all_reduce(flags, op=dist.ReduceOp.MAX)
        ordered, ended = flags.tolist()
        return bool(ordered), self.trainer.agree(bool(ended))

    def _take_orders(self) -> None:
        """Put what was ordered into the flight log, as of this step."""
        box = [self.orders.take() if dist.get_rank() == 0 else []]
        if dist.get_world_size() > 1:
            dist.broadcast_object_list(box, src=0)
        for order in box[0]:
            number, self.place.orders = self.place.orders, self.place.orders + 1
            try:
                self.settings.changed(order["set"], self.config.fixed)
            except UserError as e:
                self.log(f"order not carried out: {e}")
                continue
            details = {"set": order["set"], "order": number}
            self._note(Event(self.trainer.step_count, "change", order["why"], self.place.rollbacks, details))

    def _make_changes(self) -> None:
        """What is planned, and what the flight log has for this place: orders, and what an earlier attempt did here."""
        step, rollbacks = self.trainer.step_count, self.place.rollbacks
        while self.place.planned < len(self.planned):
            event = self.planned[self.place.planned]
            if event.step > step or event.rollbacks > rollbacks:
                break
            self.place.planned += 1
            self._note(Event(step, "change", event.why, rollbacks, {"set": event.details["set"]}))
        for event in self.flight.changes_at(self.place.rollbacks, self.trainer.step_count):
            new = self.settings.changed(event.details["set"], self.config.fixed)
            if new != self.settings:
                told = ", ".join(f"{key} = {value}" for key, value in event.details["set"].items())
                self.log(f"step {event.step}: {told}" + (f" ({event.why})" if event.why else ""))
                kept = self._apply(new, self.place.lr_factor)
                if kept:
                    self._note(Event(step, "optimizer", kept, rollbacks))
                self._publish_settings()

    def _apply(self, new: Settings, lr_factor: float) -> str:
        """Bring the trainer to new settings; answers what a changed optimiser kept, empty where none changed."""
        optimizer, kept = new.optimizer.model_copy(update={"lr": new.optimizer.lr * lr_factor}), ""
        if optimizer != self.trainer.optimizer_config:
            kept = self.trainer.change_optimizer(optimizer)
        if new.schedule != self.trainer.schedule:
            self.trainer.change_schedule(new.schedule)
        if new.activation != self.settings.activation:
            for chunk in self.trainer.chunks:
                set_activation(chunk, new.activation)
        self.settings = new
        self.place.settings = resolved(new)
        return kept

    def _note(self, event: Event) -> None:
        if self.flight.add(event):
            self.onlooker.event(event.step, event.what, event.why)
            self.log(f"step {event.step}: {event.what}" + (f": {event.why}" if event.why else ""))

    def _add(self, row: dict[str, Any] | None) -> None:
        if row is not None:
            self.onlooker.added(row)

    def _publish_settings(self) -> None:
        """For `headwater-model steer`."""
        if dist.get_rank() == 0 and self.config.steerable:
            published = resolved(self.settings) | {"fixed": list(self.config.fixed)}
            artefacts.write_atomic(self.work / SETTINGS, artefacts.canonical_json(published))

    @property
    def _last(self) -> bool:
        return self.trainer.step_count >= self.steps


class Terminated:
    """SIGTERM as a question that is asked between two steps."""

    def __init__(self) -> None:
        self.here = False
        self._before = signal.signal(signal.SIGTERM, self._set)

    def _set(self, *_: object) -> None:
        self.here = True

    def restore(self) -> None:
        """Leave the signal as it was."""
        signal.signal(signal.SIGTERM, self._before)
