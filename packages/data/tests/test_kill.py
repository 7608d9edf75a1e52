"""Every stage that takes long, killed in the middle of its shards: it goes on, to the bytes of a run in peace."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import documents_folder, documents_frame

from headwater_data._contracts.manifest import SCHEMAS, Manifest, manifest_hash, write

SETTINGS = {
    "clean": ["steps.site_lines=true"],
    "signals": [],
    "dedup": ["substrings.min_words=30", "passages.unit=line"],
    "decontaminate": ["method=fuzzy"],
    "mix": ["documents_per_shard=40"],
}
KILLED_AFTER = {"clean": 60, "signals": 15, "dedup": 70, "decontaminate": 25, "mix": 20}
"""Shards; a pass has 40, so clean and dedup die in their second pass over the text."""


@pytest.fixture(scope="module")
def inputs(tmp_path_factory, topics) -> dict[str, Path]:
    """Documents in 40 shards, with copies among them, and an item."""
    folder = tmp_path_factory.mktemp("inputs")
    texts = [t for i, topic in enumerate(topics) for t in [topic] * (1 + (i % 9 == 0))]
    documents = documents_folder(
        folder / "documents", *[documents_frame(texts[i::40], prefix=f"{i}-") for i in range(40)]
    )
    (folder / "items").mkdir()
    item = {"id": "1", "task": "t", "text": " ".join(topics[5].split()[:40]), "query": "", "choices": [], "label": 0}
    (folder / "items" / "t.jsonl").write_text(json.dumps(item) + "\n")
    for kind in ("documents", "items"):
        write(folder / kind, Manifest(kind, SCHEMAS[kind], "headwater-data", "0", "test", {}))
    return {"documents": documents, "items": folder / "items"}


def start(stage: str, inputs: dict[str, Path], work: Path, out: Path) -> subprocess.Popen:
    wanted = ["documents", "items"] if stage == "decontaminate" else ["documents"]
    line = [sys.executable, "-c", "import sys; from headwater_data.cli import main; sys.exit(main())", stage]
    line += [a for name in wanted for a in ("--in", f"{name}={inputs[name]}")]
    line += ["--out", str(out), "--work", str(work)]
    line += [a for setting in (*SETTINGS[stage], "workers=1") for a in ("--set", setting)]
    return subprocess.Popen(line, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, start_new_session=True)


@pytest.mark.parametrize("stage", list(SETTINGS))
def test_a_killed_stage_goes_on_and_gives_the_same_bytes(tmp_path, inputs, stage):
    peace = start(stage, inputs, tmp_path / "peace", tmp_path / "expected")
    assert peace.wait() == 0, peace.stderr.read()  # type: ignore[union-attr]
    work, out = tmp_path / "work", tmp_path / "out"
    running, end, done = start(stage, inputs, work, out), time.monotonic() + 120, 0
    while running.poll() is None and done < KILLED_AFTER[stage]:
        assert time.monotonic() < end
        done = len(list(work.rglob("completions/*"))) if work.exists() else 0
        time.sleep(0.01)
    assert running.poll() is None, "it was over before it could be killed"
    os.killpg(running.pid, signal.SIGKILL)
    running.wait()
    assert not out.exists()
    last = start(stage, inputs, work, out)
    assert last.wait() == 0, last.stderr.read()  # type: ignore[union-attr]
    assert manifest_hash(out) == manifest_hash(tmp_path / "expected")
