"""A forward pass through a pipeline without training: each rank runs its layers, all get the last one's answer.

There is no schedule: one batch goes from rank to rank while the others wait, so this is for scoring and generation with
a model that does not fit otherwise. Tensor-parallel ranks walk side by side, data-parallel ranks on their own. Where
one rank holds all layers, the model is simply called.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import headwater_model.cpu as cpu

import torch
import torch.distributed as dist
from megatron.core import parallel_state
from torch import Tensor

from ._contracts.errors import UserError
from .gpt import GPT

Like = Sequence[tuple[tuple[int, ...], torch.dtype]]


def forward(model: GPT, tokens: Tensor, *args: Any, answer: Like, **options: Any) -> Any:
    """`model(tokens, ...)` in any layout but context parallelism and interleaved chunks; called on every rank.

    Through a pipeline, and where tensor ranks also split positions (`parallel.sequence`; positions then need not be
    a multiple of anything), there is no gradient.

    Args:
        tokens: int64 [batch, positions], the same on all ranks of the pipeline, as are all further arguments.
        answer: shape and type of each tensor that the model answers.

    Raises:
        UserError: a layout that this does not know.
    """
    _check(model)
    pipeline = model.config.pipeline_model_parallel_size
    if pipeline == 1 and not (model.config.sequence_parallel and not torch.is_grad_enabled()):
        with cpu.on_device():
            return model(tokens, *args, **options)
    with torch.no_grad(), cpu.on_device(), _whole_positions(model):
        if pipeline == 1:
            return model(tokens, *args, **options)
        return _relay(model, tokens, *args, answer=answer, **options)


def _relay(model: GPT, tokens: Tensor, *args: Any, answer: Like, **options: Any) -> Any:
    group = parallel_state.get_pipeline_model_parallel_group()
    if not model.pre_process:
        config = model.config
        shape = (tokens.size(1), tokens.size(0), config.hidden_size)
        hidden = torch.empty(shape, dtype=config.params_dtype, device=cpu.DEVICE)
        dist.recv(hidden, parallel_state.get_pipeline_model_parallel_prev_rank(), group=group)
        model.set_input_tensor(hidden)
    out = model(tokens, *args, **options)
    model.set_input_tensor(None)  # type: ignore[arg-type]
    if model.post_process:
        parts = out if isinstance(out, tuple) else (out,)
    else:
        dist.send(out.contiguous(), parallel_state.get_pipeline_model_parallel_next_rank(), group=group)
        parts = tuple(torch.empty(shape, dtype=dtype, device=cpu.DEVICE) for shape, dtype in answer)
    parts = tuple(part.contiguous() for part in parts)
    for part in parts:
        dist.broadcast(part, parallel_state.get_pipeline_model_parallel_last_rank(), group=group)
    return parts if len(answer) > 1 else parts[0]


def _check(model: GPT) -> None:
    if model.config.virtual_pipeline_model_parallel_size is not None:
        raise UserError("a model in interleaved chunks only trains; set parallel.chunks 1 to score or generate")
    if model.config.context_parallel_size > 1:
        raise UserError("context-parallel ranks only train; set parallel.context 1 to score or generate")


@contextlib.contextmanager
def _whole_positions(model: GPT) -> Iterator[None]:
    """A block in which tensor-parallel ranks hold all positions: a token that is generated can't be split."""
    if not model.config.sequence_parallel:
        yield
        return
    names = ("sequence_parallel", "reduce_scatter_embeddings")
    held = [(m, name) for m in (model.config, *model.modules()) for name in names if getattr(m, name, None) is True]
    for module, name in held:
        setattr(module, name, False)
    try:
        yield
    finally:
        for module, name in held:
            setattr(module, name, True)
