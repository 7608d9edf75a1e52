"""Process group, Megatron's parallel state and seeds: what must stand before a model is built."""

from __future__ import annotations

import hashlib
import logging
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

import headwater_model.cpu as cpu

import torch
import torch.distributed as dist
from megatron.core import parallel_state
from megatron.core.tensor_parallel import model_parallel_cuda_manual_seed

from ._contracts.errors import UserError
from .config import ParallelConfig

TIMEOUT_MINUTES = 10  # Megatron's own groups take whole minutes and do not follow init_process_group's timeout

_layout: ParallelConfig | None = None
_seed = 0


def initialize(parallel: ParallelConfig | None = None, seed: int = 1234) -> None:
    """Join the other ranks, if there are any, and set Megatron up. Calling it again re-seeds.

    One rank needs no launcher. More ranks are processes that torchrun, srun or `launch.run` started: torchrun's
    RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR and MASTER_PORT stand in their environment, or else Slurm's variables.

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
        _join(parallel.ranks)
    if not parallel_state.is_initialized():
        _set_up(parallel)
    if layout() != parallel:
        raise UserError(f"this process was set up for {layout()!r}; call runtime.shutdown() before another layout")
    seed_all(seed)


def change_layout(parallel: ParallelConfig, seed: int = 1234) -> None:
    """Another layout of as many ranks in the same processes; models built before are of no more use.

    Raises:
        UserError: it needs another number of ranks.
    """
    if parallel.ranks != dist.get_world_size():
        raise UserError(f"parallel needs {parallel.ranks} ranks, but {dist.get_world_size()} run")
    _leave_layout()
    _set_up(parallel)
    seed_all(seed)


def layout() -> ParallelConfig:
    """The layout that this process was set up for."""
    if _layout is None:
        raise RuntimeError("call runtime.initialize() first")
    return _layout


def seed_all(seed: int) -> None:
    """Seed torch and Megatron's generators alike on every rank."""
    global _seed
    _seed = seed
    torch.manual_seed(seed)
    with cpu.on_device():
        model_parallel_cuda_manual_seed(seed)


@contextmanager
def dropout_of(step: int) -> Iterator[None]:
    """A block whose dropout depends on the seed, the step and the rank's place alone, so that nothing about it need
    be saved. Tensor-parallel ranks agree on what they share. Torch's generator is afterwards what it was before."""
    place = (
        parallel_state.get_pipeline_model_parallel_rank(),
        parallel_state.get_data_parallel_rank(with_context_parallel=True),
    )
    digest = hashlib.sha256(f"{_seed} {step} {place}".encode()).digest()
    with torch.random.fork_rng(devices=[torch.cuda.current_device()] if cpu.HAS_CUDA else []), cpu.on_device():
        model_parallel_cuda_manual_seed(int.from_bytes(digest[:6], "big"))
        yield


def shutdown() -> None:
    """Leave the process group; `initialize` may follow again."""
    global _layout
    _layout = None
    if parallel_state.is_initialized():
        parallel_state.destroy_model_parallel()
    if dist.is_initialized():
        dist.destroy_process_group()


def _leave_layout() -> None:
    """Forget Megatron's parallel state and end its groups, which it only forgets: each of gloo's has threads that
    wake 100 times a second for as long as it lives."""
    groups = [group for group in parallel_state._global_process_group_list or () if group is not None]
    parallel_state.destroy_model_parallel()
    for group in groups:
        dist.destroy_process_group(group)


def _join(ranks: int) -> None:
    """Enter the process group of `ranks` processes."""
    cpu.keep_pages()
    if ranks > 1:
        read_slurm()
    world = int(os.environ.get("WORLD_SIZE", "1")) if ranks > 1 else 1
    if world != ranks:
        raise UserError(f"parallel needs {ranks} ranks, but {world} run; start them with torchrun or srun")
    if cpu.HAS_CUDA:
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
    backend = "nccl" if cpu.HAS_CUDA else "gloo"
    if world == 1:
        dist.init_process_group(backend, store=dist.HashStore(), rank=0, world_size=1)
    else:
        dist.init_process_group(backend, timeout=timedelta(minutes=TIMEOUT_MINUTES))


def _set_up(parallel: ParallelConfig) -> None:
    global _layout
    parallel_state.initialize_model_parallel(
        tensor_model_parallel_size=parallel.tensor,
        pipeline_model_parallel_size=parallel.pipeline,
        virtual_pipeline_model_parallel_size=parallel.chunks if parallel.chunks > 1 else None,
        context_parallel_size=parallel.context,
        distributed_timeout_minutes=TIMEOUT_MINUTES,
        create_gloo_process_groups=False,
    )
    _layout = parallel


def read_slurm() -> None:
    """Say in torchrun's words what srun told this task; the first host of the step is the meeting place.

    Raises:
        UserError: Slurm's list of hosts can't be read.
    """
    told = os.environ
    if "RANK" in told or not {"SLURM_PROCID", "SLURM_NTASKS", "SLURM_LOCALID"} <= told.keys():
        return
    nodes = told.get("SLURM_STEP_NODELIST") or told.get("SLURM_JOB_NODELIST", "")
    if "MASTER_ADDR" not in told:
        try:
            command = ["scontrol", "show", "hostnames", nodes]
            told["MASTER_ADDR"] = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()[0]
        except (OSError, subprocess.CalledProcessError, IndexError):
            raise UserError(f"scontrol can't expand Slurm's hosts {nodes!r}; set MASTER_ADDR to the first") from None
    # Steps of one job and jobs of one node each get a port of their own.
    step = int(told.get("SLURM_JOB_ID", "0")) * 16 + int(told.get("SLURM_STEP_ID", "0"))
    told.setdefault("MASTER_PORT", str(20_000 + step % 10_000))
    told.update(RANK=told["SLURM_PROCID"], WORLD_SIZE=told["SLURM_NTASKS"], LOCAL_RANK=told["SLURM_LOCALID"])
