"""Process group, Megatron's parallel state and seeds: what must stand before a model is built."""

from __future__ import annotations

import logging
import os
from datetime import timedelta

import headwater_model.cpu as cpu

import torch
import torch.distributed as dist
from megatron.core import parallel_state
from megatron.core.tensor_parallel import model_parallel_cuda_manual_seed

from ._contracts.errors import UserError
from .config import ParallelConfig

TIMEOUT_MINUTES = 10  # Megatron's own groups take whole minutes and do not follow init_process_group's timeout


def initialize(parallel: ParallelConfig | None = None, seed: int = 1234) -> None:
    """Join the other ranks, if there are any, and set Megatron up. Calling it again re-seeds.

    One rank needs no launcher. More ranks are processes that have RANK, WORLD_SIZE, MASTER_ADDR and
    MASTER_PORT in their environment, as torchrun and `launch.run` set them.

    Args:
        parallel: layout; one rank if None.
        seed: of the generators of torch, the same on every rank.

    Raises:
        UserError: the number of processes is not the layout's, or the process was set up for another layout.
    """
    parallel = parallel or ParallelConfig()
    for name in ("megatron", "torch.distributed"):
        logging.getLogger(name).setLevel(logging.ERROR)
    if not dist.is_initialized():
        cpu.keep_pages()
        world = int(os.environ.get("WORLD_SIZE", "1")) if parallel.ranks > 1 else 1
        if world != parallel.ranks:
            raise UserError(f"parallel needs {parallel.ranks} ranks, but {world} run; start them with torchrun")
        backend = "nccl" if cpu.HAS_CUDA else "gloo"
        if world == 1:
            dist.init_process_group(backend, store=dist.HashStore(), rank=0, world_size=1)
        else:
            dist.init_process_group(backend, timeout=timedelta(minutes=TIMEOUT_MINUTES))
        if cpu.HAS_CUDA:
            torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
    if not parallel_state.is_initialized():
        parallel_state.initialize_model_parallel(
            tensor_model_parallel_size=parallel.tensor,
            pipeline_model_parallel_size=parallel.pipeline,
            distributed_timeout_minutes=TIMEOUT_MINUTES,
            create_gloo_process_groups=False,
        )
    if layout() != parallel:
        raise UserError(f"this process was set up for {layout()!r}; call runtime.shutdown() before another layout")
    seed_all(seed)


def layout() -> ParallelConfig:
    """The layout that this process was set up for."""
    return ParallelConfig(
        tensor=parallel_state.get_tensor_model_parallel_world_size(),
        pipeline=parallel_state.get_pipeline_model_parallel_world_size(),
        data=parallel_state.get_data_parallel_world_size(),
    )


def seed_all(seed: int) -> None:
    """Seed torch and Megatron's tracker (inert: Headwater's models have no dropout)."""
    torch.manual_seed(seed)
    with cpu.on_device():
        model_parallel_cuda_manual_seed(seed, inference_rng_tracker=True)


def shutdown() -> None:
    """Leave the process group; `initialize` may follow again."""
    if parallel_state.is_initialized():
        parallel_state.destroy_model_parallel()
    if dist.is_initialized():
        dist.destroy_process_group()
