"""`headwater-eval fetch`: the rows of benchmarks from the hub, or from its cache, into files that `items` reads.

The one command of this package that may use the network, and only where it is told to. What it writes is a source of
kind `local` and role `items`: FOLDER/TASK/SPLIT.parquet.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Any

from ._contracts.errors import UsageError, UserError
from .benchmark import Benchmark
from .catalogue import BENCHMARKS, suite, unknown_task


def arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the command."""
    parser.add_argument("tasks", nargs="*", metavar="TASK", help="benchmarks, by name")
    parser.add_argument("--suite", metavar="NAME", help="or all of a suite (headwater-eval tasks --help names them)")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="where TASK/SPLIT.parquet shall be")
    parser.add_argument("--network", action="store_true", help="download what the hub's cache lacks")


def run(args: argparse.Namespace) -> int:
    """Fetch one after the other; what is there already is kept."""
    benchmarks = [_known(name) for name in args.tasks] or (suite(args.suite) if args.suite else [])
    if not benchmarks:
        raise UsageError("name tasks, or --suite; `headwater-eval tasks` lists them")
    offline = "0" if args.network else "1"
    os.environ.update(HF_HUB_OFFLINE=offline, HF_DATASETS_OFFLINE=offline)  # read when datasets is imported
    missing = []
    for benchmark in benchmarks:
        if not benchmark.hub:
            print(f"[fetch] {benchmark.name}: not on the hub; its items come from {benchmark.home}", flush=True)
            continue
        try:
            for path, rows in fetch(benchmark, args.out):
                print(f"[fetch] {path.relative_to(args.out)}: {rows} rows", flush=True)
        except UserError as e:
            if len(benchmarks) == 1:
                raise
            missing.append(benchmark.name)
            print(f"[fetch] {e}", flush=True)
    if missing:
        raise UserError(f"data for {len(missing)} of {len(benchmarks)} tasks not found: {', '.join(missing)}")
    return 0


def _known(name: str) -> Benchmark:
    if name not in BENCHMARKS:
        raise UsageError(unknown_task(name))
    return BENCHMARKS[name]


def fetch(benchmark: Benchmark, out: Path) -> list[tuple[Path, int]]:
    """Write the split that is asked and the one that shots come from; paths and rows of what was written.

    Raises:
        UserError: neither the cache nor (where it may be asked) the hub has it.
    """
    written = []
    for split in dict.fromkeys(s for s in (benchmark.split, benchmark.shots_split) if s):
        path = out / benchmark.name / f"{split}.parquet"
        if path.exists():
            continue
        try:
            rows = _load(benchmark, split)
        except Exception as e:  # of the many ways in which datasets and the hub fail, the first line says enough
            reason = (str(e).splitlines() or [type(e).__name__])[0][:200]
            raise UserError(
                f"data for {benchmark.name} not found: {benchmark.hub} {benchmark.hub_config} {split} is not in the "
                f"hub's cache or cannot be had ({reason}); try --network, or lay a file of its rows at "
                f"{benchmark.name}/{split}.jsonl of a source"
            ) from None
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(".part")
        rows.to_parquet(str(part))
        part.replace(path)
        written.append((path, len(rows)))
    return written


def _load(benchmark: Benchmark, split: str) -> Any:
    import datasets

    if benchmark.family == "arithmetic":  # files of JSON Lines, one a task, as in lm-eval's YAML
        file = f"hf://datasets/{benchmark.hub}/data/{benchmark.hub_config}.jsonl"
        return datasets.load_dataset("json", data_files={split: file}, split=split)
    return datasets.load_dataset(benchmark.hub, benchmark.hub_config or None, split=split)
