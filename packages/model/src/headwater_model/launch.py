"""Several ranks on this machine: start them, die with them, start them again, and let none outlive its parent.

When a rank dies or hangs, the others cannot go on: all are ended and started again, from the newest good checkpoint,
which is the ranks' own business. Each attempt has a port of its own, so that none meets the store of the one before
(pytorch#135712). A fault that comes again at the same step with the same words is no accident and is not tried a
third time; what the user must mend is not tried twice.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from ._contracts.errors import UserError
from ._contracts.manifest import write_atomic
from .training_config import LaunchConfig, RestartConfig
from .watchdog import HUNG, read_heartbeat

FOLDER = "HEADWATER_RANK_FILES"
"""Environment variable: where a rank leaves its heartbeat and its last words."""
GRACE_S = 2.0
"""How long the other ranks get to say what they died of, once the first is gone."""


@dataclass(frozen=True)
class Failure:
    """Why an attempt ended."""

    rank: int
    step: int
    """Last that the rank finished."""
    kind: Literal["user", "killed", "fault"]
    """The user must mend it; a signal from outside; anything else, hangs included."""
    why: str


def run(
    module: str,
    arguments: Sequence[str],
    ranks: int,
    logs: Path,
    restarts: RestartConfig | None = None,
    log: Callable[[dict[str, Any]], None] = lambda event: None,
    dispensable: bool = False,
) -> None:
    """Run `python -m module ARGUMENTS` as `ranks` processes with torchrun's environment until all have ended well.

    Rank 0 writes to this process's output, the others to `logs/rank-N.log`. SIGTERM is handed on, and
    the ranks may take their time over it (a checkpoint).

    Args:
        restarts: none if None.
        log: takes an event of the flight log for each restart.
        dispensable: only rank 0's end counts, and ends the others, which may be lost on the way.

    Raises:
        UserError: a rank failed and there is no restart left for it; its last words are the message.
        SystemExit: SIGTERM came, here or to the ranks (143).
    """
    logs.mkdir(parents=True, exist_ok=True)
    for old in logs.glob("rank-*.*"):
        old.unlink()
    asked = threading.Event()
    history = History(restarts or RestartConfig(restarts=0))
    while True:
        failure = _attempt(module, arguments, ranks, logs, asked, dispensable)
        if asked.is_set():
            raise SystemExit(143)
        if failure is None:
            return
        pause = history.pause(failure)
        if pause is None:
            raise UserError(f"rank {failure.rank}: {failure.why}" + history.told())
        log({"step": failure.step, "what": "restart", "why": f"rank {failure.rank}: {failure.why}"})
        if asked.wait(pause):
            raise SystemExit(143)


def start(
    config: LaunchConfig,
    module: str,
    arguments: Sequence[str],
    ranks: int,
    logs: Path,
    restarts: RestartConfig,
    log: Callable[[dict[str, Any]], None],
    dispensable: bool = False,
) -> None:
    """Start the ranks as `config` says, and wait until they have ended well; arguments and errors as `run`'s.

    Only kind "here" can lose ranks that are dispensable.
    """
    if config.kind == "here":
        run(module, arguments, ranks, logs, restarts, log, dispensable)
    elif config.kind == "srun":
        _srun(config, module, arguments, ranks, logs, restarts, log)
    else:
        _wait_for_others(module, arguments, ranks, logs)


def _srun(
    config: LaunchConfig,
    module: str,
    arguments: Sequence[str],
    ranks: int,
    logs: Path,
    restarts: RestartConfig,
    log: Callable[[dict[str, Any]], None],
) -> None:
    """One job step of this Slurm allocation; srun ends all ranks when one fails, and all are started again."""
    nodes = [f"--ntasks-per-node={config.per_node}"] if config.per_node else []
    command = [
        "srun", f"--ntasks={ranks}", *nodes, "--kill-on-bad-exit=1", "--unbuffered", *config.options,
        sys.executable, "-m", module, *arguments,
    ]  # fmt: skip
    logs.mkdir(parents=True, exist_ok=True)
    asked, history = threading.Event(), History(restarts)
    while True:
        for old in logs.glob("rank-*.*"):
            old.unlink()
        try:
            step = subprocess.Popen(command, env={**os.environ, FOLDER: str(logs.resolve())})
        except FileNotFoundError:
            raise UserError("launch.kind srun: no srun here; submit with sbatch, or set launch.kind") from None

        def hand_on(*_: object, step: subprocess.Popen = step) -> None:
            asked.set()
            step.send_signal(signal.SIGTERM)  # srun hands it to the ranks

        before = signal.signal(signal.SIGTERM, hand_on)
        try:
            code = step.wait()
        finally:
            if step.poll() is None:
                step.kill()
            signal.signal(signal.SIGTERM, before)
        if asked.is_set() or code == 143:
            raise SystemExit(143)
        if code == 0:
            return
        failure = _culprit([1 if _words(logs, rank) else 0 for rank in range(ranks)], logs)
        if failure is None:
            beats = [read_heartbeat(_file(logs, rank, "heartbeat")) for rank in range(ranks)]
            last = max((beat[0] for beat in beats if beat), default=-1)
            failure = Failure(0, last, "killed", f"srun ended with code {code}")
        pause = history.pause(failure)
        if pause is None:
            raise UserError(f"rank {failure.rank}: {failure.why}" + history.told())
        log({"step": failure.step, "what": "restart", "why": f"rank {failure.rank}: {failure.why}"})
        if asked.wait(pause):
            raise SystemExit(143)


def _wait_for_others(module: str, arguments: Sequence[str], ranks: int, logs: Path) -> None:
    """Say what to start, and wait until its rank 0 has left its figures."""
    done = logs.parent / "measured.json"
    done.unlink(missing_ok=True)
    told = f"torchrun --nnodes=N --nproc-per-node=M ... -m {module} {' '.join(arguments)}"
    print(f"waiting for {ranks} ranks, to be started on every node: {told}", flush=True)
    while not done.exists():
        time.sleep(1)


class History:
    """The failures of a run so far, and whether it is worth another attempt."""

    def __init__(self, config: RestartConfig):
        self._config = config
        self._before: Failure | None = None
        self._furthest = -1
        self.in_a_row = 0
        """Failures since a step was finished that none had finished before."""

    def pause(self, failure: Failure) -> float | None:
        """Seconds to wait before the next attempt, or None: give up."""
        before, self._before = self._before, failure
        self.in_a_row = 1 if failure.step > self._furthest else self.in_a_row + 1
        self._furthest = max(self._furthest, failure.step)
        again = before is not None and (before.step, before.why) == (failure.step, failure.why)
        if failure.kind == "user" or (failure.kind == "fault" and again) or self.in_a_row > self._config.restarts:
            return None
        return min(self._config.backoff_max_s, self._config.backoff_s * 2 ** (self.in_a_row - 1))

    def told(self) -> str:
        """How often it was tried, for the last message."""
        return f" (after {self.in_a_row} failures without a step further)" if self.in_a_row > 1 else ""


def as_rank(body: Callable[[Path | None], None]) -> int:
    """Run one rank's `body` and answer the process's exit code; a failure leaves its last words for the launcher.

    Args:
        body: called with the folder for heartbeat and stacks, None where `run` did not start this process.
    """
    folder = Path(os.environ[FOLDER]) if FOLDER in os.environ else None
    try:
        die_with_parent()
        body(folder)
        return 0
    except Exception as e:
        if (code := getattr(e, "exit_code", None)) is not None:  # a UserError, of whichever package
            if not folder:
                print(e, file=sys.stderr)  # else the launcher tells it
            _last_words(folder, "user", " ".join(str(e).split()))
            return code
        traceback.print_exc()
        _last_words(folder, "fault", f"{type(e).__name__}: {' '.join(str(e).split())[:300]}")
        return 1


def die_with_parent() -> None:
    """Called by a rank: have the kernel send SIGTERM when the process that started it ends (Linux)."""
    parent = os.getppid()
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGTERM)  # 1 = PR_SET_PDEATHSIG
    if os.getppid() != parent:
        raise UserError("the process that started this rank is gone; start the stage again")


def _attempt(
    module: str, arguments: Sequence[str], ranks: int, logs: Path, asked: threading.Event, dispensable: bool
) -> Failure | None:
    """Start all ranks and wait; a failure ends them all."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    shared = {
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "WORLD_SIZE": str(ranks),
        "GLOO_SOCKET_IFNAME": "lo",
        FOLDER: str(logs.resolve()),
    }
    workers: list[subprocess.Popen] = []

    def hand_on(*_: object) -> None:
        asked.set()
        for worker in workers:
            worker.send_signal(signal.SIGTERM)

    before = signal.signal(signal.SIGTERM, hand_on)
    try:
        for rank in range(ranks):
            for stale in ("heartbeat", "failure"):
                _file(logs, rank, stale).unlink(missing_ok=True)
            environment = {**os.environ, **shared, "RANK": str(rank), "LOCAL_RANK": str(rank)}
            output = None if rank == 0 else open(_file(logs, rank, "log"), "a")  # noqa: SIM115  (the child's)
            command = [sys.executable, "-m", module, *arguments]
            workers.append(subprocess.Popen(command, env=environment, stdout=output, stderr=output))
            if output:
                output.close()
        codes = _wait(workers[:1] if dispensable else workers)
    finally:
        for worker in workers:
            if worker.poll() is None:
                worker.kill()
        for worker in workers:
            worker.wait()
        signal.signal(signal.SIGTERM, before)
    if any(code == 143 for code in codes):
        asked.set()
    return _culprit(codes, logs)


def _wait(workers: list[subprocess.Popen]) -> list[int | None]:
    """Wait for all; once one has failed, a little for the others' last words. Answer their exit codes."""
    end = float("inf")
    while time.monotonic() < end:
        codes = [worker.poll() for worker in workers]
        if None not in codes:
            break
        if end == float("inf") and any(code not in (None, 0) for code in codes):
            # Asked to end, the others may be writing a checkpoint.
            end = float("inf") if 143 in codes else time.monotonic() + GRACE_S
        time.sleep(0.1)
    return [worker.poll() for worker in workers]


def _culprit(codes: Sequence[int | None], logs: Path) -> Failure | None:
    """Which rank's failure brought the others down.

    One that a signal killed comes first, then one with a complaint for the user, one that hung, the first that told a
    fault; last what peers die of (NCCL aborts a process whose peer is gone).
    """
    found = []
    for rank, code in enumerate(codes):
        if code in (None, 0):
            continue
        words = _words(logs, rank)
        step, _ = read_heartbeat(_file(logs, rank, "heartbeat")) or (-1, 0.0)
        if code < 0 and code != -signal.SIGABRT:
            kind: Literal["killed", "fault"] = "killed" if code in (-signal.SIGKILL, -signal.SIGTERM) else "fault"
            failure = Failure(rank, step, kind, f"killed by {signal.Signals(-code).name}")
            found.append((0, 0.0, failure))
        elif code == HUNG:
            found.append((2, 0.0, Failure(rank, step, "fault", f"hung; stacks in {_file(logs, rank, 'stacks')}")))
        elif words:
            order = 1 if words["kind"] == "user" else 3
            found.append((order, words["time"], Failure(rank, step, words["kind"], words["why"])))
        else:
            why = f"ended with code {code}; {_last_line(_file(logs, rank, 'log'))}".rstrip("; ")
            found.append((4, 0.0, Failure(rank, step, "fault", why)))
    return min(found, key=lambda entry: entry[:2])[2] if found else None


def _last_words(folder: Path | None, kind: str, why: str) -> None:
    if folder:
        with contextlib.suppress(OSError):  # a full disk must not hide the fault that is being told
            words = {"kind": kind, "why": why, "time": time.monotonic()}
            write_atomic(_file(folder, int(os.environ["RANK"]), "failure"), json.dumps(words))


def _words(logs: Path, rank: int) -> dict[str, Any]:
    path = _file(logs, rank, "failure")
    return json.loads(path.read_text()) if path.exists() else {}


def _last_line(path: Path) -> str:
    lines = path.read_text(errors="replace").strip().splitlines() if path.exists() else []
    return lines[-1] if lines else ""


def _file(logs: Path, rank: int, suffix: str) -> Path:
    return logs / f"rank-{rank}.{suffix}"
