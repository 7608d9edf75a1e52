"""Stage `evaluate`: one model, the same questions as every other model of the lineage.

Task after task; a finished task is kept in `run.work`, so a killed run goes on with the next one.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

from . import (
    engine,  # isort: split  (before torch: its import fixes tqdm's settings)
    native,
    samples,
)
from ._contracts.config import resolved
from ._contracts.errors import UserError
from ._contracts.manifest import canonical_json, write_atomic
from ._contracts.stage import Run
from .benchmark import Benchmark
from .bias.judged import equipped
from .catalogue import BENCHMARKS
from .config import EvaluateConfig
from .documents import Document, choose, stream
from .generations import generate, prompt_documents
from .items import load
from .lm import HeadwaterLM
from .scores import average_score, heldout_scores, sample_rows, scores_of
from .tasks import HELDOUT, benchmark_task, choose_items, heldout_task
from .toxicity import judge


def run(run: Run) -> None:
    """Score, write samples, and fill `run.out` with results.json, metrics.json, samples.parquet, generations.jsonl."""
    config: EvaluateConfig = run.config
    questions = _questions(run.inputs["items"], config)
    documents = list(stream(run.inputs["corpus"], "heldout"))
    heldout = choose(documents, config.heldout.max_bytes, config.seed)
    scorer = native.load(run.inputs["model"], config.dtype, config.threads)
    lm = HeadwaterLM(scorer, config.batch_tokens, config.heldout.overlap)

    toxicity = judge.load(run.inputs["toxicity"]) if "toxicity" in run.inputs else None
    asked = {name: equipped(BENCHMARKS[name], toxicity, config.toxicity) for name in questions}
    parts = [_kept(run, name, partial(_score_items, lm, asked[name], items)) for name, items in questions.items()]
    if heldout:
        parts.append(_kept(run, HELDOUT, lambda: _score_heldout(lm, heldout, config)))
    prompts = prompt_documents(documents, config.samples, config.seed)
    generations = _kept(run, "generations", lambda: generate(scorer, prompts, config.samples))
    _write(run, parts, generations)


def _questions(folder: Path, config: EvaluateConfig) -> dict[str, list[dict]]:
    held = load(folder)
    missing = [name for name in config.tasks or [] if name not in held]
    if missing:
        raise UserError(f"{folder}: no items of {missing[0]}; add it to items.tasks, or leave it out of evaluate.tasks")
    unknown = [name for name in held if name not in BENCHMARKS]
    if unknown:
        raise UserError(f"{folder / unknown[0]}.jsonl: no benchmark of that name; make the items again")
    limits = {"choice": config.limit, "bias": config.bias_limit}
    return {
        name: choose_items(items, limits.get(BENCHMARKS[name].kind, config.limit), config.seed)
        for name, items in held.items()
        if config.tasks is None or name in config.tasks
    }


def _kept(run: Run, name: str, make: Callable[[], Any]) -> Any:
    """A finished part from `run.work`, or made now and kept there; its fingerprint is the work folder's."""
    path = run.work / "parts" / f"{name}.json"
    if not path.exists():
        started = time.monotonic()
        write_atomic(path, canonical_json(make()))
        run.log(f"{name}: done in {time.monotonic() - started:.1f} s")
    return json.loads(path.read_text())


def _score_items(lm: HeadwaterLM, benchmark: Benchmark, items: list[dict]) -> dict:
    results, logged = _ask(lm, benchmark_task(benchmark, items), bootstrap=100)
    rows = (benchmark.rows or sample_rows)(benchmark, items, logged)
    scores = (benchmark.scores or scores_of)(benchmark, items, rows)
    return {"results": results, "rows": rows, "scores": scores}


def _score_heldout(lm: HeadwaterLM, documents: list[Document], config: EvaluateConfig) -> dict:
    results, logged = _ask(lm, heldout_task(documents), bootstrap=0)  # its interval is ours, by document
    nats = [sample["filtered_resps"][0] for sample in sorted(logged, key=lambda s: s["doc_id"])]
    scores = heldout_scores(documents, nats, config.heldout.resamples, config.seed)
    return {"results": results, "rows": [], "scores": scores}


def _ask(lm: HeadwaterLM, task: engine.ConfigurableTask, bootstrap: int) -> tuple[dict, list[dict]]:
    """lm-eval's results of one task, without what differs from machine to machine, and its samples."""
    results = engine.evaluate(lm, {task.config.task: task}, bootstrap_iters=bootstrap, log_samples=True)
    logged = results.pop("samples")[task.config.task]
    for config in results["configs"].values():
        config.pop("custom_dataset")  # our rows
        config.pop("fewshot_config")  # no shots; holds functions, whose text is their address
    return json.loads(json.dumps(results, default=str)), logged


def _write(run: Run, parts: list[dict], generations: list[dict]) -> None:
    results: dict[str, Any] = {"lm_eval_version": version("lm-eval"), "config": resolved(run.config)}
    scores: dict[str, dict] = {}
    for part in parts:
        scores.update(part["scores"])
        for section, values in part["results"].items():
            results.setdefault(section, {}).update(values)
    scores.update(average_score(scores))
    samples.write(run.out, [row for part in parts for row in part["rows"]])
    write_atomic(run.out / "results.json", canonical_json(results))
    write_atomic(run.out / "generations.jsonl", "".join(json.dumps(g, ensure_ascii=False) + "\n" for g in generations))
    run.write_metrics(scores)
    for name, row in scores.items():
        if ":" not in name:
            against = "" if row["chance"] is None else f", chance {row['chance']:.3f}"
            value = "undecided" if row["value"] is None else f"{row['value']:.4f}"
            run.log(f"{name}: {row['metric']} {value} (n {row['n']}{against})")
