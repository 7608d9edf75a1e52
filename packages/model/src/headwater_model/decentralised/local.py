"""Local SGD and DiLoCo: replicas train alone and meet every H steps.

Each replica makes H steps of the inner optimiser on its own share of the batches. Then the mean over all replicas of
(weights at the last meeting - weights now) is the gradient of an outer SGD with Nesterov momentum, and what that makes
of the weights of the last meeting is where all replicas go on. Inner optimisers keep their states (Douillard et al.
2023, arXiv:2311.08105, algorithm 1). With an outer learning rate of 1 and no momentum the replicas'
weights are averaged: local SGD (Stich 2018, arXiv:1805.09767).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import headwater_model.cpu as cpu  # noqa: F401

import torch
import torch.distributed as dist
from megatron.core.optimizer.distrib_optimizer import DistributedOptimizer
from safetensors import SafetensorError
from safetensors.torch import load_file
from safetensors.torch import save as to_bytes
from torch import Tensor

from .._contracts.errors import UserError
from ..config import LocalSGDConfig, OptimizerConfig, ScheduleConfig
from ..gpt import GPT
from ..trainer import Batch, Loss, Trainer
from .peers import Peers


class LocalTrainer(Trainer):
    """A replica's trainer: `step` makes one step alone, and every H-th, and the run's last, ends in a meeting."""

    def __init__(
        self,
        model: GPT,
        optimizer: OptimizerConfig,
        schedule: ScheduleConfig,
        peers: Peers,
        config: LocalSGDConfig,
        steps: int | None = None,
    ):
        """Start from the first replica's weights; collective.

        Args:
            steps: of the run, whose last ends in a meeting; the schedule's if None.

        Raises:
            UserError: an optimiser that shards its float32 weights over ranks.
        """
        super().__init__(model, optimizer, schedule)
        self.peers, self.config, self.steps = peers, config, steps or schedule.steps
        self.replicas = peers.size
        shells = getattr(self.optimizer, "chained_optimizers", [self.optimizer])
        if any(isinstance(shell, DistributedOptimizer) for shell in shells):
            raise UserError("local SGD needs whole float32 weights on a rank: switch the distributed optimizer off")
        self.meeting = torch.nn.Parameter(self._weights())
        """Weights after the last meeting: float32 [this rank's parameters], on the host."""
        peers.broadcast(self.meeting.data)
        self._set_weights(self.meeting.data)
        momentum = config.outer_momentum
        self.outer = torch.optim.SGD([self.meeting], lr=config.outer_lr, momentum=momentum, nesterov=momentum > 0)

    def step(
        self,
        microbatches: Sequence[Batch],
        loss_fn: Loss,
        accept: Callable[[dict[str, float]], bool] | None = None,
    ) -> dict[str, float]:
        """One step on this replica's share of the batch.

        Returns:
            the row of `Trainer.step`, of this replica alone; "communicated_bytes": handed to the other replicas by
            this rank, 0 but at a meeting; "synchronous_bytes": what it would hand over in synchronous data
            parallelism, a float32 gradient; and at a meeting "outer_norm", this rank's part of the outer gradient's.
        """
        row = super().step(microbatches, loss_fn, accept)
        row |= {"communicated_bytes": 0.0, "synchronous_bytes": float(self.meeting.nbytes)}
        return {**row, **self._meet()} if self._met else row

    def evaluate(self, microbatches: Sequence[Batch], loss_fn: Loss) -> dict[str, float]:
        """Mean over the replicas, each with its own weights on the micro-batches it is given; collective."""
        return self.peers.average(super().evaluate(microbatches, loss_fn))

    def agree(self, flag: bool) -> bool:
        """After a meeting, whether the flag is set on any replica; between meetings no, since nobody can be asked."""
        return self._met and self.peers.any(flag)

    def take_weights(self, model: GPT) -> None:
        """As `Trainer.take_weights`, on every replica the same; the first meeting reckons from them."""
        super().take_weights(model)
        self.meeting.data.copy_(self._weights())

    def own_files(self) -> dict[str, bytes]:
        """The last meeting's weights and the outer momentum.

        Every replica needs a folder of its own, and none may be more than one checkpoint ahead of another
        (`saver.Saver`'s `meet`): see `peers.newest_common`.
        """
        state = {"meeting": self.meeting.data}
        if (momentum := self.outer.state[self.meeting].get("momentum_buffer")) is not None:
            state["momentum"] = momentum
        return {_outer_file(): to_bytes(state)}

    def load(self, folder: Path) -> None:
        """Go on from `save`, in the middle between two meetings too: all steps are those that would have followed.

        Raises:
            UserError: the checkpoint is damaged, of another shape or layout, or not of local SGD.
        """
        super().load(folder)
        try:
            state = load_file(folder / _outer_file())
            self.meeting.data.copy_(state["meeting"])
        except (OSError, SafetensorError, KeyError, RuntimeError) as e:
            reason = " ".join(str(e).split())[:150]
            raise UserError(f"{folder}: no state of local SGD for this layout ({reason}); start the run anew") from None
        if "momentum" in state:
            self.outer.state[self.meeting]["momentum_buffer"] = state["momentum"]

    @property
    def _met(self) -> bool:
        """Whether the last step ended in a meeting."""
        return self.step_count % self.config.inner_steps == 0 or self.step_count == self.steps

    def _meet(self) -> dict[str, float]:
        gradient = self.meeting.data - self._weights()
        self.peers.mean(gradient)
        self.meeting.grad = gradient
        self.outer.step()
        self._set_weights(self.meeting.data)
        self.meeting.grad = None
        return {"communicated_bytes": float(gradient.nbytes), "outer_norm": gradient.norm().item()}

    def _masters(self) -> list[tuple[Tensor, Tensor]]:
        """Each of the model's parameters with its float32 weight, which the inner optimiser updates; often the same."""
        return [(p, getattr(p, "main_param", p)) for p in self.module.parameters()]

    def _weights(self) -> Tensor:
        return torch.cat([master.detach().reshape(-1).float().cpu() for _, master in self._masters()])

    @torch.no_grad()
    def _set_weights(self, flat: Tensor) -> None:
        pairs = self._masters()
        for (parameter, master), values in zip(pairs, flat.split([p.numel() for p, _ in pairs]), strict=True):
            master.copy_(values.view_as(master))
            parameter.copy_(master)


def _outer_file() -> str:
    return f"outer-{dist.get_rank():05d}.safetensors"
