"""`review export`: results in, a folder a reviewer out."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from .. import samples
from .._contracts.errors import UserError
from .._contracts.manifest import canonical_json, write_atomic
from .._contracts.stage import Run
from . import sheet
from .config import ReviewExportConfig, extended
from .sampling import Drawn, draw, units

GENERATIONS = "generations"
"""Name under which completions of fixed prompts are reviewed, as if of a task."""
KEY, CLASSES, CONFIG = "key.parquet", "classes.json", "label_studio.xml"
KEY_SCHEMA = pa.schema(
    [
        ("item", pa.string()), ("model", pa.string()), ("task", pa.string()), ("doc_id", pa.string()),
        ("outcome", pa.string()), ("confidence", pa.string()), ("category", pa.string()), ("margin", pa.float64()),
        ("stratum", pa.string()), ("population", pa.int64()), ("sampled", pa.int64()),
        ("reviewers", pa.list_(pa.string())),
        ("prompt", pa.string()), ("options", pa.list_(pa.string())), ("answer", pa.string()), ("gold", pa.string()),
    ]
)  # fmt: skip
"""What reviewers do not get: which answer is whose, and how many it stands for."""


def export(run: Run) -> None:
    """Draw the sample and fill `run.out` with the key, Label Studio's configuration and a folder a reviewer."""
    config: ReviewExportConfig = run.config
    if not run.inputs:
        raise UserError("no results to review: name them with --in NAME=DIR")
    population = [
        unit for name, folder in sorted(run.inputs.items()) for unit in units(name, rows_of(folder), config)
    ]  # fmt: skip
    drawn = draw(population, config)
    classes = extended(config.classes)
    write_key(run.out / KEY, drawn)
    write_atomic(run.out / CLASSES, json.dumps(classes, ensure_ascii=False, indent=1) + "\n")
    write_atomic(run.out / CONFIG, sheet.label_studio_config(classes, config.show_gold))
    for reviewer in config.reviewers:
        own = sheet.of_reviewer(drawn, reviewer, config.seed)
        folder = run.out / "reviewers" / reviewer
        title = f"{len(own)} answers to review"
        write_atomic(
            folder / "review.html", sheet.page(own, reviewer, classes, run.fingerprint, title, config.show_gold)
        )
        write_atomic(folder / "review.csv", sheet.table(own, reviewer, config.show_gold))
        write_atomic(folder / "tasks.json", sheet.label_studio_tasks(own, reviewer, config.show_gold))
        run.log(f"{reviewer}: {len(own)} answers")
    metrics = {
        "items": len(drawn),
        "population": len(population),
        "strata": len({d.stratum for d in drawn}),
        "shared": sum(len(d.reviewers) > 1 for d in drawn),
        "by_task": _counted(d.unit.task for d in drawn),
        "by_outcome": _counted(d.unit.outcome for d in drawn),
        "by_reviewer": _counted(name for d in drawn for name in d.reviewers),
    }
    write_atomic(run.out / "metrics.json", canonical_json(metrics))
    if len(drawn) > config.items:
        run.log(f"two answers a stratum are more than items ({config.items}); name fewer tasks to have less to review")
    run.log(
        f"{metrics['items']} of {metrics['population']} answers in {metrics['strata']} strata, "
        f"{metrics['shared']} for several reviewers"
    )


def write_key(path: Path, drawn: list[Drawn]) -> None:
    """The key as Parquet, sorted by item."""
    rows = [
        {
            **{name: getattr(d.unit, name) for name in KEY_SCHEMA.names if hasattr(d.unit, name)},
            "item": d.unit.id,
            "stratum": d.stratum,
            "population": d.population,
            "sampled": d.sampled,
            "reviewers": list(d.reviewers),
            "options": list(d.unit.options),
        }
        for d in sorted(drawn, key=lambda d: d.unit.id)
    ]
    pq.write_table(pa.Table.from_pylist(rows, KEY_SCHEMA), path, compression="zstd")


def rows_of(folder: Path) -> list[samples.Row]:
    """What can be reviewed of a results artefact: answers to items, and the completions of its fixed prompts, ungraded.

    Raises:
        UserError: it holds neither.
    """
    rows = samples.read(folder) if (folder / samples.NAME).is_file() else []
    completions = folder / "generations.jsonl"
    if completions.is_file():
        blank = dict.fromkeys(samples.SCHEMA.names)
        for line in completions.read_text("utf-8").split("\n"):
            if line:
                g = json.loads(line)
                told = {"task": GENERATIONS, "doc_id": f"{g['format']}/{g['id']}", "category": g["format"]}
                answers = [g["reference"]] if g.get("reference") else []
                rows.append({**blank, **told, "prompt": g["prompt"], "response": g["completion"], "answers": answers})
    if not rows:
        raise UserError(f"{folder}: no answers in it; name the results of a model")
    return rows


def _counted(values: Iterable[str]) -> dict[str, int]:
    return dict(sorted(Counter(values).items()))
