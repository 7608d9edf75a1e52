"""Where the rows of a benchmark lie: in a package's file, or in files of the hub's format that a convention names.

In any folder below the one that is searched, for a task NAME whose questions are the hub's split SPLIT:

    .../ENDING                                     the package's file that the catalogue names, such as BoolQ/dev.jsonl
    .../NAME/SPLIT.parquet (.jsonl, .json)         or NAME/SPLIT-00000-of-00002.parquet and so on, or NAME.jsonl
    .../OWNER/DATA SET/CONFIG/SPLIT-*.parquet      a copy of the hub's own repository (CONFIG or `data`)

Shots lie beside, under the name of their split.
"""

from __future__ import annotations

import re
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

from ._contracts.errors import UserError
from .benchmark import Benchmark
from .hub import ENDINGS

_SHARD = re.compile(r"-\d+-of-\d+$")


@dataclass(frozen=True)
class Found:
    """Files of one benchmark."""

    questions: list[Path]
    shots: list[Path]
    packaged: bool
    """The questions are a package's file, for `Benchmark.read` or `hub_rows`; else they are in the hub's format."""


class Folder:
    """The files below a folder, looked up by the end of their path."""

    def __init__(self, root: Path):
        self.root = root
        self.by_name: dict[str, list[Path]] = defaultdict(list)
        self.shards: dict[str, list[Path]] = defaultdict(list)
        """OWN PATH WITHOUT SHARD NUMBER AND ENDING -> its files; only formats of the hub."""
        for path in sorted(p for p in root.rglob("*") if p.is_file()):
            self.by_name[path.name].append(path)
            if path.suffix in ENDINGS:
                stem = path.relative_to(root).with_name(_SHARD.sub("", path.stem)).as_posix()
                self.shards[f"/{stem}"].append(path)
        self.stems: dict[str, list[str]] = defaultdict(list)
        for stem in self.shards:
            self.stems[stem.rsplit("/", 1)[1]].append(stem)

    def ending(self, ending: str) -> list[Path]:
        """Files whose path ends so, at a folder's border."""
        name = ending.rsplit("/", 1)[-1]
        return [p for p in self.by_name[name] if f"/{p.relative_to(self.root).as_posix()}".endswith(f"/{ending}")]

    def split(self, stem: str) -> list[list[Path]]:
        """The splits, shards together, whose path without shard number and ending ends so."""
        name = stem.rsplit("/", 1)[-1]
        return [self.shards[whole] for whole in self.stems[name] if whole.endswith(f"/{stem}")]


def locate(benchmark: Benchmark, folder: Folder, file: str = "", shots: str = "") -> Found | None:
    """The files of a benchmark, None where there are none.

    Args:
        file, shots: how the paths of its questions and shots end, where they keep to no convention.

    Raises:
        UserError: two files are as good as each other, or one that was named is not there.
    """
    found: list[tuple[list[Path], bool]] = []
    has_reader = benchmark.read is not None or benchmark.hub_rows is not None
    if file:
        found = [([path], has_reader and f"/{file}".endswith(f"/{benchmark.file}")) for path in folder.ending(file)]
        if not found:
            raise UserError(f"data for {benchmark.name} not found: no file below {folder.root} ends in {file}")
    else:
        if benchmark.file:
            found = [([path], has_reader) for path in folder.ending(benchmark.file)]
        for stem in _stems(benchmark, benchmark.split):
            found += [(paths, False) for paths in folder.split(stem) if paths not in [held for held, _ in found]]
    if len(found) > 1:
        shown = " and ".join(paths[0].relative_to(folder.root).as_posix() for paths, _ in found[:2])
        raise UserError(
            f"items of {benchmark.name} are in two sources: {shown}; leave one of them out of collect.sources, or name "
            f"one in items.files.{benchmark.name}"
        )
    if not found:
        return None
    return Found(found[0][0], _shots(benchmark, folder, shots), found[0][1])


def _shots(benchmark: Benchmark, folder: Folder, file: str) -> list[Path]:
    if file:
        if not (paths := folder.ending(file)):
            raise UserError(f"shots for {benchmark.name} not found: no file below {folder.root} ends in {file}")
        return paths[:1]
    stems = _stems(benchmark, benchmark.shots_split) if benchmark.shots_split else []
    return next((paths for stem in stems if stem != benchmark.name for paths in folder.split(stem)), [])


def _stems(benchmark: Benchmark, split: str) -> list[str]:
    named = [f"{benchmark.name}/{split}"] if split else []
    copies = (
        [f"{benchmark.hub}/{config}/{split}" for config in (benchmark.hub_config or "data",)] if benchmark.hub else []
    )
    whole = [benchmark.name] if split == benchmark.split else []
    return [*named, *copies, *whole]


def expected(benchmark: Benchmark) -> str:
    """What a user may put where, in words."""
    own = f"{benchmark.name}/{benchmark.split or 'test'}.parquet or .jsonl (rows of {benchmark.hub})"
    if not benchmark.hub:
        return benchmark.file
    return f"{benchmark.file} or {own}" if benchmark.file else own
