"""`headwater-eval tasks`: every benchmark, what it measures, and whether its data is on this machine."""

from __future__ import annotations

import argparse
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ._contracts.errors import UsageError
from .benchmark import Benchmark
from .catalogue import SUITES, suite
from .items import load
from .locate import Folder, expected, locate

WIDEST = 72
"""Characters of a column."""


def arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the command."""
    parser.add_argument("--suite", default="full", metavar="NAME", help=f"one of {', '.join(SUITES)} (default: full)")
    parser.add_argument("--sources", type=Path, metavar="DIR", help="look for data here: what collect made")
    parser.add_argument("--items", type=Path, metavar="DIR", help="look for items here: what the stage items made")
    parser.add_argument("--all", action="store_true", help="a line for each of a family's tasks (BIG-bench: 286)")
    parser.add_argument("--json", action="store_true", help="everything that is known of each task, as JSON")
    parser.add_argument("--pages", type=Path, metavar="DIR", help="write a Markdown page a suite instead")


def run(args: argparse.Namespace) -> int:
    """Print the list, or write the pages."""
    if args.pages:
        from . import suite_pages  # which reads this module

        suite_pages.write(args.pages)
        return 0
    benchmarks = suite(args.suite)
    here = Here.look(args.sources, args.items)
    rows = [row(benchmark, here) for benchmark in benchmarks]
    print(json.dumps(rows, indent=1, ensure_ascii=False) if args.json else table(rows, args.all), flush=True)
    return 0


@dataclass(frozen=True)
class Here:
    """Where data may lie on this machine."""

    sources: Folder | None
    items: dict[str, int]
    caches: list[Path]

    @classmethod
    def look(cls, sources: Path | None, items: Path | None) -> Here:
        """Folders that a user names, and the hub's own caches."""
        for folder in (sources, items):
            if folder is not None and not folder.is_dir():
                raise UsageError(f"{folder}: no such folder")
        counts = {name: len(rows) for name, rows in load(items).items()} if items else {}
        return cls(Folder(sources) if sources else None, counts, hub_caches())

    def data(self, benchmark: Benchmark) -> str:
        """Where the data of a benchmark is, empty where it is not on this machine."""
        if benchmark.name in self.items:
            return f"items ({self.items[benchmark.name]})"
        if self.sources and (found := locate(benchmark, self.sources)):
            return found.questions[0].relative_to(self.sources.root).as_posix()
        if benchmark.hub and any(in_cache(benchmark, cache) for cache in self.caches):
            return "hub cache"
        return ""


def hub_caches() -> list[Path]:
    """The folders that huggingface_hub and datasets keep downloads in, by their own environment variables."""
    home = Path(os.environ.get("HF_HOME", Path.home() / ".cache/huggingface"))
    return [
        Path(os.environ.get("HF_HUB_CACHE", home / "hub")),
        Path(os.environ.get("HF_DATASETS_CACHE", home / "datasets")),
    ]


def in_cache(benchmark: Benchmark, cache: Path) -> bool:
    """Whether a cache holds a download of the benchmark's data set (of this config, where the cache says so)."""
    owner, _, name = benchmark.hub.partition("/")
    prepared = cache / f"{owner}___{name.lower()}"  # datasets: OWNER___NAME/CONFIG
    if prepared.is_dir():
        return (prepared / (benchmark.hub_config or "default")).is_dir()
    return any((cache / f"datasets--{owner}--{name}" / "snapshots").glob("*/*"))


def row(benchmark: Benchmark, here: Here) -> dict[str, Any]:
    """All that is known of a benchmark."""
    return {
        "task": benchmark.name,
        "family": benchmark.family,
        "measures": benchmark.measures,
        "metric": benchmark.metric,
        "kind": benchmark.kind,
        "shots": benchmark.shots,
        "shots_from": benchmark.shots_from,
        "licence": benchmark.licence or "not stated",
        "definition": definition(benchmark),
        "hub": benchmark.hub,
        "config": benchmark.hub_config,
        "split": benchmark.split,
        "shots_split": benchmark.shots_split,
        "home": benchmark.home,
        "package_file": benchmark.file,
        "expected": expected(benchmark),
        "suites": [*benchmark.suites, "full"],
        "data": here.data(benchmark),
    }


def definition(benchmark: Benchmark) -> str:
    """Whose prompt and metric it is asked with."""
    if not benchmark.stock:
        return "own"
    return f"lm-eval {benchmark.stock}" + (", repaired" if benchmark.repair else "")


def table(rows: list[dict[str, Any]], every: bool) -> str:
    """A line a task or family: name, shots, metric, licence, data here, what it measures, where the data comes from."""
    lines = [("task", "shots", "metric", "licence", "data", "measures", "from")]
    families: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for entry in rows:
        name = entry["family"] if entry["family"] and not every else entry["task"]
        families.setdefault((name, entry["measures"]), []).append(entry)
    for (name, _), entries in families.items():
        first = entries[0]
        held = [entry["data"] for entry in entries if entry["data"]]
        single = len(entries) == 1
        label = first["task"] if single else f"{name} ({len(entries)})"
        data = (held[0] if held else "-") if single else f"{len(held)} of {len(entries)}"
        origin = first["hub"] or first["home"]
        lines.append((label, str(first["shots"]), first["metric"], first["licence"], data, first["measures"], origin))
    widths = [min(WIDEST, max(len(line[i]) for line in lines)) for i in range(6)]
    text = ["  ".join([*(line[i].ljust(widths[i]) for i in range(6)), line[6]]).rstrip() for line in lines]
    with_data = sum(bool(entry["data"]) for entry in rows)
    return "\n".join([*text, "", f"{len(rows)} tasks, data of {with_data} on this machine"])
