"""Artefacts and run records as the chapters read them.

The frame has verified every artefact's bytes before this runs, so a file that is there is as its stage
wrote it. What a stage may leave out (a file, a key) comes back as None or empty, and the chapter leaves it
out or names it; a file that is there but not of its format is an error that names it.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import polars as pl

from .._contracts.errors import UserError
from .._contracts.manifest import Manifest, manifest_hash

Json = dict[str, Any]

# Where each removed document is told of: a stage writes one file, or a folder of shards.
_REJECTS = ("rejects.parquet", "rejects/*.parquet")


@dataclass(frozen=True)
class Artefact:
    """One input: its place in the run, its folder and its manifest."""

    name: str
    folder: Path
    manifest: Manifest
    hash: str
    """sha256 of manifest.json: what other manifests call it."""

    @property
    def metrics(self) -> Json:
        """metrics.json, or an empty mapping."""
        return self.json("metrics.json") or {}

    def json(self, file: str) -> Json | None:
        """A JSON object; None where the artefact has no such file."""
        path = self.folder / file
        if not path.is_file():
            return None
        try:
            value = json.loads(path.read_bytes())
        except ValueError as e:
            raise UserError(f"{path}: not readable as JSON ({e}); make {self.name} again") from None
        if not isinstance(value, dict):
            raise UserError(f"{path}: a JSON object is needed; make {self.name} again")
        return value

    def json_lines(self, file: str) -> list[Json]:
        """A JSON Lines file's objects; empty where the artefact has no such file."""
        path = self.folder / file
        return list(self._lines(path)) if path.is_file() else []

    def _lines(self, path: Path) -> Iterator[Json]:
        with open(path, "rb") as lines:
            for number, line in enumerate(lines, 1):
                try:
                    value = json.loads(line) if line.strip() else None
                except ValueError as e:
                    raise UserError(
                        f"{path}, line {number}: not readable as JSON ({e}); make {self.name} again"
                    ) from None
                if isinstance(value, dict):
                    yield value

    def size(self) -> int:
        """Bytes of all its files."""
        return sum(entry["bytes"] for entry in self.manifest.files.values())

    def weights(self) -> int | None:
        """Numbers in model.safetensors, by its header; None where there is no such file."""
        path = self.folder / "model.safetensors"
        if not path.is_file():
            return None
        with open(path, "rb") as file:
            header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
        return sum(math.prod(tensor["shape"]) for name, tensor in header.items() if name != "__metadata__")

    def rejects(self) -> pl.LazyFrame | None:
        """The documents that this stage removed, or None where it keeps no account of them."""
        shards = [path for pattern in _REJECTS for path in sorted(self.folder.glob(pattern))]
        return pl.scan_parquet(shards) if shards else None


@dataclass(frozen=True)
class RunRecord:
    """What one stage's run cost. Not part of any artefact, since it differs from run to run."""

    name: str
    stage: str
    package: str
    version: str
    attempts: int
    wall_s: float
    cpu_s: float
    peak_rss_mb: float
    measured: Json = field(default_factory=dict)
    """Figures that the stage measured on its way, such as speeds."""


@dataclass(frozen=True)
class Lineage:
    """Everything that a report is made from."""

    artefacts: dict[str, Artefact]
    """In the order in which the stage declares its inputs, which is the data's way."""
    absent: tuple[str, ...] = ()
    """Inputs that the stage knows and was not given."""
    records: tuple[RunRecord, ...] = ()
    faults: tuple[str, ...] = field(default=())
    """Sentences on run records that could not be read."""

    def __getitem__(self, name: str) -> Artefact | None:
        return self.artefacts.get(name)

    def metrics(self, name: str) -> Json:
        """metrics.json of one artefact; empty where either is absent."""
        artefact = self[name]
        return artefact.metrics if artefact else {}

    def maker(self, digest: str) -> Artefact | None:
        """The artefact at hand whose manifest has this hash."""
        return next((a for a in self.artefacts.values() if a.hash == digest), None)


def load(folders: dict[str, Path], manifests: dict[str, Manifest], declared: Iterable[str], records: Path) -> Lineage:
    """Collect what the chapters need.

    Args:
        folders, manifests: verified inputs by name.
        declared: every input name that the stage knows, in the data's order.
        records: folder of run records; it may be absent.
    """
    names = [name.removesuffix("?") for name in declared]
    artefacts = {
        name: Artefact(name, folders[name], manifests[name], manifest_hash(folders[name]))
        for name in names
        if name in folders
    }
    read, faults = read_records(records)
    order = {(a.manifest.package, a.manifest.stage): i for i, a in reversed(list(enumerate(artefacts.values())))}
    own = [r for r in read if r.stage != "report"]
    placed = sorted(own, key=lambda r: (order.get((r.package, r.stage), len(order)), r.name))
    return Lineage(artefacts, tuple(n for n in names if n not in folders), tuple(placed), tuple(faults))


def read_records(folder: Path) -> tuple[list[RunRecord], list[str]]:
    """Run records by file name, and a sentence on every file that is none."""
    records, faults = [], []
    for path in sorted(Path(folder).glob("*.json")):
        try:
            value = json.loads(path.read_bytes())
            records.append(
                RunRecord(
                    path.stem, str(value["stage"]), str(value["package"]), str(value["version"]),
                    int(value["attempts"]), float(value["wall_s"]), float(value["cpu_s"]), float(value["peak_rss_mb"]),
                    dict(value.get("measured") or {}),
                )
            )  # fmt: skip
        except (OSError, ValueError, KeyError, TypeError) as e:
            faults.append(
                f"The run record {path.name} is not readable ({type(e).__name__}); its stage has no times here."
            )
    return records, faults


def chosen(key: str) -> str:
    """A draw that favours no order: sort by this and take the first few. The same key gives the same place."""
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()
