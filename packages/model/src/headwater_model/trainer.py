"""One training engine for everything that learns: pre-training, SFT, reward model, policy, value.

A thin shell over Megatron: its data-parallel wrapper, its schedules (with and without a pipeline), its
optimiser with fp32 masters, its distributed checkpoints. Gradients are divided by the number of counted tokens of
the whole batch, over all micro-batches and all ranks, so a batch cut differently gives the same step under every
layout.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import headwater_model.cpu as cpu

import torch
import torch.distributed as dist
from megatron.core import parallel_state
from megatron.core.distributed import DistributedDataParallel, DistributedDataParallelConfig, finalize_model_grads
from megatron.core.optimizer.clip_grads import clip_grad_by_total_norm_fp32
from megatron.core.pipeline_parallel import get_forward_backward_func
from megatron.core.utils import get_attr_wrapped_model
from torch import Tensor

from . import checkpoint, context_parallel, hot_swap, optimizer_state
from . import optimizer as optimizers
from . import schedule as schedules
from ._contracts.errors import UserError
from .config import OptimizerConfig, ScheduleConfig
from .gpt import GPT
from .runtime import dropout_of, layout

Batch = Mapping[str, Tensor]
Loss = Callable[[Tensor, Batch], tuple[Tensor, Tensor, dict[str, Any]]]


class Trainer:
    """A model, its optimiser and its schedule. Several may live in one process (policy and value)."""

    replicas = 1
    """Trainers that each take their share of every batch, beside the data ranks of each (local SGD)."""

    def __init__(self, model: GPT | Sequence[GPT], optimizer: OptimizerConfig, schedule: ScheduleConfig):
        """Wrap a model, as built by `gpt.build` or loaded by `pretrained.load` (any layout, any type), or this
        rank's chunks of one, as built by `gpt.build_chunks`."""
        self.step_count = 0
        self.token_count = 0
        self.optimizer_config = optimizer
        self.schedule = schedule
        self.chunks: list[GPT] = list(model) if isinstance(model, Sequence) else [model]
        self.parallel = layout()
        config = self.chunks[0].config
        self._wrapped = [self._wrap(chunk, first=number == 0) for number, chunk in enumerate(self.chunks)]
        with cpu.on_device():
            self.optimizer = optimizers.build(
                self._wrapped, optimizer, config.params_dtype, zero=self.parallel.zero == 1
            )
        config.finalize_model_grads_func = finalize_model_grads
        config.grad_scale_func = self.optimizer.scale_loss
        if self.parallel.overlap_grad_reduce:
            config.no_sync_func = [chunk.no_sync for chunk in self._wrapped]
            if len(self.chunks) == 1:
                config.no_sync_func = config.no_sync_func[0]
        adapters = getattr(self.chunks[0], "lora", None)
        self._drops = bool(config.hidden_dropout or config.attention_dropout or (adapters and adapters.dropout))

    def _wrap(self, chunk: GPT, first: bool) -> DistributedDataParallel:
        options = DistributedDataParallelConfig(
            grad_reduce_in_fp32=True,
            use_distributed_optimizer=self.parallel.zero == 1,
            overlap_grad_reduce=self.parallel.overlap_grad_reduce,
            overlap_param_gather=self.parallel.overlap_param_gather,
        )
        with cpu.on_device():
            wrapped = DistributedDataParallel(chunk.config, options, chunk, disable_bucketing=not first)
            wrapped.broadcast_params()
        return wrapped

    @property
    def module(self) -> GPT:
        """The model, or this pipeline rank's part of it.

        Raises:
            ValueError: there are several parts (`parallel.chunks`); they are `chunks`.
        """
        if len(self.chunks) > 1:
            raise ValueError("parallel.chunks above 1: the model is no single module; set parallel.chunks 1")
        self._gather()
        return self.chunks[0]

    def weights(self) -> dict[str, Any]:
        """Sharded state dict of the model, for `checkpoint.write`."""
        self._gather()
        names = [f"model{number}" for number in range(len(self.chunks))] if len(self.chunks) > 1 else ["model"]
        return {name: chunk.sharded_state_dict() for name, chunk in zip(names, self.chunks, strict=True)}

    def step(
        self,
        microbatches: Sequence[Batch],
        loss_fn: Loss,
        accept: Callable[[dict[str, float]], bool] | None = None,
    ) -> dict[str, float]:
        """Forward, backward and update on one batch.

        Args:
            microbatches: this data-parallel rank's share, as dicts of tensors, the same on its tensor, pipeline and
                context ranks. "tokens" (int64 [batch, positions]) feeds the model; "labels" (same shape), where
                given to a head "lm", makes the model answer each label's negative log-likelihood; "attention_mask"
                is handed on. Everything else is for `loss_fn`. One shape a pipeline run.
            loss_fn: called with the model's output (see `GPT.forward`) and the micro-batch, of both the positions
                that this context rank holds. It answers
                (sum of the losses as a scalar with gradient, count as an integer scalar tensor: by how
                many the sum is to be divided, dict of metrics: each a sum over the same count, or a pair
                (sum, its own count)).
            accept: asked before the update with the row that will be returned; where it answers False, on every
                rank, weights and optimiser stay as they are. The step counts all the same.

        Returns:
            loss, grad_norm (before clipping), lr (a group's own is this times its scale), count, and each
            metric: averages over all ranks.

        Raises:
            UserError: positions or micro-batches that the layout can't split.
        """
        for chunk in self._wrapped:
            chunk.zero_grad_buffer()
        self.optimizer.zero_grad()
        tokens = sum(batch["tokens"].numel() for batch in microbatches) * self.parallel.data * self.replicas
        lr = self._set_lr(tokens)
        with dropout_of(self.step_count) if self._drops else nullcontext():
            sums = self._run(microbatches, loss_fn, train=True)
        return self._finish({**sums, "lr": lr}, tokens, accept)

    def _set_lr(self, tokens: int, factor: float = 1.0) -> float:
        """Set the learning rate of the next step, which reads `tokens`, times `factor`."""
        progress = {"steps": self.step_count + 1, "tokens": self.token_count + tokens}[self.schedule.unit]
        lr = self.optimizer_config.lr * schedules.factor(self.schedule, progress) * factor
        optimizers.set_lr(self.optimizer, lr)
        return lr

    def _finish(
        self, row: dict[str, float], tokens: int, accept: Callable[[dict[str, float]], bool] | None = None
    ) -> dict[str, float]:
        """Update with the gradients in Megatron's buffers, if `accept` agrees; answer the row with their norm."""
        with cpu.on_device():
            self.optimizer.prepare_grads()
            row = {**row, "grad_norm": float(self.optimizer.get_grad_norm())}
            if accept is None or accept(row):
                self._update(row["grad_norm"])
        self.step_count += 1
        self.token_count += tokens
        return row

    def _update(self, norm: float) -> None:
        for shell in self.optimizer.chained_optimizers:
            weights = shell.get_parameters()
            if weights and shell.config.clip_grad > 0:
                clip_grad_by_total_norm_fp32(weights, shell.config.clip_grad, norm)
        self.optimizer.step_with_ready_grads()

    @torch.no_grad()
    def evaluate(self, microbatches: Sequence[Batch], loss_fn: Loss) -> dict[str, float]:
        """Loss and metrics as `step` gives them, without gradient or update."""
        self._gather()
        for chunk in self.chunks:
            chunk.eval()
        try:
            return self._run(microbatches, loss_fn, train=False)
        finally:
            for chunk in self.chunks:
                chunk.train()

    def _run(self, microbatches: Sequence[Batch], loss_fn: Loss, train: bool) -> dict[str, float]:
        count, shape = len(microbatches), microbatches[0]["tokens"].shape
        self._check(microbatches, train)
        batches = [*microbatches, *[microbatches[-1]] * (-count % self.parallel.pipeline if self._interleaved else 0)]
        with cpu.on_device():
            outputs = get_forward_backward_func()(
                forward_step_func=partial(_forward, loss_fn, self.parallel.context),
                data_iterator=[iter(batches) for _ in self.chunks] if self._interleaved else iter(batches),
                model=self._wrapped if self._interleaved else self._wrapped[0],
                num_microbatches=len(batches),
                seq_length=shape[1],
                micro_batch_size=shape[0],
                forward_only=not train,
            )
        return _reduce(outputs[:count])

    def _check(self, microbatches: Sequence[Batch], train: bool) -> None:
        positions = microbatches[0]["tokens"].size(1)
        if positions % self.parallel.position_parts:
            raise UserError(
                f"{positions} positions are no multiple of {self.parallel.position_parts}, by which parallel.context "
                "and parallel.sequence cut them; change the length of rows or the layout"
            )
        one_shape = self.parallel.pipeline > 1 and not self.chunks[0].config.variable_seq_lengths
        if one_shape and len({batch["tokens"].shape for batch in microbatches}) > 1:
            raise UserError(
                "a pipeline with parallel.chunks above 1, or of experts, takes micro-batches of one shape; pad them "
                "or set parallel.pipeline 1"
            )
        if train:
            try:
                self.parallel.check_batch(len(microbatches))
            except ValueError as e:
                raise UserError(str(e)) from None

    @property
    def _interleaved(self) -> bool:
        return len(self.chunks) > 1

    def _gather(self) -> None:
        """Fetch now the weights that would arrive during the next forward pass."""
        if self.parallel.overlap_param_gather:
            with cpu.on_device():
                for chunk in self._wrapped:
                    chunk.start_param_sync(force_sync=True)

    def change_schedule(self, schedule: ScheduleConfig) -> None:
        """Go on under another schedule, which counts from the run's first step as any does."""
        self.schedule = schedule

    def change_optimizer(self, optimizer: OptimizerConfig) -> str:
        """Go on with other settings or another kind: weights and masters stay, moments where both kinds have them.

        Called between steps, on every rank. The next step is the same whether the run goes on or is saved after
        the change and loaded under the new config.

        Returns:
            What was kept, in a line.

        Raises:
            UserError: this layout can't have the new kind.
        """
        self._gather()
        config = self.chunks[0].config
        with cpu.on_device():
            self.optimizer, kept = hot_swap.swap(
                self.optimizer,
                self._wrapped,
                self.optimizer_config,
                optimizer,
                config.params_dtype,
                zero=self.parallel.zero == 1,
            )
        config.grad_scale_func = self.optimizer.scale_loss
        self.optimizer_config = optimizer
        return kept

    @torch.no_grad()
    def take_weights(self, model: GPT) -> None:
        """Begin with the weights of another model of the same shape and layout (`pretrained.load`)."""
        for own, given in zip(self.module.parameters(), model.parameters(), strict=True):
            own.copy_(given)
        with cpu.on_device():
            self.optimizer.reload_model_params()

    def save(self, folder: Path) -> None:
        """Write a Megatron distributed checkpoint into the empty `folder`: weights, optimiser, step and token
        count and torch's generator. Called on every rank; layouts may differ between save and load.
        """
        checkpoint.write(folder, self.state(), self.own_files())

    def state(self) -> dict[str, Any]:
        """The sharded state dict that `save` writes, of this moment's tensors; collective."""
        return self._state(loading=False)

    def own_files(self) -> dict[str, bytes]:
        """Name -> content of what else `save` writes, of this rank alone."""
        return {}

    def agree(self, flag: bool) -> bool:
        """Between two steps, whether a flag that is the same on all ranks holds in other replicas or here."""
        return flag

    def load(self, folder: Path) -> None:
        """Go on from `save`: the next steps are the very steps that would have followed.

        Learning rate, decay, clipping and the like are those that this trainer was made with: they are not saved.

        Raises:
            UserError: the checkpoint is damaged, of another shape or of another kind of optimiser.
        """
        kind = checkpoint.read(folder, {}).get("optimizer_kind", "none")
        if kind != self.optimizer_config.kind:
            raise UserError(
                f"{folder} was saved with optimizer.kind {kind}, not {self.optimizer_config.kind}: "
                "load it with its own, then change (Trainer.change_optimizer)"
            )
        target = self._state(loading=True)
        weights = self.weights()
        state = checkpoint.read(folder, target)
        for name, chunk in zip(weights, self.chunks, strict=True):
            chunk.load_state_dict(state[name])
        optimizer_state.load(self.optimizer, weights, state["optimizer"])
        self.step_count, self.token_count = state["step"], state["tokens"]
        torch.set_rng_state(state["generator"])

    def _state(self, loading: bool) -> dict[str, Any]:
        weights = self.weights()
        return {
            **weights,
            "optimizer": optimizer_state.sharded(self.optimizer, weights, loading),
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


def _forward(loss_fn: Loss, context: int, batches: Any, model: Any) -> tuple[Tensor, Callable]:
    batch = {name: t.to(cpu.DEVICE, non_blocking=True) for name, t in next(batches).items()}
    inputs = get_attr_wrapped_model(model, "inputs")
    if context > 1:
        batch = context_parallel.cut(batch, inputs, parallel_state.get_context_parallel_rank(), context)
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
    """Sum over micro-batches and data and context ranks, divide, and tell the pipeline's other ranks."""
    names = list(outputs[0]) if outputs else []
    pairs = [[sum(o[n][i].double() for o in outputs) for i in (0, 1)] for n in names]
    table = torch.tensor([[float(v) for v in pair] for pair in pairs], dtype=torch.float64, device=cpu.DEVICE)
    group = parallel_state.get_data_parallel_group(with_context_parallel=True)
    if outputs and group.size() > 1:
        dist.all_reduce(table, group=group)
    if parallel_state.get_pipeline_model_parallel_world_size() > 1:
        box = [(names, table.tolist())]
        last = parallel_state.get_pipeline_model_parallel_last_rank()
        dist.broadcast_object_list(box, src=last, group=parallel_state.get_pipeline_model_parallel_group())
        names, rows = box[0]
    else:
        rows = table.tolist()
    found = {name: total / count if count else 0.0 for name, (total, count) in zip(names, rows, strict=True)}
    return {**found, "count": rows[0][1] if rows else 0.0}
