"""One training engine for everything that learns: pre-training, SFT, reward model, policy, value.

A thin shell over Megatron: its data-parallel wrapper, its schedules (with and without a pipeline), its
optimiser with fp32 masters, its learning-rate scheduler, its distributed checkpoints. Gradients are
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
from megatron.core.optimizer_param_scheduler import OptimizerParamScheduler
from megatron.core.pipeline_parallel import get_forward_backward_func
from megatron.core.utils import get_attr_wrapped_model
from torch import Tensor

from . import checkpoint
from . import optimizer as optimizers
from .config import OptimizerConfig, ScheduleConfig
from .gpt import GPT

Batch = Mapping[str, Tensor]
Loss = Callable[[Tensor, Batch], tuple[Tensor, Tensor, dict[str, Any]]]


class Trainer:
    """A model, its optimiser and its schedule. Several may live in one process (policy and value)."""

    def __init__(self, model: GPT, optimizer: OptimizerConfig, schedule: ScheduleConfig):
        """Wrap `model`, as built by `gpt.build` or loaded by `pretrained.load` (any layout, any type)."""
        self.step_count = 0
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
            self.optimizer = optimizers.build(self.model, optimizer, schedule.floor, config.params_dtype)
        config.finalize_model_grads_func = finalize_model_grads
        config.grad_scale_func = self.optimizer.scale_loss
        self.scheduler = _scheduler(self.optimizer, optimizer, schedule)

    def step(
        self, microbatches: Sequence[Batch], loss_fn: Loss, accept: Callable[[dict[str, float]], bool] | None = None
    ) -> dict[str, float]:
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
            accept: called between backward and update with the row that will be returned, rank 0's on every
                rank; where it answers false, weights and optimiser stay as they are, and only the schedule
                and the count of steps go on.

        Returns:
            loss, grad_norm (before clipping), lr, count, and each metric: averages over all ranks.
        """
        self.model.zero_grad_buffer()
        self.optimizer.zero_grad()
        lr = self.optimizer.param_groups[0]["lr"]
        sums = self._run(microbatches, loss_fn, train=True)
        row = {**sums, "grad_norm": 0.0, "lr": float(lr)}
        with cpu.on_device():
            if accept is None or accept(self._before_update(row)):
                _, norm, _ = self.optimizer.step()
                row["grad_norm"] = float(norm or 0.0)
        self.scheduler.step(1)
        self.step_count += 1
        return row

    def _before_update(self, row: dict[str, float]) -> dict[str, float]:
        """Fill in the gradient norm, which Megatron tells after the update only; answer rank 0's row."""
        self.optimizer.prepare_grads()
        row["grad_norm"] = float(self.optimizer.get_grad_norm() or 0.0)
        box = [row]
        if dist.get_world_size() > 1:
            dist.broadcast_object_list(box, src=0)
        return box[0]

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

    def save(self, folder: Path) -> None:
        """Write a Megatron distributed checkpoint into the empty `folder`: weights, optimiser, schedule,
        step count and torch's generator. Called on every rank; layouts may differ between save and load.
        """
        checkpoint.write(folder, self.state())

    def state(self) -> dict[str, Any]:
        """The sharded state dict that `save` writes, of this moment's tensors; collective."""
        return self._state(loading=False)

    def load(self, folder: Path) -> None:
        """Go on from `save`: the next steps are the very steps that would have followed.

        Raises:
            UserError: the checkpoint is damaged or of another shape.
        """
        state = checkpoint.read(folder, self._state(loading=True))
        self.module.load_state_dict(state["model"])
        with cpu.on_device():
            self.optimizer.load_state_dict(state["optimizer"])
        self.scheduler.num_steps = 0  # it adds the saved count to its own
        self.scheduler.load_state_dict(state["scheduler"])
        self.step_count = state["step"]
        torch.set_rng_state(state["generator"])

    def _state(self, loading: bool) -> dict[str, Any]:
        weights = self.module.sharded_state_dict()
        with cpu.on_device():
            optimizer = self.optimizer.sharded_state_dict(weights, is_loading=loading)
        return {
            "model": weights,
            "optimizer": optimizer,
            "scheduler": self.scheduler.state_dict(),
            "step": self.step_count,
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


def _scheduler(optimizer: Any, config: OptimizerConfig, schedule: ScheduleConfig) -> OptimizerParamScheduler:
    """Megatron's scheduler, counted in steps; the first step already has a learning rate above 0."""
    style = {"wsd": "WSD"}.get(schedule.kind, schedule.kind)
    scheduler = OptimizerParamScheduler(
        optimizer,
        init_lr=0.0,
        max_lr=config.lr,
        min_lr=config.lr * schedule.floor,
        lr_warmup_steps=schedule.warmup,
        lr_decay_steps=max(schedule.steps, schedule.warmup + 1),
        lr_decay_style=style,
        start_wd=config.weight_decay,
        end_wd=config.weight_decay,
        wd_incr_steps=schedule.steps,
        wd_incr_style="constant",
        wsd_decay_steps=schedule.decay or None,
        lr_wsd_decay_style="minus_sqrt",
        use_checkpoint_opt_param_scheduler=True,
        override_opt_param_scheduler=False,
    )
    scheduler.step(1)
    return scheduler
