"""Checkpoints beside training: a copy of the state is written by a thread, published when every rank has written.

A write that fails is told and forgotten: the checkpoint before it stands, the half-written folder is removed, and the
run goes on until too many in a row have failed.
"""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import headwater_model.cpu as cpu

import torch
import torch.distributed as dist

from . import checkpoint
from ._contracts import manifest as artefacts
from ._contracts.errors import UserError
from .config import CheckpointConfig
from .snapshot import Part, Snapshot, gather, on_first


class Saver:
    """The checkpoints of one run under `root`. Every method is collective: call it on all ranks at the same step."""

    def __init__(
        self,
        root: Path,
        config: CheckpointConfig,
        log: Callable[[dict[str, Any]], None],
        model: Mapping[str, Any],
        meet: Callable[[], object] = lambda: None,
    ):
        """Remove what a killed run left half-written.

        Args:
            log: takes an event of the flight log; called on rank 0.
            model: resolved config of the model, kept beside each checkpoint.
            meet: called before each checkpoint, when the one before is published: waits for other replicas, so that
                none is more than one checkpoint ahead.
        """
        self.root, self.config, self.model = Path(root), config, dict(model)
        self._log = log if dist.get_rank() == 0 else lambda event: None
        self._meet = meet
        self._pending: _Write | None = None
        self._failures = 0
        on_first(self._sweep)

    def save(
        self,
        step: int,
        state: Callable[[], dict[str, Any]],
        heldout_loss: float | None = None,
        files: Mapping[str, str] | None = None,
        own: Mapping[str, bytes] | None = None,
    ) -> None:
        """Copy the state and begin to write it as the checkpoint of `step`; wait for the one before first.

        Args:
            state: answers the sharded state dict.
            heldout_loss: nats a token, where it was measured at this step: decides which checkpoints are best.
            files: name -> text of further files (the loop's own state), rank 0's.
            own: name -> content of further files of this rank (`Trainer.own_files`).

        Raises:
            UserError: `config.failures` writes in a row have failed.
        """
        self.wait()
        self._meet()
        beside = checkpoint.aside(self.root, step)
        try:
            on_first(lambda: checkpoint.prepare(beside))
        except UserError as e:
            self._failed(step, beside, e)
            return
        snapshot = Snapshot(beside, state(), copy=self.config.asynchronous, share=True, own=own)
        about = {"step": step, "heldout_loss": heldout_loss, "model": self.model}
        texts = {**(files or {}), checkpoint.ABOUT: artefacts.canonical_json(about)}
        self._pending = _Write(step, beside, snapshot, texts)
        if not self.config.asynchronous:
            self.wait()

    def poll(self) -> None:
        """Publish the checkpoint under way if every rank has written its part; to be called after each step.

        Raises:
            UserError: as `save`.
        """
        if self._pending is None:
            return
        done = torch.tensor(int(not self._pending.is_alive()), device=cpu.DEVICE)
        dist.all_reduce(done, op=dist.ReduceOp.MIN)
        if done.item():
            self.wait()

    def wait(self) -> None:
        """Wait for the checkpoint under way and publish it.

        Raises:
            UserError: as `save`.
        """
        if self._pending is None:
            return
        write, self._pending = self._pending, None
        write.join()
        try:
            parts = gather(write.part)
            on_first(lambda: self._publish(write, parts))
        except UserError as e:
            self._failed(write.step, write.beside, e)
            return
        self._failures = 0
        self._log({"step": write.step, "what": "checkpoint", "seconds": round(time.monotonic() - write.since, 3)})

    def steps(self) -> list[int]:
        """Steps of the checkpoints there, oldest first, the one under way included."""
        self.wait()
        box = [[checkpoint.step_of(folder) for folder in checkpoint.steps(self.root)]]
        dist.broadcast_object_list(box, src=0)
        return box[0]

    def forget_after(self, step: int) -> None:
        """Remove the checkpoints of later steps: the run has gone back, they are of a branch that was given up."""
        self.wait()

        def remove() -> None:
            for folder in checkpoint.steps(self.root):
                if checkpoint.step_of(folder) > step:
                    shutil.rmtree(folder)

        on_first(remove)

    def _publish(self, write: _Write, parts: list[Part]) -> None:
        for name, text in write.texts.items():
            artefacts.write_atomic(write.beside / name, text)
        checkpoint.seal(write.beside, write.snapshot.finish(parts))
        checkpoint.publish(write.beside, checkpoint.place(self.root, write.step))
        there = {
            checkpoint.step_of(f): checkpoint.read_about(f).get("heldout_loss") for f in checkpoint.steps(self.root)
        }
        for step in set(there) - kept(there, self.config):
            shutil.rmtree(checkpoint.place(self.root, step))

    def _failed(self, step: int, beside: Path, error: UserError) -> None:
        on_first(lambda: shutil.rmtree(beside, ignore_errors=True))
        self._failures += 1
        self._log({"step": step, "what": "checkpoint failed", "why": str(error)})
        if self._failures >= self.config.failures:
            raise UserError(f"{self._failures} checkpoints in a row failed, the last at step {step}: {error}")

    def _sweep(self) -> None:
        self.root.mkdir(parents=True, exist_ok=True)
        for leftover in self.root.glob(".step-*"):
            target = self.root / leftover.name.removeprefix(".").removesuffix(".old")
            if leftover.suffix == ".old" and not target.exists():  # killed between two renames
                leftover.rename(target)
            else:
                shutil.rmtree(leftover)


class _Write(threading.Thread):
    """One rank's part on its way to the disk."""

    def __init__(self, step: int, beside: Path, snapshot: Snapshot, texts: Mapping[str, str]):
        super().__init__(name=f"checkpoint-{step}", daemon=True)  # a run that ends badly does not wait for it
        self.step, self.beside, self.snapshot, self.texts = step, beside, snapshot, texts
        self.since = time.monotonic()
        self.part = Part(fault="not written")
        self.start()

    def run(self) -> None:
        self.part = self.snapshot.write()


def kept(losses: Mapping[int, float | None], config: CheckpointConfig) -> set[int]:
    """Which steps' checkpoints stay.

    Args:
        losses: step -> held-out loss, None where it was not measured.
    """
    newest = sorted(losses)[-config.last :]
    for_good = [step for step in losses if config.every and step % config.every == 0]
    measured = sorted((loss, -step) for step, loss in losses.items() if loss is not None and loss == loss)
    best = [-step for _, step in measured[: config.best]]
    return {*newest, *for_good, *best}
