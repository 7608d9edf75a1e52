"""One training engine for everything that learns: pre-training, SFT, reward model, policy, value.

A thin shell over Megatron: its data-parallel wrapper, its schedules (with and without a pipeline), its
optimiser with fp32 masters, its distributed checkpoints. Gradients are
divided by the number of counted tokens of the whole batch, over all micro-batches and data-parallel ranks,
so a batch cut differently gives the same step.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import headwater_model.cpu as cpu

import torch
import torch.distributed as dist
from megatron.core import parallel_state
from megatron.core.distributed import DistributedDataParallel, DistributedDataParallelConfig, finalize_model_grads
from megatron.core.pipeline_parallel import get_forward_backward_func
from megatron.core.utils import get_attr_wrapped_model
from torch import Tensor

from . import checkpoint, hot_swap
from . import optimizer as optimizers
from . import schedule as schedules
from ._contracts.errors import UserError
from .config import OptimizerConfig, ScheduleConfig
from .gpt import GPT

Batch = Mapping[str, Tensor]
Loss = Callable[[Tensor, Batch], tuple[Tensor, Tensor, dict[str, Any]]]


class Trainer:
    """A model, its optimiser and its schedule. Several may live in one process (policy and value)."""

    def __init__(self, model: GPT, optimizer: OptimizerConfig, schedule: ScheduleConfig):
        """Wrap `model`, as built by `gpt.build` or loaded by `pretrained.load` (any layout, any type)."""
        self.step_count = 0
        self.token_count = 0
        self.optimizer_config = optimizer
        self.schedule = schedule
        self.module = model
        config = model.config
        with cpu.on_device():
            self.model = DistributedDataParallel(
                config,
                DistributedDataParallelConfig(grad_reduce_in_fp32=True, overlap_grad_reduce=False),
                model,
            )
            self.model.broadcast_params()
            self.optimizer = optimizers.build([self.model], optimizer, config.params_dtype)
        config.finalize_model_grads_func = finalize_model_grads
        config.grad_scale_func = self.optimizer.scale_loss

    def step(self, microbatches: Sequence[Batch], loss_fn: Loss) -> dict[str, float]:
        """Forward, backward and update on one batch.

        Args:
            microbatches: this data-parallel rank's share, as dicts of tensors. "tokens" (int64
                [batch, positions]) feeds the model; "labels" (same shape), where given to a head "lm",
                makes the model answer each label's negative log-likelihood; "attention_mask" is handed
                on. Everything else is for `loss_fn`. One shape a pipeline run.
            loss_fn: called with the model's output (see `GPT.forward`) and the micro-batch, answers
                (sum of the losses as a scalar with gradient, count as an integer scalar tensor: by how
                many the sum is to be divided, dict of metrics: each a sum over the same count, or a pair
                (sum, its own count)).

        Returns:
            loss, grad_norm (before clipping), lr (a group's own is this times its scale), count, and each
            metric: averages over all ranks.
        """
        tokens = sum(batch["tokens"].numel() for batch in microbatches) * parallel_state.get_data_parallel_world_size()
        progress = {"steps": self.step_count + 1, "tokens": self.token_count + tokens}[self.schedule.unit]
        lr = self.optimizer_config.lr * schedules.factor(self.schedule, progress)
        optimizers.set_lr(self.optimizer, lr)
        self.model.zero_grad_buffer()
        self.optimizer.zero_grad()
        sums = self._run(microbatches, loss_fn, train=True)
        with cpu.on_device():
            updated, norm, _ = self.optimizer.step()
        self.step_count += 1
        self.token_count += tokens
        return {**sums, "grad_norm": float(norm or 0.0), "lr": lr}

    @torch.no_grad()
    def evaluate(self, microbatches: Sequence[Batch], loss_fn: Loss) -> dict[str, float]:
        """Loss and metrics as `step` gives them, without gradient or update."""
        self.module.eval()
        try:
            return self._run(microbatches, loss_fn, train=False)
        finally:
            self.module.train()

    def _run(self, microbatches: Sequence[Batch], loss_fn: Loss, train: bool) -> dict[str, float]:
        shape = microbatches[0]["tokens"].shape
        with cpu.on_device():
            outputs = get_forward_backward_func()(
                forward_step_func=partial(_forward, loss_fn),
                data_iterator=iter(microbatches),
                model=self.model,
                num_microbatches=len(microbatches),
                seq_length=shape[1],
                micro_batch_size=shape[0],
                forward_only=not train,
            )
        return _reduce(outputs)

    def change_schedule(self, schedule: ScheduleConfig) -> None:
        """Go on under another schedule, which counts from the run's first step as any does."""
        self.schedule = schedule

    def change_optimizer(self, optimizer: OptimizerConfig) -> str:
        """Go on with other settings or another kind: weights and masters stay, moments where both kinds have them.

        Called between steps, on every rank. The next step is the same whether the run went on or was saved
        after the change and loaded under the new config.

        Returns:
            What was kept, in a line.

        Raises:
            UserError: this layout can't have the new kind.
        """
        with cpu.on_device():
            self.optimizer, kept = hot_swap.swap(
                self.optimizer, [self.model], self.optimizer_config, optimizer, self.module.config.params_dtype
            )
        self.module.config.grad_scale_func = self.optimizer.scale_loss
        self.optimizer_config = optimizer
        return kept

    def save(self, folder: Path) -> None:
        """Write a Megatron distributed checkpoint into the empty `folder`: weights, optimiser, step and token
        count and torch's generator. Called on every rank; layouts may differ between save and load.
        """
        checkpoint.write(folder, self._state(loading=False))

    def load(self, folder: Path) -> None:
        """Go on from `save`: the next steps are the very steps that would have followed.

        Learning rate, decay, clipping and the like are those that this trainer was made with, not the saved ones.

        Raises:
            UserError: the checkpoint is damaged, of another shape or of another kind of optimiser.
        """
        kind = checkpoint.read(folder, {}).get("optimizer_kind", "none")
        if kind != self.optimizer_config.kind:
            raise UserError(
                f"{folder} was saved with optimizer.kind {kind}, not {self.optimizer_config.kind}: "
                "load it with its own, then change (Trainer.change_optimizer)"
            )
        state = checkpoint.read(folder, self._state(loading=True))
        self.module.load_state_dict(state["model"])
        with cpu.on_device():
            optimizers.load(self.optimizer, state["optimizer"], self.optimizer_config)
        self.step_count, self.token_count = state["step"], state["tokens"]
        torch.set_rng_state(state["generator"])

    def _state(self, loading: bool) -> dict[str, Any]:
        weights = self.module.sharded_state_dict()
        with cpu.on_device():
            optimizer = self.optimizer.sharded_state_dict(weights, is_loading=loading)
        return {
            "model": weights,
            "optimizer": optimizer,
            "optimizer_kind": self.optimizer_config.kind,
            "step": self.step_count,
            "tokens": self.token_count,
            "generator": torch.get_rng_state(),
        }


def next_token_loss(output: Tensor, batch: Batch) -> tuple[Tensor, Tensor, dict[str, Any]]:
    """Loss function of pre-training and SFT: mean negative log-likelihood where `loss_mask` is 1.

    Args:
        output: float32 [batch, positions], nats.
        batch: with "loss_mask" [batch, positions], all ones if absent.
    """
    mask = batch.get("loss_mask")
    if mask is None:
        return output.sum(), torch.tensor(output.numel(), dtype=torch.int, device=output.device), {}
    return (output * mask).sum(), mask.sum().int(), {}


def _forward(loss_fn: Loss, batches: Any, model: Any) -> tuple[Tensor, Callable]:
    batch = {name: t.to(cpu.DEVICE, non_blocking=True) for name, t in next(batches).items()}
    inputs = get_attr_wrapped_model(model, "inputs")
    output = model(batch["tokens"], **{name: batch[name] for name in inputs if name in batch})

    def loss(output: Tensor) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        total, count, metrics = loss_fn(output, batch)
        count = count.detach().int()
        # The schedules change the loss in place: log a copy.
        sums = {"loss": (total.detach().clone(), count), **{k: _pair(v, count) for k, v in metrics.items()}}
        return total, count, sums

    return output, loss


def _pair(value: Any, count: Tensor) -> tuple[Tensor, Tensor]:
    total, own = value if isinstance(value, tuple) else (value, count)
    return total.detach().clone(), own.detach()


def _reduce(outputs: list[dict[str, tuple[Tensor, Tensor]]]) -> dict[str, float]:
    """Sum over micro-batches and data-parallel ranks, divide, and tell the pipeline's other ranks."""
    names = list(outputs[0]) if outputs else []
    pairs = [[sum(o[n][i].double() for o in outputs) for i in (0, 1)] for n in names]
    table = torch.tensor([[float(v) for v in pair] for pair in pairs], dtype=torch.float64, device=cpu.DEVICE)
    if outputs and parallel_state.get_data_parallel_world_size() > 1:
        dist.all_reduce(table, group=parallel_state.get_data_parallel_group())
    if parallel_state.get_pipeline_model_parallel_world_size() > 1:
        box = [(names, table.tolist())]
        last = parallel_state.get_pipeline_model_parallel_last_rank()
        dist.broadcast_object_list(box, src=last, group=parallel_state.get_pipeline_model_parallel_group())
        names, rows = box[0]
    else:
        rows = table.tolist()
    found = {name: total / count if count else 0.0 for name, (total, count) in zip(names, rows, strict=True)}
    return {**found, "count": rows[0][1] if rows else 0.0}
