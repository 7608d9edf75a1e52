"""Stage `labels-import`: what labellers saved in, preference records and agreement out."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

from .. import jsonl
from .._contracts.errors import UserError
from .._contracts.manifest import canonical_json, write_atomic
from .._contracts.stage import Run
from ..conversation import identity
from ..intervals import bootstrap_mean
from . import agreement, argilla, label_studio, page, table
from .config import LabelsImportConfig
from .rankings import Ranking, Reject, accepted
from .tasks import KEY, Task, read_key

TIED = "all responses tied"


def run(run: Run) -> None:
    """Write labels.jsonl, skipped.jsonl, comments.jsonl, rejects.jsonl, agreement.json and metrics.json."""
    config: LabelsImportConfig = run.config
    if not config.files:
        raise UserError("no files to import; name what labellers saved, or its folder, after `labels import`")
    tasks = read_key(run.inputs["sheet"] / KEY)
    found = [entry for name in config.files for entry in read(Path(name))]
    made = accepted(found, tasks)
    ranked = [ranking for ranking in made.rankings if not ranking.skipped]
    labels = [record(tasks[r.task], r) for r in ranked if len(set(r.ranks.values())) > 1]
    skipped = [
        {"task": r.task, "labeller": r.labeller, "reason": r.skipped or TIED, "comment": r.comment}
        for r in made.rankings
        if r.skipped or len(set(r.ranks.values())) == 1
    ]
    if not labels:
        reason = f"; the first that was refused: {made.rejects[0].reason}" if made.rejects else ""
        raise UserError(f"{', '.join(config.contents)}: no ranking of this sheet{reason}")
    by_task: dict[str, dict[str, list[int]]] = defaultdict(dict)
    for r in ranked:
        by_task[r.task][r.labeller] = in_line(tasks[r.task], r)
    told = agreement.told(by_task, config.resamples, config.seed)
    told["win_rates"] = win_rates(tasks, ranked, config)
    jsonl.write(run.out / "labels.jsonl", sorted(labels, key=lambda label: label["id"]))
    jsonl.write(run.out / "skipped.jsonl", skipped)
    comments = [{"task": r.task, "labeller": r.labeller, "comment": r.comment} for r in ranked if r.comment]
    jsonl.write(run.out / "comments.jsonl", comments)
    jsonl.write(run.out / "rejects.jsonl", [asdict(reject) for reject in made.rejects])
    write_atomic(run.out / "agreement.json", canonical_json(told))
    run.write_metrics(
        {
            "labels": len(labels),
            "tasks": len(by_task),
            "tasks_handed_out": len(tasks),
            "labellers": len(told["by_labeller"]),
            "skipped": sum(bool(r.skipped) for r in made.rankings),
            "tied": sum(s["reason"] == TIED for s in skipped),
            "repeated": made.repeated,
            "replaced": made.replaced,
            "rejects": len(made.rejects),
            "rejects_by_reason": dict(sorted(Counter(_kind(r.reason) for r in made.rejects).items())),
            "by_batch": dict(sorted(Counter(label["batch"] for label in labels).items())),
            **{name: told[name] for name in ("agreement", "strict_agreement", "alpha", "win_rates")},
        }
    )
    run.log(
        f"{len(labels)} rankings by {len(told['by_labeller'])} labellers; {len(skipped)} skipped or tied, "
        f"{len(made.rejects)} refused (rejects.jsonl)"
    )
    share, alpha = told["agreement"]["value"], told["alpha"]["value"]
    run.log(
        "agreement: no prompt was ranked by two labellers"
        if share is None
        else f"agreement: {share:.1%} of {told['pairs']} pairs on {told['tasks']} prompts"
        + (f", alpha {alpha:.3f}" if alpha is not None else "")
    )


def read(path: Path) -> Iterator[Ranking | Reject]:
    """The rankings of one file, whichever way it was handed out.

    Raises:
        UserError: none of the formats that the sheet was written in.
    """
    try:
        text = path.read_text("utf-8-sig")  # spreadsheets write a byte-order mark
    except UnicodeDecodeError:
        raise UserError(f"{path.name}: not UTF-8; save it again as CSV UTF-8 or JSON") from None
    if text.lstrip()[:1] not in ("[", "{"):
        return table.read(text, path.name)
    try:
        value = json.loads(text)
    except ValueError as e:
        raise UserError(f"{path.name}: not readable as JSON ({e}); save it again") from None
    if isinstance(value, dict) and value.get("format") == page.FORMAT:
        return page.read(value, path.name)
    if isinstance(value, list) and value and all(isinstance(entry, dict) for entry in value):
        return (argilla if "fields" in value[0] else label_studio).read(value, path.name)
    raise UserError(f"{path.name}: neither saved by the page nor exported by Label Studio or Argilla")


def in_line(task: Task, ranking: Ranking) -> list[int]:
    """The ranks in the order of the task's responses."""
    return [ranking.ranks[name] for name in task.names]


def record(task: Task, ranking: Ranking) -> dict:
    """A preference record: the comparison, and who wrote and who judged it."""
    return {
        "id": identity(task.task, ranking.labeller, task.prompt, task.responses),
        "source": task.source,
        "licence": task.licence,
        "split": task.split,
        "prompt": task.prompt,
        "responses": task.responses,
        "ranks": in_line(task, ranking),
        "policies": task.policies,
        "labeller": ranking.labeller,
        "round": task.round,
        "batch": task.batch,
        "confidence": ranking.confidence,
        "strength": None,
    }


def win_rates(tasks: dict[str, Task], ranked: Sequence[Ranking], config: LabelsImportConfig) -> dict:
    """Policy -> share of pairs with another policy's response that it won, with its interval over tasks."""
    of_task: dict[str, dict[str, list[float]]] = defaultdict(dict)
    for r in ranked:
        for policy, share in agreement.wins(tasks[r.task].policies, in_line(tasks[r.task], r)).items():
            of_task[policy].setdefault(r.task, []).append(share)
    made = {}
    for policy, shares in sorted(of_task.items()):
        mean, low, high = bootstrap_mean([sum(s) / len(s) for s in shares.values()], config.seed, config.resamples)
        made[policy] = {"value": mean, "low": low, "high": high, "tasks": len(shares)}
    return made


def _kind(reason: str) -> str:
    """A reason without the places that it names."""
    return reason.split(",", 1)[0]
