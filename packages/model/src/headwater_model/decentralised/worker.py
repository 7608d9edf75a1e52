"""A worker of asynchronous SGD: pulls weights, computes a gradient, pushes it, until the server has enough."""

from __future__ import annotations

import signal
from collections.abc import Callable, Sequence
from contextlib import nullcontext

import headwater_model.cpu as cpu  # noqa: F401

import torch

from .._contracts.errors import UserError
from ..runtime import dropout_of
from ..trainer import Batch, Loss, Trainer
from . import wire
from .peers import PeerLost, Peers


class Worker(Trainer):
    """A trainer whose optimiser stays idle: the server's is the one that counts."""

    def work(self, peers: Peers, batches: Callable[[int], Sequence[Batch]], loss_fn: Loss) -> int:
        """Compute gradients until the server says that it has enough; answers how many.

        SIGTERM is ignored meanwhile: the server is asked too, and decides.

        Args:
            peers: the server is the first of them.
            batches: number of a batch, from 0 -> its micro-batches, all of them.
            loss_fn: see `Trainer.step`.

        Raises:
            UserError: the server ended.
        """
        before = signal.signal(signal.SIGTERM, signal.SIG_IGN)
        try:
            return self._work(peers, batches, loss_fn)
        except PeerLost:
            raise UserError("the parameter server has ended; start the run again to go on") from None
        finally:
            signal.signal(signal.SIGTERM, before)

    def _work(self, peers: Peers, batches: Callable[[int], Sequence[Batch]], loss_fn: Loss) -> int:
        done, order = 0, torch.tensor(wire.HELLO)
        weights = wire.weights(self.module)
        peers.send(wire.push(wire.HELLO), wire.SERVER)
        while True:
            peers.receive(order, wire.SERVER)
            if int(order) == wire.STOP:
                peers.send(wire.push(wire.STOP), wire.SERVER)
                return done
            peers.receive(weights, wire.SERVER)
            wire.set_weights(self.module, weights)
            for chunk in self._wrapped:
                chunk.zero_grad_buffer()
            self.optimizer.zero_grad()
            with dropout_of(int(order)) if self._drops else nullcontext():
                row = self._run(batches(int(order)), loss_fn, train=True)
            peers.send(wire.push(int(order), row["loss"], row["count"]), wire.SERVER)
            peers.send(wire.gradient(self.module), wire.SERVER)
            done += 1
