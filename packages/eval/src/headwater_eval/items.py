"""Stage `items`: benchmark files of the sources -> one JSON Lines file a task, in one schema."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

from ._contracts.errors import UserError
from ._contracts.stage import Run
from .benchmark import Benchmark, Item, chance
from .catalogue import BENCHMARKS, suite
from .config import ItemsConfig
from .hub import read_items, read_rows
from .locate import Folder, Found, expected, locate
from .readers import Reject

REJECTS = "rejects/items.jsonl"
"""In a folder of its own: whoever reads `*.jsonl` of this artefact reads items."""


SHOTS = "shots"
"""Folder of the rows that solved examples come from, TASK.jsonl; nobody is scored on them."""


def run(run: Run) -> None:
    """Fill `run.out` with TASK.jsonl for every task asked for, the rows for shots, and the rows that are no items."""
    config: ItemsConfig = run.config
    sources = run.inputs["sources"]
    rejects, by_task = [], {}
    for name, files in find(sources, config).items():
        benchmark, source = BENCHMARKS[name], files.questions[0].relative_to(sources).parts[0]
        items, refused = read(benchmark, files)
        if not items:
            reason = f" (row {refused[0].row}: {refused[0].reason})" if refused else ""
            raise UserError(
                f"{files.questions[0]}: no item of {name} in it{reason}; check that it is the file of that benchmark"
            )
        _write_jsonl(run.out / f"{name}.jsonl", items)
        shots = read_shots(benchmark, files, config.shot_rows)
        if shots:
            _write_jsonl(run.out / SHOTS / f"{name}.jsonl", shots)
        rejects += [{"task": name, "source": source, **asdict(reject)} for reject in refused]
        by_task[name] = {
            "items": len(items),
            "rejects": len(refused),
            "shots": len(shots),
            "source": source,
            "licence": _licence(sources / source),
            "measures": benchmark.measures,
            "chance": chance(benchmark, items),
        }
        run.log(f"{name}: {len(items)} items from {source}, {len(refused)} rows set aside")
    _write_jsonl(run.out / REJECTS, rejects)
    run.write_metrics({"items": sum(t["items"] for t in by_task.values()), "rejects": len(rejects), "by_task": by_task})


def find(sources: Path, config: ItemsConfig) -> dict[str, Found]:
    """Task name -> its files: for the tasks named, or for every task (of the suite) whose files some source holds.

    Raises:
        UserError: a task's file is in no source or in two, or no source holds any benchmark.
    """
    folder = Folder(sources)
    members = sorted(b.name for b in suite(config.suite)) if config.suite else sorted(BENCHMARKS)
    found = {}
    for name in members if config.tasks is None else config.tasks:
        files = locate(BENCHMARKS[name], folder, config.files.get(name, ""), config.shot_files.get(name, ""))
        if files:
            found[name] = files
        elif config.tasks is not None:
            raise UserError(
                f"data for {name} not found: no source in {sources} holds {expected(BENCHMARKS[name])}; "
                f"add one to collect.sources, or leave {name} out of items.tasks"
            )
    if not found:
        raise UserError(f"no source in {sources} holds items of any benchmark; add one to collect.sources")
    return found


def read(benchmark: Benchmark, files: Found) -> tuple[list[Item], list[Reject]]:
    """All well-formed items of a benchmark's files, with ids that name task and row, and the other rows."""
    if not files.packaged:
        return read_items(benchmark, files.questions, benchmark.name)
    if benchmark.hub_rows is not None:
        return read_rows(benchmark, benchmark.hub_rows(files.questions[0]), benchmark.name)
    assert benchmark.read is not None, f"{benchmark.name}: a package's file needs a reader"
    items, rejects = [], []
    for parsed in benchmark.read(files.questions[0]):
        if isinstance(parsed, Reject):
            rejects.append(parsed)
        else:
            row, fields = parsed
            items.append({"id": f"{benchmark.name}-{row:05d}", "task": benchmark.name, **fields})
    return items, rejects


def read_shots(benchmark: Benchmark, files: Found, rows: int) -> list[Item]:
    """The first rows of the split that shots come from; none where no file holds it."""
    if not files.shots or not rows:
        return []
    return read_items(benchmark, files.shots, f"{benchmark.name}-shot", rows)[0]


def load_shots(folder: Path) -> dict[str, list[Item]]:
    """Task name -> rows for shots, of an items artefact; a task without any draws them from its items."""
    return load(folder / SHOTS)


def load(folder: Path) -> dict[str, list[dict]]:
    """Task name -> items, of an items artefact."""
    return {
        path.stem: [json.loads(line) for line in path.read_text("utf-8").split("\n") if line]
        for path in sorted(folder.glob("*.jsonl"))
    }


def _write_jsonl(path: Path, rows: list[dict]) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), "utf-8")


def _licence(source: Path) -> str | None:
    about = source / "source.json"
    return json.loads(about.read_text()).get("licence") if about.is_file() else None
