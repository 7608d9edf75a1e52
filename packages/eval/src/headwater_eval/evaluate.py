"""Scoring one model: the same questions as every other model gets. Stage `evaluate`, and what `run` shares with it.

Task after task; a finished task is kept in the work folder, and within a task every finished request (`cache`), so
that a killed run goes on where it was.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

from . import (
    code_tasks,
    contamination,
    engine,  # isort: split  (before torch: its import fixes tqdm's settings)
    models,
    prompting,
    samples,
    steering,
)
from ._contracts.config import parse, resolved
from ._contracts.errors import UserError
from ._contracts.manifest import canonical_json, manifest_hash, write_atomic
from ._contracts.stage import Run
from .benchmark import Benchmark, Item
from .bias.judged import JudgedBenchmark, needs_judge
from .cache import CachedLM, RequestCache
from .catalogue import BENCHMARKS
from .config import EvaluateConfig
from .documents import Document, choose, stream
from .generations import generate, prompt_documents
from .items import load, load_shots
from .models import ModelSpec
from .parallel import Ranks, join, launch, world_size
from .scores import average_score, heldout_scores, sample_rows, scores_of
from .tasks import HELDOUT, benchmark_task, choose_items, heldout_task, shots_of
from .toxicity import judge

GENERATIONS = "generations"


@dataclass(frozen=True)
class Plan:
    """All that scoring a model needs, as each process that takes part is told it."""

    model: ModelSpec
    config: EvaluateConfig
    items: Path
    corpus: Path | None
    """Held-out text and prompts come from it; None: neither."""
    parts: Path
    """Folder of finished parts, a JSON file each."""
    cache: Path | None
    """File of finished requests; None: none are kept."""
    toxicity: Path | None = None
    """Classifier artefact that judges what the model writes; None: tests that need one can't be asked."""
    lenient: bool = False
    """A benchmark that can't be asked is left out, with the reason, instead of ending the run."""

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            **asdict(self),
            **{n: v and str(v) for n, v in vars(self).items() if isinstance(v, Path)},
            "config": resolved(self.config),
        }

    @classmethod
    def from_json(cls, raw: dict[str, Any]) -> Plan:
        """The inverse of `to_json`."""
        paths = {name: raw[name] and Path(raw[name]) for name in ("items", "corpus", "parts", "cache", "toxicity")}
        model, config = ModelSpec(**raw["model"]), parse(EvaluateConfig, raw["config"], "evaluate")
        return cls(model, config, **paths, lenient=raw["lenient"])


def run(run: Run) -> None:
    """Score, write samples, and fill `run.out` with results.json, metrics.json, samples.parquet, generations.jsonl."""
    config: EvaluateConfig = run.config
    model = ModelSpec(
        "native", str(run.inputs["model"]), dtype=config.dtype, threads=config.threads,
        batch_tokens=config.batch_tokens, overlap=config.heldout.overlap,
        steering=steering.plain(config.steering, run.inputs.get("toxicity")), prompt=prompting.plain(config.prompt),
    )  # fmt: skip
    cache, parts = run.work / "requests.sqlite", run.work / "parts"
    plan = Plan(model, config, run.inputs["items"], run.inputs["corpus"], parts, cache, run.inputs.get("toxicity"))
    score(plan, config.ranks, run.work, run.log)
    write(run, plan, _overlap(run))


def _overlap(run: Run) -> contamination.Overlap | None:
    if "overlap" not in run.inputs:
        return None
    return contamination.read(run.inputs["overlap"], run.manifests["overlap"], manifest_hash(run.inputs["items"]))


def score(plan: Plan, ranks: int, work: Path, log: Callable[[str], None]) -> None:
    """Make all parts of a plan that are not there yet: in this process, or in so many ranks on this machine.

    Where a launcher has started this process as one of several ranks, it takes its share.
    """
    questions(plan)  # what is missing and must not be ends the run before any process starts
    if ranks == 1 or world_size() > 1:
        score_here(plan, log)
        return
    job = work / "job.json"
    write_atomic(job, canonical_json(plan.to_json()))
    launch(ranks, "headwater_eval.evaluate", [str(job)], work / "ranks")


def score_here(plan: Plan, log: Callable[[str], None]) -> None:
    """As one of the ranks, or the only one: make the parts that are not there yet; the first rank writes them."""
    config = plan.config
    lm = models.load(plan.model)
    ranks = join()
    first = ranks.rank == 0
    cache = RequestCache(plan.cache, models.identify(plan.model)) if plan.cache and first else None
    asked = CachedLM(lm, cache, ranks, _every(5.0, log) if first else _silent)

    def keep(name: str, make: Callable[[], Any]) -> None:
        _keep(plan, ranks, name, make, log if first else _silent)

    for name, (items, pool) in questions(plan)[0].items():
        benchmark = equipped(BENCHMARKS[name], plan)
        keep(name, partial(score_benchmark, asked, benchmark, items, pool, config, first))
    if plan.corpus is not None:
        documents = list(stream(plan.corpus, "heldout"))
        heldout = choose(documents, config.heldout.max_bytes, config.seed)
        if heldout:
            keep(HELDOUT, lambda: score_heldout(asked, heldout, config))
        prompts = prompt_documents(documents, config.samples, config.seed)
        if plan.model.backend == "native":
            keep(GENERATIONS, lambda: generate(lm.scorer, prompts, config.samples) if first else None)
    if cache:
        cache.close()


def questions(plan: Plan) -> tuple[dict[str, tuple[list[Item], list[Item]]], dict[str, str]]:
    """Task -> items to ask and items that examples are drawn from; and task -> why it is not asked (lenient plans).

    Raises:
        UserError: a task without items, or a file of items that is no benchmark's.
    """
    folder, config = plan.items, plan.config
    held, skipped = load(folder), {}
    for name in config.tasks or []:
        if name not in held:
            skipped[name] = f"data for {name} not found: no {name}.jsonl among the items"
            if not plan.lenient:
                raise UserError(
                    f"data for {name} not found: no items of {name} in {folder} ({name}.jsonl); "
                    "make them with headwater-eval items, or leave it out of the tasks"
                )
    unknown = [name for name in held if name not in BENCHMARKS]
    if unknown:
        raise UserError(f"{folder / unknown[0]}.jsonl: no benchmark of that name; make the items again")
    limits, pools = {"bias": config.bias_limit}, load_shots(folder)
    chosen = {
        name: choose_items(items, limits.get(BENCHMARKS[name].kind, config.limit), config.seed)
        for name, items in held.items()
        if config.tasks is None or name in config.tasks
    }
    asked = {name: (items, pools.get(name, held[name])) for name, items in chosen.items()}
    for name in [name for name in asked if BENCHMARKS[name].kind == "code"]:
        if why := code_tasks.skipped(BENCHMARKS[name], config.run_code):
            skipped[name] = why
            del asked[name]
    for name in [name for name in asked if BENCHMARKS[name].kind == "toxicity" and plan.toxicity is None]:
        skipped[name] = needs_judge(name)
        if not plan.lenient:
            raise UserError(skipped[name])
        del asked[name]
    return asked, skipped


def equipped(benchmark: Benchmark, plan: Plan) -> Benchmark:
    """The benchmark with what this run gives it beside its items: code tasks a sandbox, judged ones a classifier.

    Raises:
        UserError: this machine lacks what it needs.
    """
    if isinstance(benchmark, JudgedBenchmark):
        return benchmark.equipped(judge.load(plan.toxicity) if plan.toxicity else None, plan.config.toxicity)
    return code_tasks.configured(benchmark, plan.config.code) if benchmark.kind == "code" else benchmark


def score_benchmark(
    lm: engine.LM,
    benchmark: Benchmark,
    items: list[Item],
    pool: list[Item],
    config: EvaluateConfig,
    judges: bool = True,
) -> dict[str, Any] | None:
    """Ask a model, any of lm-eval's, one benchmark.

    Args:
        pool: items that shots, the solved examples before each question, are drawn from.
        config: says how many, and how they are chosen.
        judges: whether this process makes rows and scores of the answers (which may run programs): one of all ranks.

    Returns:
        results: lm-eval's own; rows: `samples.SCHEMA`'s, a row an item; scores: rows of metrics.json. None where it
        does not judge.

    Raises:
        UserError: this benchmark can't be asked so (too few items to draw examples from, ...).
    """
    task = benchmark_task(benchmark, items, shots_of(benchmark, config.shots), pool, config.sampler, config.seed)
    results, logged = _ask(lm, task)
    if not judges:
        return None
    rows = (benchmark.rows or sample_rows)(benchmark, items, logged)
    scores = (benchmark.scores or scores_of)(benchmark, items, rows)
    return {"results": results, "rows": rows, "scores": scores}


def score_heldout(lm: engine.LM, documents: list[Document], config: EvaluateConfig) -> dict[str, Any]:
    """Bits per byte of held-out documents; a part like that of `score_benchmark`, without rows."""
    results, logged = _ask(lm, heldout_task(documents))
    nats = [sample["filtered_resps"][0] for sample in sorted(logged, key=lambda s: s["doc_id"])]
    scores = heldout_scores(documents, nats, config.heldout.resamples, config.seed)
    return {"results": results, "rows": [], "scores": scores}


def _ask(lm: engine.LM, task: engine.ConfigurableTask) -> tuple[dict, list[dict]]:
    """lm-eval's results of one task, without what differs from machine to machine, and its samples."""
    results = engine.evaluate(lm, {task.config.task: task}, bootstrap_iters=0, log_samples=True)  # intervals are ours
    logged = results.pop("samples")[task.config.task]
    for config in results["configs"].values():
        config.pop("custom_dataset")  # our rows
        config.pop("fewshot_config")  # holds functions, whose text is their address
    return json.loads(json.dumps(results, default=str)), logged


def _every(seconds: float, log: Callable[[str], None]) -> Callable[[int, int], None]:
    """Tells how many requests are done, at most once in so many seconds."""
    last = time.monotonic()

    def tell(done: int, of: int) -> None:
        nonlocal last
        if done < of and time.monotonic() - last >= seconds:
            last = time.monotonic()
            log(f"{done} of {of} requests")

    return tell


def _silent(*_: object) -> None:
    pass


def _keep(plan: Plan, ranks: Ranks, name: str, make: Callable[[], Any], log: Callable[[str], None]) -> None:
    """Make a part, unless the first rank finds it in the plan's folder."""
    path = plan.parts / f"{name}.json"
    if ranks.agree(path.exists() and "skipped" not in json.loads(path.read_text())):
        return
    started = time.monotonic()
    try:
        made = make()
    except UserError as e:
        if not plan.lenient:
            raise
        made = {"skipped": str(e)}
    if ranks.rank == 0:
        write_atomic(path, canonical_json(made))
    log(f"{name}: {'skipped' if 'skipped' in (made or {}) else 'done'} in {time.monotonic() - started:.1f} s")


def write(run: Run, plan: Plan, overlap: contamination.Overlap | None = None) -> None:
    """The parts of a plan as the results artefact, a line a score; with an overlap also on clean and dirty items."""
    asked, skipped = questions(plan)
    results: dict[str, Any] = {"lm_eval_version": version("lm-eval"), "config": resolved(run.config)}
    scores: dict[str, dict] = {}
    rows: list[dict] = []
    for name in [*asked, HELDOUT]:
        path = plan.parts / f"{name}.json"
        if name == HELDOUT and not path.exists():
            continue
        part = json.loads(path.read_text())
        if "skipped" in part:
            skipped[name] = part["skipped"]
            continue
        scores.update(part["scores"])
        if overlap is not None and name != HELDOUT:
            benchmark = equipped(BENCHMARKS[name], plan)
            scores.update(contamination.subset_scores(benchmark, asked[name][0], part["rows"], overlap))
        rows += part["rows"]
        for section, values in part["results"].items():
            results.setdefault(section, {}).update(values)
    if skipped:
        results["skipped"] = skipped
    scores.update(average_score(scores))
    samples.write(run.out, rows)
    write_atomic(run.out / "results.json", canonical_json(results))
    path = plan.parts / f"{GENERATIONS}.json"
    written = json.loads(path.read_text()) if path.exists() else []
    write_atomic(run.out / "generations.jsonl", "".join(json.dumps(g, ensure_ascii=False) + "\n" for g in written))
    run.write_metrics(scores)
    for name, row in scores.items():
        if ":" not in name:
            against = "" if row["chance"] is None else f", chance {row['chance']:.3f}"
            value = "undecided" if row["value"] is None else f"{row['value']:.4f}"
            run.log(f"{name}: {row['metric']} {value} (n {row['n']}{against})")
    for name in sorted(skipped):
        run.log(f"{name}: skipped: {skipped[name]}")
    if skipped:
        run.log(f"tasks scored: {len(set(asked) - set(skipped))}, skipped: {len(skipped)}")


def _rank(job: Path, folder: Path | None) -> None:
    score_here(Plan.from_json(json.loads(job.read_text())), lambda text: print(f"[evaluate] {text}", flush=True))


if __name__ == "__main__":
    from headwater_model import launch as launcher

    sys.exit(launcher.as_rank(partial(_rank, Path(sys.argv[1]))))
