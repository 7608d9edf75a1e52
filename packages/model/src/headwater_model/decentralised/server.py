"""The parameter server of asynchronous SGD: it owns weights and optimiser, and applies gradients one by one.

Downpour SGD (Dean et al. 2012, "Large scale distributed deep networks") with a bound on how far a worker may be ahead
(Ho et al. 2013). One batch of a worker is one update, so a run makes the updates of a synchronous run, on the same
batches; only the gradients are stale. A thread a worker waits for what it pushes; all else happens in `step`.
"""

from __future__ import annotations

import json
import queue
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

import headwater_model.cpu as cpu  # noqa: F401

import torch
import torch.distributed as dist
from torch import Tensor

from .._contracts.errors import UserError
from ..config import AsyncConfig, OptimizerConfig, ScheduleConfig
from ..gpt import GPT
from ..trainer import Batch, Loss, Trainer, next_token_loss
from . import wire
from .peers import PeerLost, Peers
from .staleness import Clocks, SeededArrivals, damping

BATCHES = "batches.json"


class ParameterServer(Trainer):
    """A trainer whose gradients come from workers: every `step` applies the next one that arrives."""

    def __init__(
        self,
        model: GPT,
        optimizer: OptimizerConfig,
        schedule: ScheduleConfig,
        peers: Peers,
        config: AsyncConfig,
        log: Callable[[str], None] = print,
        steps: int | None = None,
    ):
        """Workers are greeted by the first `step`.

        Args:
            schedule: its steps are updates, and batches.
            steps: of the run; the schedule's if None.
            peers: this process is the first of them, the others are workers.
            log: is told of a worker that is lost.
        """
        super().__init__(model, optimizer, schedule)
        self.peers, self.config, self._log = peers, config, log
        self.clocks = Clocks(range(1, peers.size), config.staleness, steps or schedule.steps)
        self._order = SeededArrivals(config.seed) if config.arrivals == "seeded" else None
        self._events: queue.SimpleQueue[tuple[int, Tensor | None]] = queue.SimpleQueue()
        self._arrived: dict[int, Tensor] = {}
        self._gradients = {w: torch.empty(sum(p.numel() for p in model.parameters())) for w in self.clocks.clocks}
        self._outbox: dict[int, list[Tensor | dist.Work]] = {}
        self._listeners: list[threading.Thread] = []

    def step(
        self,
        microbatches: Sequence[Batch] = (),
        loss_fn: Loss = next_token_loss,
        accept: Callable[[dict[str, float]], bool] | None = None,
    ) -> dict[str, float]:
        """Apply the next gradient that arrives, or, with seeded arrivals, that is due. Batches and loss are the
        workers' business; `accept` as in `Trainer.step`. After the run's last update the workers are told to stop.

        Returns:
            loss and count of the gradient's batch; grad_norm; lr, damped if so configured; staleness, in updates;
            the numbers of batch and worker; communicated_bytes, gradient and weights together; synchronous_bytes,
            what as many ranks would hand over in synchronous data parallelism, a float32 gradient each.

        Raises:
            UserError: no worker is left.
        """
        if not self._listeners:
            self._greet()
        worker, push = self._next()
        batch, staleness = self.clocks.finish(worker)
        wire.set_gradient(self.module, self._gradients[worker])
        _, loss, count = push.tolist()
        lr = self._set_lr(int(count), damping(staleness) if self.config.damp else 1.0)
        row = self._finish({"loss": loss, "count": count, "lr": lr}, int(count), accept)
        self.clocks.wait(worker)
        self._answer()
        if self.clocks.done:
            self.stop()
        weights = sum(p.numel() * p.element_size() for p in self.module.parameters())
        return {
            **row,
            "staleness": float(staleness),
            "batch": float(batch),
            "worker": float(worker),
            "communicated_bytes": float(self._gradients[worker].nbytes + weights),
            "synchronous_bytes": float(self._gradients[worker].nbytes * (self.peers.size - 1)),
        }

    def own_files(self) -> dict[str, bytes]:
        """The batches of which a worker has the gradient in the making: they are done again."""
        return {BATCHES: json.dumps(self.clocks.open_batches).encode()}

    def load(self, folder: Path) -> None:
        """Go on from `save`, before the first `step`. Every batch counts once, though gradients that were in the
        making are computed anew from newer weights.

        Raises:
            UserError: the checkpoint is damaged, of another shape, or not of asynchronous SGD.
        """
        super().load(folder)
        try:
            unfinished = json.loads((folder / BATCHES).read_text())
        except (OSError, ValueError) as e:
            raise UserError(f"{folder}: no state of asynchronous SGD ({e}); start the run anew") from None
        self.clocks.restore(self.step_count, unfinished)

    def stop(self) -> None:
        """Tell the workers that it is enough, and wait until they know; gradients in the making are thrown away.

        Also for a run that is over before its first `step`. Needless after the schedule's last, but harmless.
        """
        if not self._listeners:
            self._listen_to_all()
        for worker in self.clocks.clocks:
            self._send(worker, torch.tensor(wire.STOP))
        for listener in self._listeners:
            listener.join()

    def _listen_to_all(self) -> None:
        for worker in self.clocks.clocks:
            self._listeners.append(threading.Thread(target=self._listen, args=(worker,), daemon=True))
            self._listeners[-1].start()

    def _greet(self) -> None:
        self._listen_to_all()
        missing = set(self.clocks.clocks)
        while missing:
            worker, push = self._events.get()
            missing.discard(worker)
            if push is None:
                self._lose(worker)
        for worker in self.clocks.clocks:
            self.clocks.wait(worker)
        self._answer()

    def _listen(self, worker: int) -> None:
        """A thread: put what a worker pushes into the queue; None when it is lost."""
        try:
            while True:
                push = wire.push(wire.HELLO)
                self.peers.receive(push, worker)
                if push[0] == wire.STOP:
                    return
                if push[0] != wire.HELLO:
                    self.peers.receive(self._gradients[worker], worker)
                self._events.put((worker, push))
        except PeerLost:
            self._events.put((worker, None))

    def _next(self) -> tuple[int, Tensor]:
        """Wait for the next gradient to apply."""
        while True:
            if not self.clocks.clocks:
                raise UserError("no worker is left; start the run again to go on")
            if self._order is not None:
                due = self._order.due(self.clocks.computing)
                if due in self._arrived:
                    self._order.taken()
                    return due, self._arrived.pop(due)
            worker, push = self._events.get()
            if push is None:
                self._lose(worker)
                self._answer()
            elif self._order is None:
                return worker, push
            else:
                self._arrived[worker] = push

    def _lose(self, worker: int) -> None:
        self.clocks.lose(worker)
        self._arrived.pop(worker, None)
        self._log(f"worker {worker} is lost at step {self.step_count}; going on with {len(self.clocks.clocks)}")

    def _answer(self) -> None:
        """Send the weights to all who may start another batch."""
        started = self.clocks.start()
        weights = wire.weights(self.module) if started else torch.empty(0)
        for worker, batch in started:
            self._send(worker, torch.tensor(batch), weights)

    def _send(self, worker: int, order: Tensor, *weights: Tensor) -> None:
        """Without waiting, so that a worker that is stuck holds up nobody; its thread notices when it is gone."""
        with suppress(PeerLost):
            works = [self.peers.post(values, worker) for values in (order, *weights)]
            self._outbox[worker] = [order, *weights, *works]  # kept until the worker has answered
