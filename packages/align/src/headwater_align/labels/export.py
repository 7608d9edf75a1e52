"""Stage `labels-export`: completions in, a folder a labeller out."""

from __future__ import annotations

from collections import Counter

from .. import jsonl
from .._contracts.errors import UserError
from .._contracts.manifest import write_atomic
from .._contracts.stage import Run
from . import argilla, label_studio, page, table
from .config import LabelsExportConfig
from .tasks import KEY, Task, assign, in_order, rank_of, write_key


def run(run: Run) -> None:
    """Write key.jsonl, the settings of Label Studio and Argilla, and each labeller's page, table, tasks and records."""
    config: LabelsExportConfig = run.config
    records = jsonl.read(run.inputs["completions"] / "completions.jsonl")
    known = sorted({record["batch"] for record in records})
    if missing := sorted(set(config.batches) - set(known)):
        raise UserError(f"no batch {missing[0]} in these completions; they have {', '.join(known)}")
    chosen = [record for record in records if not config.batches or record["batch"] in config.batches]
    chosen.sort(key=lambda record: rank_of(config.seed, "deal", record["id"]))
    given = assign([r["id"] for r in chosen], config.labellers, config.overlap, config.several, config.seed)
    tasks = [Task.of(record, config.seed, who) for record, who in zip(chosen, given, strict=True)]
    most = max(len(task.names) for task in tasks)
    write_key(run.out / KEY, tasks)
    write_atomic(run.out / "label_studio.xml", label_studio.config(most))
    write_atomic(run.out / "argilla_settings.json", argilla.settings(most))
    for labeller in config.labellers:
        own = in_order(tasks, labeller, config.seed)
        if not own:
            run.log(f"{labeller}: nothing to rank; there are fewer tasks than labellers")
            continue
        folder = run.out / "labellers" / labeller
        write_atomic(folder / "rank.html", page.write(own, labeller, config.seed, run.fingerprint))
        write_atomic(folder / "rank.csv", table.write(own, labeller, config.seed))
        write_atomic(folder / "label_studio.json", label_studio.write(own, labeller, config.seed))
        write_atomic(folder / "argilla.json", argilla.write(own, labeller, config.seed))
        run.log(f"{labeller}: {len(own)} prompts to rank")
    shared = sum(len(task.labellers) > 1 for task in tasks)
    run.log(f"{len(tasks)} prompts with up to {most} responses, {shared} for several labellers")
    run.write_metrics(
        {
            "tasks": len(tasks),
            "shared": shared,
            "responses": sum(len(task.names) for task in tasks),
            "by_labeller": dict(sorted(Counter(who for task in tasks for who in task.labellers).items())),
            "by_batch": dict(sorted(Counter(task.batch for task in tasks).items())),
        }
    )
