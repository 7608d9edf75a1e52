"""The search command: hyperparameters by Optuna on a small proxy, the learning rate transferred by width.

    headwater-model search runs/search --tokens T --tokenizer T --space space.yaml --trials 30 --width 512

space.yaml names what is searched, each as a range or a list:

    plan.lr: {low: 1.0e-3, high: 3.0e-2, log: true}
    pretrain.optimizer.kind: [adamw, muon]

Tree-structured Parzen estimator (Bergstra et al. 2011); trials end at a validation where they are worse than the median
of those before (Golovin et al. 2017). Everything else of the proxy is given by `--set`. One worker and the same seed
give the same study; more workers see each other's results as they come.
"""

from __future__ import annotations

import argparse
import json
import logging
import multiprocessing
import shutil
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

from .._contracts import manifest as artefacts
from .._contracts.config import override, read_yaml
from .._contracts.errors import UsageError, UserError
from . import trial
from .chart import Series, chart, page, table

NAME = "search"
KEPT = "experiments.json"
"""Names of the trials that DVC has."""
UNPRUNED = 5
"""Trials that run to their end whatever they give: the median needs something to stand on."""


def command(args: argparse.Namespace) -> None:
    """Run the trials, write trials.csv's page and best.yaml, print the best."""
    optuna = _optuna()
    space = read_space(args.space)
    sets = override({}, args.set)
    about = {"space": space, "seed": args.seed, "set": sets}
    trial.begin(args.study, NAME, {"tokens": args.tokens, "tokenizer": args.tokenizer}, about)
    study = optuna.create_study(
        study_name=NAME, storage=_storage(args.study), direction="minimize", load_if_exists=True
    )
    for left in study.get_trials(states=(optuna.trial.TrialState.RUNNING,)):  # of a study that was killed
        study.tell(left.number, state=optuna.trial.TrialState.FAIL)
        study.enqueue_trial(left.params, skip_if_exists=False)
    job = (args.study, space, sets, args.trials, args.seed)
    workers = min(args.workers, args.trials)
    if workers == 1:
        work(*job, 0)
    else:
        with ProcessPoolExecutor(workers, multiprocessing.get_context("spawn")) as pool:
            list(pool.map(work, *zip(*[(*job, number) for number in range(workers)], strict=True)))
    finished = [t for t in study.get_trials() if t.state.name in ("COMPLETE", "PRUNED") and t.value is not None]
    if not any(t.state.name == "COMPLETE" for t in finished):
        raise UserError(f"{args.study}: no trial trained to its end; look at its trials' result.json")
    best = study.best_trial
    write(args.study, study, best, sets, args.width)
    if args.experiments:
        experiments(args.study, finished)
    print(report(study, best, sets, args.width))


def read_space(path: Path) -> dict[str, Any]:
    """What is searched.

    Raises:
        UsageError: a key that is neither of plan nor of pretrain, or a range that is none.
    """
    space = read_yaml(path)
    if not space:
        raise UsageError(f"{path}: names nothing to search")
    for key, values in space.items():
        where = f"{path}: {key}"
        if key.partition(".")[0] not in ("plan", "pretrain"):
            raise UsageError(f"{where}: write plan.KEY or pretrain.KEY")
        if isinstance(values, list) and values:
            continue
        numbers = isinstance(values, dict) and {"low", "high"} <= set(values) <= {"low", "high", "log"}
        if not numbers or not all(isinstance(values[end], int | float) for end in ("low", "high")):
            raise UsageError(f"{where}: give a list of values, or low, high and, if you like, log: true")
        if not values["low"] < values["high"] or (values.get("log") and values["low"] <= 0):
            raise UsageError(f"{where}: low must be below high, and above 0 where the range is logarithmic")
    return space


def work(folder: Path, space: dict[str, Any], sets: dict[str, Any], trials: int, seed: int, number: int) -> None:
    """One worker: asks for a trial, runs it, tells, until there are enough."""
    optuna = _optuna()
    if number:
        trial._start()
    study = optuna.load_study(
        study_name=NAME,
        storage=_storage(folder),
        sampler=optuna.samplers.TPESampler(seed=seed + number),
        pruner=optuna.pruners.MedianPruner(n_startup_trials=UNPRUNED),
    )

    def objective(asked: Any) -> float:
        values = {key: _suggest(asked, key, options) for key, options in space.items()}
        merged = sets
        for key, value in values.items():
            merged = override(merged, [f"{key}={json.dumps(value)}"])
        one = trial.Trial(f"{asked.number:03}", merged.get("plan", {}), merged.get("pretrain", {}), values)
        trial.queue(folder, [one])

        def report(step: int, loss: float) -> None:
            asked.report(loss, step)
            if asked.should_prune():
                raise optuna.TrialPruned

        try:
            result, _ = trial.run(folder, one.name, report)
        except optuna.TrialPruned:
            for leftover in ("work", "out", "plan"):
                shutil.rmtree(folder / "trials" / one.name / leftover, ignore_errors=True)
            raise
        if result.failed:
            print(f"trial {one.name}: {result.failed}", flush=True)
            raise optuna.TrialPruned
        print(f"trial {one.name}: held-out loss {result.loss:.4f}  {_told(values)}", flush=True)
        return result.loss

    ended = (optuna.trial.TrialState.COMPLETE, optuna.trial.TrialState.PRUNED)
    enough = optuna.study.MaxTrialsCallback(trials, states=ended)
    if len(study.get_trials(states=ended)) < trials:
        study.optimize(objective, callbacks=[enough])


def transferred(best: dict[str, Any], sets: dict[str, Any], width: int | None) -> dict[str, Any]:
    """The best values, the learning rate as for another width: 1/width (arXiv:2203.03466, table 3).

    Raises:
        UsageError: `--width` without a proxy whose width and learning rate are known.
    """
    if width is None:
        return best
    proxy = best.get("plan.model.hidden") or sets.get("plan", {}).get("model", {}).get("hidden")
    if proxy is None or "plan.lr" not in best:
        raise UsageError("--width needs plan.lr in the space, and the proxy's width: --set plan.model.hidden=64")
    values = {key: value for key, value in best.items() if key != "plan.model.hidden"}
    return {**values, "plan.lr": best["plan.lr"] * proxy / width, "plan.model.hidden": width}


def write(folder: Path, study: Any, best: Any, sets: dict[str, Any], width: int | None) -> None:
    """best.yaml (two sections, as params have them) and search.html."""
    import yaml

    merged: dict[str, Any] = {}
    for key, value in transferred(best.params, sets, width).items():
        merged = override(merged, [f"{key}={json.dumps(value)}"])
    artefacts.write_atomic(folder / "best.yaml", yaml.safe_dump(merged, sort_keys=True))
    done = [t for t in study.get_trials() if t.value is not None]
    names = sorted({name for t in done for name in t.params})
    charts = []
    for name in names:
        points = [(t.params[name], t.value) for t in done if isinstance(t.params.get(name), int | float)]
        if len(points) > 1 and all(x > 0 for x, _ in points):
            charts.append(chart(f"Loss by {name}", name, "held-out loss (nats a token)", [Series("trials", points)]))
    rows = [
        [str(t.number), t.state.name.lower(), *(_short(t.params.get(name, "")) for name in names), f"{t.value:.4f}"]
        for t in sorted(done, key=lambda t: t.value)
    ]
    body = "".join(charts) + table(["trial", "state", *names, "held-out loss"], rows)
    artefacts.write_atomic(folder / "search.html", page("Search of hyperparameters", body))


def report(study: Any, best: Any, sets: dict[str, Any], width: int | None) -> str:
    """The outcome as lines of text."""
    states = [t.state.name for t in study.get_trials()]
    lines = [
        f"{states.count('COMPLETE')} trials to their end, {states.count('PRUNED')} ended early",
        f"best: trial {best.number:03}, held-out loss {best.value:.4f}  {_told(best.params)}",
    ]
    if width is not None:
        lines.append(f"at width {width}: {_told(transferred(best.params, sets, width))}")
    return "\n".join(lines)


def experiments(folder: Path, finished: list[Any]) -> None:
    """Keep each trial once as a DVC experiment, with its curve, for `dvc exp show` and `dvc plots`.

    Raises:
        UserError: dvclive is not installed, or this is no DVC repository.
    """
    try:
        from dvclive import Live
    except ImportError:
        raise UserError("--experiments needs dvclive: pip install 'headwater-model[dvclive]'") from None
    logging.getLogger("dvc.repo.experiments").setLevel(logging.ERROR)  # names every file of the study, at each trial
    place, kept = folder / "experiment", json.loads((folder / KEPT).read_text()) if (folder / KEPT).exists() else []
    for one in finished:
        name = f"{folder.name}-{one.number:03}"
        if name in kept:
            continue
        # the same paths in every experiment, so that `dvc exp show` sets them in the same columns
        with Live(dir=str(place), save_dvc_exp=True, exp_name=name, dvcyaml=str(place / "dvc.yaml")) as live:
            live.log_params(one.params)
            for step, loss in sorted(one.intermediate_values.items()):
                live.step = step
                live.log_metric("heldout_loss", loss)
                live.make_summary()
        if live._exp_name is None:
            raise UserError("--experiments: DVC kept none; run it inside a git repository with DVC")
        kept.append(name)
        artefacts.write_atomic(folder / KEPT, artefacts.canonical_json(kept))


def _suggest(asked: Any, key: str, options: Any) -> Any:
    if isinstance(options, list):
        return asked.suggest_categorical(key, options)
    low, high, scale = options["low"], options["high"], bool(options.get("log"))
    if isinstance(low, int) and isinstance(high, int):
        return asked.suggest_int(key, low, high, log=scale)
    return asked.suggest_float(key, low, high, log=scale)


def _storage(folder: Path) -> Any:
    backend = _optuna().storages.journal
    return _optuna().storages.JournalStorage(backend.JournalFileBackend(str(folder / "optuna.jsonl")))


def _optuna() -> Any:
    try:
        import optuna
    except ImportError:
        raise UserError("search needs Optuna: pip install 'headwater-model[studies]'") from None
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    return optuna


def _told(values: dict[str, Any]) -> str:
    return ", ".join(f"{key}={_short(value)}" for key, value in values.items())


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
