"""Shared pieces: a documents artefact made of real text, and a stage run without the command line."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest
from hypothesis import settings

from headwater_data._contracts.manifest import SCHEMAS, Manifest, write
from headwater_data._contracts.stage import Run
from headwater_data.cli import STAGES
from headwater_data.documents import COLUMNS, part_name, write_part
from headwater_data.ingest import standard_library

settings.register_profile("untimed", deadline=None)  # how long an example takes is the machine's affair
settings.load_profile("untimed")


def run_stage(name: str, tmp: Path, inputs: dict[str, Path], **config) -> Path:
    """Run one stage in this process; returns its output folder, with a manifest."""
    from importlib import import_module

    from headwater_data._contracts.config import parse

    stage = next(s for s in STAGES if s.name == name)
    work, out = tmp / f"work-{name}", tmp / f"out-{name}"
    work.mkdir(exist_ok=True)
    out.mkdir()
    run = Run(stage, parse(stage.config, config, name), inputs, work, out, "test")
    module, _, function = stage.run.partition(":")
    getattr(import_module(module), function)(run)
    write(out, Manifest(stage.writes, SCHEMAS[stage.writes], "headwater-data", "0", name, {}))
    return out


def command(*arguments: str | Path, cwd: Path) -> subprocess.CompletedProcess:
    """The console script in a process of its own."""
    line = [sys.executable, "-c", "import sys; from headwater_data.cli import main; sys.exit(main())"]
    return subprocess.run([*line, *map(str, arguments)], cwd=cwd, capture_output=True, text=True)


def documents_frame(
    texts: list[str], source: str = "web", category: str = "internet", prefix: str = "d"
) -> pl.DataFrame:
    """Texts as documents `SOURCE/d0`, `SOURCE/d1`, ..."""
    columns = {name: [""] * len(texts) for name in COLUMNS}
    columns |= {
        "id": [f"{source}/{prefix}{i}" for i in range(len(texts))], "text": texts, "source": [source] * len(texts),
        "category": [category] * len(texts), "lang": ["en"] * len(texts), "meta": ["{}"] * len(texts),
    }  # fmt: skip
    return pl.DataFrame(columns)


def documents_folder(folder: Path, *frames: pl.DataFrame) -> Path:
    """A documents artefact with one shard a frame."""
    for number, frame in enumerate(frames):
        write_part(folder / part_name(number), frame)
    return folder


@pytest.fixture(scope="session")
def topics() -> list[str]:
    """Real English text: the language reference's topics."""
    return [data.decode() for _, data in standard_library.topics() if len(data) > 400]


@pytest.fixture(scope="session")
def modules() -> list[str]:
    """Real source code: the first 25 modules of the standard library."""
    found = []
    for _, data in standard_library.modules():
        found.append(data.decode())
        if len(found) == 25:
            return found
    return found
