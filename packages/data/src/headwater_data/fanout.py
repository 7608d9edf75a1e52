"""Run one function over shards: datatrove's executor, our step.

Each shard is one task of datatrove's LocalPipelineExecutor, which keeps a completion mark a task in the work folder:
a killed stage goes on with the shards that are missing. What the shards are follows from the input and the config
alone, never from the number of workers, so the result is the same bytes whatever runs it.

Not covered: a worker that the kernel kills (out of memory) leaves multiprocess's pool waiting; stop the stage and
run it again with fewer workers.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from typing import Any

os.environ.setdefault("LOGURU_DIAGNOSE", "NO")  # tracebacks must not print the values of variables: document text

from datatrove.executor.local import LocalPipelineExecutor  # noqa: E402
from datatrove.pipeline.base import PipelineStep  # noqa: E402
from loguru import logger  # noqa: E402

from ._contracts.stage import Run  # noqa: E402


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
    """datatrove's executor without its log lines; a worker dies with the stage that started it."""

    def _run_for_rank(self, rank: int, local_rank: int = 0, node_rank: int = -1) -> Any:
        logger.disable("datatrove")
        if self.workers > 1 and sys.platform == "linux":
            ctypes.CDLL(None).prctl(1, signal.SIGTERM)  # 1 = PR_SET_PDEATHSIG
        return super()._run_for_rank(rank, local_rank, node_rank)


def fan_out(run: Run, name: str, work: Callable[[Any], None], shards: Sequence[Any], workers: int) -> None:
    """Call `work(shard)` for every shard that is not done yet.

    Args:
        name: of this pass; completion marks lie in `run.work/NAME.tasks`.
        work: a module-level function or a partial of one; must write its result atomically.
        workers: processes; 1 works in this process.
    """
    if not shards:
        return
    logger.disable("datatrove")
    marks = run.work / f"{name}.tasks"
    executor = QuietLocalExecutor(
        [ShardStep(work, shards)],
        tasks=len(shards),
        workers=min(workers, len(shards)),
        logging_dir=str(marks),
        start_method="spawn",  # direct children: they end with this process, and their cost is counted as its own
    )
    ended = threading.Event()

    def watch() -> None:
        while not ended.wait(1.0):
            completed = marks / "completions"
            done = len(list(completed.iterdir())) if completed.is_dir() else 0
            run.progress(f"{name}: {done} of {len(shards)} shards")

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        executor.run()
    finally:
        ended.set()
        watcher.join()
