"""Run one function over shards: datatrove's executors, our step.

Each shard is one task of a datatrove executor (local processes, Ray, Slurm), which keeps a completion mark a task in
the work folder: a killed stage goes on with the shards that are missing. What the shards are follows from the input and
the config alone, never from the executor or the number of workers, so the result is the same bytes whatever runs it. A
shard is a row group or some hundred records: what a killed worker loses is one of them, not the file.

Ray and Slurm need the work folder on a file system that all machines share, at the same path.

Wants datatrove, which the packages that fan out require; the others carry this file and never import it.

Not covered: a local worker that the kernel kills (out of memory) leaves multiprocess's pool waiting; stop the stage and
run it again with fewer workers.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("LOGURU_DIAGNOSE", "NO")  # tracebacks must not print the values of variables: document text

import multiprocess  # noqa: E402
from datatrove.executor.base import PipelineExecutor  # noqa: E402
from datatrove.executor.local import LocalPipelineExecutor  # noqa: E402
from datatrove.executor.ray import RayPipelineExecutor  # noqa: E402
from datatrove.executor.slurm import SlurmPipelineExecutor  # noqa: E402
from datatrove.pipeline.base import PipelineStep  # noqa: E402
from loguru import logger  # noqa: E402

from .errors import UserError  # noqa: E402
from .execution import ExecutorConfig, Fanned  # noqa: E402
from .stage import Run  # noqa: E402

LIGHT_SHARDS = 100


class ShardStep(PipelineStep):
    """A pipeline step that works on the shard of its rank."""

    name = "shard"
    type = "headwater"

    def __init__(self, work: Callable[[Any], None], shards: Sequence[Any]):
        super().__init__()
        self.work, self.shards = work, shards

    def run(self, data: Any, rank: int = 0, world_size: int = 1) -> Any:
        """Work on shard `rank`; passes no documents on."""
        with self.track_time():
            self.work(self.shards[rank])
        return data


class QuietLocalExecutor(LocalPipelineExecutor):
    """datatrove's executor without its log lines and its manager process; a worker dies with the stage.

    The manager is forked, so after a kill -9 of the stage it would live on and hold the lock of the work folder.
    """

    def run(self) -> None:
        """Run what is not done: here where there is one worker, else in a pool of spawned processes."""
        self._launched = True
        waiting = self.get_incomplete_ranks()
        if self.workers == 1:
            for rank in waiting:
                self._run_for_rank(rank)
            return
        # spawned: direct children, which end with this process, hold no lock of it, and are counted as its own cost
        with multiprocess.get_context("spawn").Pool(self.workers, _start_worker, (self,)) as pool:
            for _ in pool.imap_unordered(_run_here, waiting):
                pass

    def _run_for_rank(self, rank: int, local_rank: int = 0, node_rank: int = -1) -> Any:
        logger.disable("datatrove")
        return super()._run_for_rank(rank, local_rank, node_rank)


_worker: LocalPipelineExecutor


def _start_worker(executor: LocalPipelineExecutor) -> None:
    """Once a worker, so that the list of shards is not sent again with each of them."""
    global _worker
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGTERM)  # 1 = PR_SET_PDEATHSIG
    _worker = executor


def _run_here(rank: int) -> None:
    _worker._run_for_rank(rank)


class WaitingSlurmExecutor(SlurmPipelineExecutor):
    """datatrove's Slurm executor that stays until its job is over, and takes the job along if it is stopped."""

    poll_seconds = 5.0

    def launch_merge_stats(self) -> None:
        """No job more: what shards cost is counted by the stage."""

    def launch_job(self) -> None:
        """Submit the job array and wait for it."""
        super().launch_job()
        if self.job_id == -1:  # all shards were done already
            return
        try:
            while self._queued():
                time.sleep(self.poll_seconds)
        except BaseException:
            subprocess.run(["scancel", str(self.job_id)], capture_output=True)
            raise

    def _queued(self) -> bool:
        asked = subprocess.run(["squeue", "--noheader", "--jobs", str(self.job_id)], capture_output=True, text=True)
        return bool(asked.stdout.strip())  # a job that is over is soon unknown, which is an error and prints nothing


def fan_out(
    run: Run, name: str, work: Callable[[Any], None], shards: Sequence[Any], config: Fanned, light: bool = False
) -> None:
    """Call `work(shard)` for every shard that is not done yet.

    Args:
        name: of this pass; completion marks lie in `run.work/NAME.tasks`.
        work: a module-level function or a partial of one; must write its result atomically.
        config: how many workers, and where.
        light: a shard takes a fraction of a second, so few of them are done here: a worker takes seconds to start.

    Raises:
        UserError: the executor is not there, or left shards undone.
    """
    if not shards:
        return
    if light and config.executor.kind == "local" and len(shards) < LIGHT_SHARDS:
        config = config.model_copy(update={"workers": 1})
    logger.disable("datatrove")
    marks = (run.work / f"{name}.tasks").resolve()
    executor = _executor(config, [ShardStep(work, shards)], len(shards), marks)
    ended = threading.Event()

    def done() -> int:
        completed = marks / "completions"
        return len(list(completed.iterdir())) if completed.is_dir() else 0

    def watch() -> None:
        while not ended.wait(1.0):
            run.progress(f"{name}: {done()} of {len(shards)} shards")

    if before := done():
        run.log(f"{name}: {before} of {len(shards)} shards were done before: going on with the others")
    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        executor.run()
    finally:
        ended.set()
        watcher.join()
    if done() < len(shards):
        raise UserError(
            f"{name}: {len(shards) - done()} of {len(shards)} shards were not done by {config.executor.kind}; "
            f"read {marks}/logs and {marks}/slurm_logs, mend it and run again: the finished shards are kept"
        )


def _executor(config: Fanned, steps: list[PipelineStep], tasks: int, marks: Path) -> PipelineExecutor:
    where, workers = config.executor, min(config.workers, tasks)
    if where.kind == "ray":
        _join_ray(where)
        return RayPipelineExecutor(
            steps, tasks=tasks, workers=workers, logging_dir=str(marks), mem_per_cpu_gb=where.memory_gb
        )
    if where.kind == "slurm":
        missing = [tool for tool in ("sbatch", "squeue", "scancel") if shutil.which(tool) is None]
        if missing:
            raise UserError(f"executor.kind slurm: {missing[0]} is not on this machine; run on a node that can submit")
        executor = WaitingSlurmExecutor(
            steps, tasks=tasks, workers=workers, logging_dir=str(marks), partition=where.partition, time=where.time,
            qos=where.qos, mem_per_cpu_gb=max(round(where.memory_gb), 1), sbatch_args=where.sbatch, requeue=False,
            job_name=f"headwater-{marks.stem}", with_srun=False, mail_type="NONE",
            env_command=f"export PATH={Path(sys.executable).parent}:$PATH",
            tasks_per_job=-(-tasks // workers),  # a worker keeps what it has loaded from shard to shard
        )  # fmt: skip
        executor.poll_seconds = where.poll_seconds
        return executor
    return QuietLocalExecutor(
        steps,
        tasks=tasks,
        workers=workers,
        logging_dir=str(marks),
    )


def _join_ray(where: ExecutorConfig) -> None:
    try:
        import ray
    except ModuleNotFoundError:
        raise UserError("executor.kind ray: ray is not installed; pip install 'ray>=2.40,<3'") from None
    if ray.is_initialized():
        return
    try:
        if ":" in where.ray_address and "://" not in where.ray_address:  # ray itself would try for many minutes
            host, _, port = where.ray_address.rpartition(":")
            socket.create_connection((host, int(port)), timeout=10).close()
        ray.init(address=where.ray_address, log_to_driver=False, configure_logging=False)
    except (ConnectionError, OSError) as e:
        raise UserError(
            f"executor.kind ray: no cluster at {where.ray_address} ({str(e).splitlines()[0]}); start one with "
            f"`ray start --head`, or name it in executor.ray_address"
        ) from None
