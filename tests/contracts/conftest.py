"""The counting package on the path, and texts for it to count."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import settings

from headwater_data._contracts import manifest

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))
settings.register_profile("contracts", deadline=None)
settings.load_profile("contracts")


@pytest.fixture
def texts(tmp_path) -> Path:
    """An artefact of ten texts: text-0 holds no word, text-1 one, and so on."""
    folder = tmp_path / "texts"
    folder.mkdir()
    for number in range(10):
        (folder / f"text-{number}.txt").write_text("weir " * number)
    manifest.write(folder, manifest.Manifest("documents", 1, "headwater-test", "0.1.0", "write", {}))
    return folder


@pytest.fixture
def command(texts, tmp_path):
    """The stage as a command; a keyword that is a path or number is an environment variable's value."""

    def build(
        *more: str, out: Path = tmp_path / "out", work: Path = tmp_path / "work", source: Path = texts
    ) -> list[str]:
        start = [sys.executable, "-m", "headwater_counting.cli", "count"]
        return [*start, "--in", f"texts={source}", "--out", str(out), "--work", str(work), *more]

    return build


@pytest.fixture
def environment():
    """The environment of such a command, outside any DVC."""

    def build(**more: str) -> dict[str, str]:
        plain = {name: value for name, value in os.environ.items() if not name.startswith("DVC_")}
        return plain | {"PYTHONPATH": str(HERE)} | more

    return build


@pytest.fixture
def count(command, environment):
    """Run the stage in a process of its own to its end."""

    def run(*more: str, pause_s: float = 0, **places: Path) -> subprocess.CompletedProcess:
        env = environment(COUNTING_PAUSE_S=str(pause_s))
        return subprocess.run(command(*more, **places), env=env, capture_output=True, text=True, timeout=60)

    return run
