"""A study's trials: small pre-training runs with results on disk, so that a killed study goes on where it was.

    STUDY/study.json               what all trials share: kind, tokens, tokenizer, settings
    STUDY/trials/NAME/trial.json   what is this trial's own
    STUDY/trials/NAME/result.json  once it has run

Trials run side by side in processes of one thread each; or elsewhere: `headwater-model trial STUDY NAME` runs one, so
a Slurm array or any other queue can run them all.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import shutil
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from .._contracts import manifest as artefacts
from .._contracts.config import parse
from .._contracts.errors import UserError
from ..config import PlanConfig, PretrainConfig
from ..facts import read_facts
from ..plan import make

Report = Callable[[int, float], None]
"""Called at each validation with the step and the held-out loss; may raise to end the trial (pruning)."""


@dataclass(frozen=True)
class Trial:
    """One run."""

    name: str
    plan: dict[str, Any]
    """Section `plan`."""
    pretrain: dict[str, Any]
    """Section `pretrain`."""
    labels: dict[str, Any] = field(default_factory=dict)
    """What the study knows it by (budget, part, seed)."""


@dataclass(frozen=True)
class Result:
    """What came of it."""

    trial: Trial
    metrics: dict[str, Any]
    """The pretrain stage's metrics; matrix_parameters, tokens, flops; empty where it failed."""
    curve: list[dict[str, Any]]
    """Rows of the loss curve."""
    failed: str = ""
    """Why there are no metrics."""

    @property
    def loss(self) -> float:
        """Held-out loss, nats a token; infinite where the trial failed."""
        return float(self.metrics.get("heldout_loss", float("inf")))

    @property
    def bits_per_byte(self) -> float:
        """Held-out bits per byte; infinite where the trial failed."""
        return float(self.metrics.get("heldout_bits_per_byte", float("inf")))


def begin(folder: Path, kind: str, inputs: dict[str, Path], about: dict[str, Any]) -> None:
    """Make the study's folder, or go on with the very same study.

    Raises:
        UserError: another study lies there, or an input is no artefact.
    """
    for name, path in inputs.items():
        artefacts.verify(path, (name,))
    told = {
        "kind": kind,
        "inputs": {name: str(Path(path).resolve()) for name, path in inputs.items()},
        "manifests": {name: artefacts.manifest_hash(path) for name, path in inputs.items()},
        "about": about,
    }
    path = folder / "study.json"
    if path.exists():
        before = json.loads(path.read_text())
        changed = [
            key for key in ("kind", "manifests", "about") if before.get(key) != json.loads(json.dumps(told[key]))
        ]
        if changed:
            raise UserError(f"{folder}: holds a study with other {' and '.join(changed)}; name another folder")
    artefacts.write_atomic(path, artefacts.canonical_json(told))


def queue(folder: Path, trials: Iterable[Trial]) -> list[Trial]:
    """Write every trial's own file; answer those that have no result yet."""
    waiting = []
    for trial in trials:
        place = folder / "trials" / trial.name
        artefacts.write_atomic(place / "trial.json", artefacts.canonical_json(asdict(trial)))
        if not (place / "result.json").exists():
            waiting.append(trial)
    return waiting


def run_all(folder: Path, trials: list[Trial], workers: int, log: Callable[[str], None]) -> list[Result]:
    """Run what has no result yet, `workers` at a time; results in the order of the trials.

    A trial that cannot train (its loss is no number) is a result that says so.
    """
    waiting = queue(folder, trials)
    done = len(trials) - len(waiting)
    if done:
        log(f"{done} of {len(trials)} trials have run already")
    if waiting:
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(min(workers, len(waiting)), mp_context=context, initializer=_start) as pool:
            running = {pool.submit(_run_in_worker, folder, trial.name): trial for trial in waiting}
            for finished in as_completed(running):
                result, seconds = finished.result()
                done += 1
                told = result.failed or f"held-out loss {result.loss:.4f}, {result.bits_per_byte:.4f} bits per byte"
                log(f"{done}/{len(trials)} {result.trial.name}: {told} ({seconds:.0f} s)")
    return [read(folder, trial.name) for trial in trials]


def run(folder: Path, name: str, report: Report | None = None) -> tuple[Result, float]:
    """Run one trial in this process, or go on with it; answer its result and the seconds it took."""
    from ..pretrain import train  # torch

    started = time.monotonic()
    place = folder / "trials" / name
    if (place / "result.json").exists():
        return read(folder, name), 0.0
    trial = read_trial(place)
    study = json.loads((folder / "study.json").read_text())
    inputs = {key: Path(value) for key, value in study["inputs"].items()}
    for key, path in inputs.items():
        if artefacts.manifest_hash(path) != study["manifests"][key]:
            raise UserError(f"{path}: has changed since the study began; begin another study")
    metrics: dict[str, Any] = {}
    rows: list[dict[str, Any]] = []
    failed = ""
    try:
        plan = make(parse(PlanConfig, trial.plan, "plan"), read_facts(inputs["tokens"]))
        artefacts.write_atomic(place / "plan" / "plan.json", artefacts.canonical_json(plan))
        config = parse(PretrainConfig, {"threads": 1, "tracking": {"to": []}, **trial.pretrain}, "pretrain")
        out = place / "out"
        shutil.rmtree(out, ignore_errors=True)
        out.mkdir(parents=True)
        train(config, {**inputs, "plan": place / "plan"}, place / "work", out, _silent, _silent, report)
        metrics = json.loads((out / "metrics.json").read_text())
        metrics["matrix_parameters"] = plan["reasons"]["matrix_parameters"]
        metrics["lr"] = plan["lr"]
        rows = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    except UserError as e:
        failed = " ".join(str(e).split())
    result = {"metrics": metrics, "curve": rows, "failed": failed}
    artefacts.write_atomic(place / "result.json", artefacts.canonical_json(result))
    for leftover in ("work", "out", "plan"):
        shutil.rmtree(place / leftover, ignore_errors=True)
    return read(folder, name), time.monotonic() - started


def read_trial(place: Path) -> Trial:
    """The trial of one folder.

    Raises:
        UserError: there is none.
    """
    try:
        return Trial(**json.loads((place / "trial.json").read_text()))
    except (OSError, ValueError, TypeError) as e:
        raise UserError(f"{place}: no readable trial.json ({e}); queue the study first") from None


def read(folder: Path, name: str) -> Result:
    """The result of one trial.

    Raises:
        UserError: it has none yet.
    """
    place = folder / "trials" / name
    try:
        return Result(read_trial(place), **json.loads((place / "result.json").read_text()))
    except (OSError, ValueError, TypeError) as e:
        raise UserError(
            f"{place}: no result yet ({e}); run the study, or headwater-model trial {folder} {name}"
        ) from None


def command(args: argparse.Namespace) -> None:
    """`headwater-model trial`: one trial of a queued study."""
    result, seconds = run(args.study, args.name)
    print(f"{args.name}: {result.failed or f'held-out loss {result.loss:.4f}'} ({seconds:.0f} s)")


def _run_in_worker(folder: Path, name: str) -> tuple[Result, float]:
    try:
        return run(folder, name)
    except SystemExit:  # SIGTERM: the study is gone, and the pool would hand this worker the next trial
        os._exit(143)


def _start() -> None:
    """A worker process: one thread, and it ends with the study."""
    import torch

    from ..launch import die_with_parent

    die_with_parent()
    torch.set_num_threads(1)


def _silent(_: str) -> None:
    pass
