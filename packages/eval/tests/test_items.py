"""Stage items: every benchmark that the sources hold, in one schema, with the other rows set aside."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from headwater_eval._contracts import manifest as artefacts
from headwater_eval.cli import main
from headwater_eval.items import REJECTS, load


def make(sources: Path, tmp_path: Path, *options: str) -> Path:
    out = tmp_path / "items"
    assert main(["items", "--in", str(sources), "--out", str(out), "--work", str(tmp_path / "work"), *options]) == 0
    return out


def test_every_benchmark_found_becomes_a_file_in_one_schema(sources: Path, tmp_path: Path) -> None:
    out = make(sources, tmp_path)
    items = load(out)
    assert {name: len(rows) for name, rows in items.items()} == {"boolq": 2, "piqa": 2, "crows_pairs_english": 3}
    for name, rows in items.items():
        for row in rows:
            assert row["task"] == name and row["id"].startswith(name) and row["text"]
            assert 0 <= row["label"] < len(row["choices"])
    assert items["piqa"][0]["text"] == "dresser finish, woodgrain with  bobby pin"
    assert artefacts.verify(out, ("items",)).stage == "items"


def test_malformed_rows_are_counted_and_set_aside_with_their_reason(sources: Path, tmp_path: Path) -> None:
    out = make(sources, tmp_path)
    rejects = [json.loads(line) for line in (out / REJECTS).read_text().splitlines()]
    assert [(r["task"], r["row"]) for r in rejects] == [("boolq", 3), ("boolq", 4)]
    assert "neither True nor False" in rejects[0]["reason"]
    metrics = json.loads((out / "metrics.json").read_text())
    assert metrics["rejects"] == 2 and metrics["by_task"]["boolq"]["licence"] == "Apache-2.0"


def test_the_same_sources_give_the_same_bytes(sources: Path, tmp_path: Path) -> None:
    first = artefacts.manifest_hash(make(sources, tmp_path))
    assert artefacts.manifest_hash(make(sources, tmp_path / "again")) == first


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--set", "tasks=[openbookqa]"], "data for openbookqa not found"),
        (["--set", "tasks=[boolk]"], "unknown task boolk"),
        (["--set", "task=[boolq]"], "did you mean tasks?"),
    ],
)
def test_a_task_that_cannot_be_made_is_one_line(sources: Path, tmp_path: Path, capsys, options, says) -> None:
    assert main(["items", "--in", str(sources), "--out", str(tmp_path / "o"), "--work", str(tmp_path / "w"), *options])
    error = capsys.readouterr().err
    assert says in error and error.count("\n") == 1 and not (tmp_path / "o").exists()


def test_a_benchmark_in_two_sources_or_without_any_item_is_refused(
    tmp_path: Path, capsys, write_artefact, write_jsonl
) -> None:
    folder = tmp_path / "sources"
    write_jsonl(folder / "a/BoolQ/dev.jsonl", [{"question": "no gold"}])
    write_artefact(folder, "sources")
    assert main(["items", "--in", str(folder), "--out", str(tmp_path / "o"), "--work", str(tmp_path / "w")]) == 1
    assert "no item of boolq" in capsys.readouterr().err
    write_jsonl(folder / "b/BoolQ/dev.jsonl", [])
    write_artefact(folder, "sources")
    assert main(["items", "--in", str(folder), "--out", str(tmp_path / "o"), "--work", str(tmp_path / "w")]) == 1
    assert "two sources" in capsys.readouterr().err
