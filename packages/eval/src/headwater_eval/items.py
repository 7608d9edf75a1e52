"""Stage `items`: benchmark files of the sources -> one JSON Lines file a task, in one schema."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

from ._contracts.errors import UserError
from ._contracts.stage import Run
from .benchmark import Benchmark, chance
from .catalogue import BENCHMARKS
from .config import ItemsConfig
from .readers import Reject

REJECTS = "rejects/items.jsonl"
"""In a folder of its own: whoever reads `*.jsonl` of this artefact reads items."""


def run(run: Run) -> None:
    """Fill `run.out` with TASK.jsonl for every task asked for, and the rows that are no items."""
    config: ItemsConfig = run.config
    files = find_files(run.inputs["sources"], config.tasks)
    rejects, by_task = [], {}
    for name, path in files.items():
        benchmark, source = BENCHMARKS[name], path.relative_to(run.inputs["sources"]).parts[0]
        items, refused = read_items(benchmark, path)
        if not items:
            reason = f" (row {refused[0].row}: {refused[0].reason})" if refused else ""
            raise UserError(f"{path}: no item of {name} in it{reason}; check that it is the file of that benchmark")
        _write_jsonl(run.out / f"{name}.jsonl", items)
        rejects += [{"task": name, "source": source, **asdict(reject)} for reject in refused]
        by_task[name] = {
            "items": len(items),
            "rejects": len(refused),
            "source": source,
            "licence": _licence(run.inputs["sources"] / source),
            "measures": benchmark.measures,
            "chance": chance(items),
        }
        run.log(f"{name}: {len(items)} items from {source}, {len(refused)} rows set aside")
    (run.out / REJECTS).parent.mkdir()
    _write_jsonl(run.out / REJECTS, rejects)
    run.write_metrics({"items": sum(t["items"] for t in by_task.values()), "rejects": len(rejects), "by_task": by_task})


def find_files(sources: Path, tasks: list[str] | None) -> dict[str, Path]:
    """Task name -> its file, for the tasks named, or (None) for every task whose file some source holds.

    Raises:
        UserError: a task's file is in no source or in two, or no source holds any benchmark.
    """
    held = sorted(p for p in sources.rglob("*") if p.is_file())
    found = {}
    for name in sorted(BENCHMARKS) if tasks is None else tasks:
        ending = BENCHMARKS[name].file
        matches = [p for p in held if f"/{p.relative_to(sources).as_posix()}".endswith(f"/{ending}")]
        if len(matches) > 1:
            shown = " and ".join(p.relative_to(sources).as_posix() for p in matches[:2])
            raise UserError(f"items of {name} are in two sources: {shown}; leave one of them out of collect.sources")
        if matches:
            found[name] = matches[0]
        elif tasks is not None:
            raise UserError(
                f"data for {name} not found: no source in {sources} holds {ending}; "
                f"add one to collect.sources, or leave {name} out of items.tasks"
            )
    if not found:
        raise UserError(f"no source in {sources} holds items of any benchmark; add one to collect.sources")
    return found


def read_items(benchmark: Benchmark, path: Path) -> tuple[list[dict], list[Reject]]:
    """All well-formed items of a benchmark's file, with ids that name task and row, and the other rows."""
    items, rejects = [], []
    for parsed in benchmark.read(path):
        if isinstance(parsed, Reject):
            rejects.append(parsed)
        else:
            row, fields = parsed
            items.append({"id": f"{benchmark.name}-{row:05d}", "task": benchmark.name, **fields})
    return items, rejects


def load(folder: Path) -> dict[str, list[dict]]:
    """Task name -> items, of an items artefact."""
    return {
        path.stem: [json.loads(line) for line in path.read_text("utf-8").split("\n") if line]
        for path in sorted(folder.glob("*.jsonl"))
    }


def _write_jsonl(path: Path, rows: list[dict]) -> None:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), "utf-8")


def _licence(source: Path) -> str | None:
    about = source / "source.json"
    return json.loads(about.read_text()).get("licence") if about.is_file() else None
