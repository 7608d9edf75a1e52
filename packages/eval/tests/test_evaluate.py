"""Stage evaluate on a small Megatron model with a real tokenizer: its scores, its artefact, kills and refusals."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch

from headwater_eval._contracts import manifest as artefacts
from headwater_eval.cli import main

pytest.importorskip("headwater_model", reason="evaluate scores models of headwater-model")

TEXT = Path(os.__file__).read_text()
SPECIAL = ["<|endoftext|>", "<|pad|>", "<|system|>", "<|user|>", "<|assistant|>", "<|end|>"]
OPTIONS = ["--set", "limit=2", "--set", "samples.max_new_tokens=4", "--set", "heldout.resamples=100"]


@pytest.fixture(scope="module")
def export(tmp_path_factory, write_artefact) -> Path:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    from headwater_model import gpt, pretrained, runtime
    from headwater_model.config import ModelConfig

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=384, special_tokens=SPECIAL, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator([TEXT], trainer)
    folder = tmp_path_factory.mktemp("tokenizer")
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps({"eos_token": SPECIAL[0], "pad_token": SPECIAL[1]}))
    runtime.initialize()
    config = ModelConfig(layers=1, hidden=32, heads=2, vocab=384, context=48)
    out = tmp_path_factory.mktemp("export")
    pretrained.save(out, gpt.build(config, seed=1), config, folder)
    return write_artefact(out, "export")


@pytest.fixture
def inputs(export: Path, sources: Path, tmp_path: Path, write_corpus) -> list[str]:
    assert main(["items", "--in", str(sources), "--out", str(tmp_path / "items"), "--work", str(tmp_path / "w")]) == 0
    corpus = write_corpus(tmp_path / "corpus", [TEXT], [TEXT[i : i + 900] for i in range(0, 6000, 900)])
    return ["--in", f"model={export}", "--in", f"items={tmp_path / 'items'}", "--in", f"corpus={corpus}"]


def evaluate(inputs: list[str], folder: Path, *options: str) -> Path:
    where = ["--out", str(folder / "out"), "--work", str(folder / "work")]
    assert main(["evaluate", *inputs, *where, *OPTIONS, *options]) == 0
    return folder / "out"


def test_log_likelihoods_equal_those_of_the_whole_softmax(export: Path) -> None:
    from headwater_eval import native
    from headwater_eval.lm import HeadwaterLM
    from headwater_model import forward

    scorer = native.load(export)
    context, continuation = scorer.encode(TEXT[:60])[:20], scorer.encode(" the path of the file")
    ((total, greedy),) = HeadwaterLM(scorer).score([(context, continuation)])
    tokens = torch.tensor([context + continuation])
    logits = forward.logits(scorer.model, tokens)[0, len(context) - 1 : -1].float()
    expected = logits.log_softmax(-1).gather(1, torch.tensor(continuation)[:, None]).sum()
    assert total == pytest.approx(float(expected), abs=1e-4)
    assert greedy == bool((logits.argmax(-1) == torch.tensor(continuation)).all())


def test_a_special_token_spelled_in_a_text_is_text(export: Path) -> None:
    from headwater_eval import native

    scorer = native.load(export)
    assert scorer.end_of_turn not in scorer.encode("so <|end|> of it")
    assert scorer.decode(scorer.encode("so <|end|> of it")) == "so <|end|> of it"
    chat = scorer.encode_chat("who <|end|>?")
    assert chat.count(scorer.end_of_turn) == 1 and scorer.decode(chat) == "who <|end|>?"


def test_every_score_has_a_count_an_interval_and_its_chance_level(inputs: list[str], tmp_path: Path) -> None:
    out = evaluate(inputs, tmp_path)
    metrics = json.loads((out / "metrics.json").read_text())
    assert {"boolq", "piqa", "piqa:acc", "crows_pairs_english", "crows_pairs_english:antistereo", "heldout",
            "heldout:prose0", "average"} <= set(metrics)  # fmt: skip
    for name, row in metrics.items():
        assert row["n"] >= 1 and row["low"] <= row["value"] <= row["high"], name
        assert (row["chance"] is None) == (row["kind"] == "text")
    assert 5 < metrics["heldout"]["value"] < 20  # an untrained model of 384 ids knows nothing
    rows = pq.read_table(out / "samples.parquet").to_pylist()
    assert [r["doc_id"] for r in rows if r["task"] == "boolq"] == ["boolq-00001", "boolq-00002"]
    assert all(len(r["logprobs"]) == len(r["choices"]) for r in rows)
    share = sum(r["correct"] for r in rows if r["task"] == "boolq") / 2
    assert metrics["boolq"]["value"] == share
    results = json.loads((out / "results.json").read_text())
    assert results["results"]["boolq"]["acc,none"] == share and results["n-samples"]["boolq"]["effective"] == 2
    generations = [json.loads(line) for line in (out / "generations.jsonl").read_text().splitlines()]
    assert {g["format"] for g in generations} == {"plain", "chat"}


def test_the_artefact_holds_no_path_and_no_address(inputs: list[str], tmp_path: Path) -> None:
    text = (evaluate(inputs, tmp_path) / "results.json").read_text()
    assert str(tmp_path) not in text and "site-packages" not in text and " at 0x" not in text


def test_killed_and_run_again_goes_on_and_ends_in_the_same_bytes(inputs: list[str], tmp_path: Path) -> None:
    expected = artefacts.read(evaluate(inputs, tmp_path / "whole")).files
    where = ["--out", str(tmp_path / "out"), "--work", str(tmp_path / "work")]
    program = "import sys; from headwater_eval.cli import main; sys.exit(main(sys.argv[1:]))"
    command = [sys.executable, "-c", program, "evaluate", *inputs, *where, *OPTIONS]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    first = process.stdout.readline()  # "[evaluate] boolq: done in ..."
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL and "boolq: done" in first and not (tmp_path / "out").exists()
    again = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    assert "boolq: done" not in again
    assert artefacts.read(tmp_path / "out").files == expected


@pytest.mark.parametrize("missing", ["tokenizer.json", "model.safetensors", "config.json"])
def test_a_model_folder_that_is_not_whole_is_one_line(
    inputs: list[str], export: Path, tmp_path: Path, capsys, write_artefact, missing: str
) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(export, broken, ignore=shutil.ignore_patterns(missing, "manifest.json"))
    write_artefact(broken, "export")
    given = [item.replace(f"model={export}", f"model={broken}") for item in inputs]
    assert main(["evaluate", *given, "--out", str(tmp_path / "o"), "--work", str(tmp_path / "w")]) == 1
    error = capsys.readouterr().err.strip()
    assert missing in error and "\n" not in error and not (tmp_path / "o").exists()


def test_shots_stand_before_questions_but_not_before_bias_pairs(inputs: list[str], tmp_path: Path) -> None:
    out = evaluate(inputs, tmp_path, "--set", "shots=1", "--set", "sampler=per_item")
    prompts = {r["doc_id"]: r["prompt"] for r in pq.read_table(out / "samples.parquet").to_pylist()}
    assert prompts["piqa-00001"].startswith("Question: Blender\nAnswer: grinds ice\n\nQuestion: dresser\n")
    assert prompts["boolq-00001"].count("Question: ") == 2 and prompts["crows_pairs_english-00001"] == ""


def test_more_shots_than_rows_is_one_line(inputs: list[str], tmp_path: Path, capsys) -> None:
    where = ["--out", str(tmp_path / "o"), "--work", str(tmp_path / "w")]
    assert main(["evaluate", *inputs, *where, "--set", "shots=2"]) == 1
    assert "boolq: 2 shots asked for, but there are only 1 rows" in capsys.readouterr().err


def test_a_task_without_items_is_one_line(inputs: list[str], tmp_path: Path, capsys) -> None:
    where = ["--out", str(tmp_path / "o"), "--work", str(tmp_path / "w")]
    assert main(["evaluate", *inputs, *where, "--set", "tasks=[openbookqa]"]) == 1
    assert "no items of openbookqa" in capsys.readouterr().err


def test_with_an_overlap_list_every_score_stands_beside_that_of_the_clean_items(
    inputs: list[str], tmp_path: Path
) -> None:
    folder = tmp_path / "overlap"
    folder.mkdir()
    (folder / "overlap.jsonl").write_text(
        json.dumps({"task": "boolq", "id": "boolq-00002", "contaminated": True}) + "\n"
    )
    tasks = {name: {"items": 2, "too_short": 0} for name in ("boolq", "piqa")}
    (folder / "metrics.json").write_text(json.dumps({"tasks": tasks}))
    made_from = {"items": artefacts.manifest_hash(tmp_path / "items")}
    about = artefacts.Manifest("documents", 1, "headwater-data", "0", "decontaminate", {}, made_from)
    artefacts.write(folder, about)
    out = evaluate(inputs, tmp_path, "--in", f"overlap={folder}")
    metrics = json.loads((out / "metrics.json").read_text())
    correct = {r["doc_id"]: r["correct"] for r in pq.read_table(out / "samples.parquet").to_pylist()}
    assert metrics["boolq:clean"]["n"] == metrics["boolq:dirty"]["n"] == 1
    assert metrics["boolq:clean"]["value"] == correct["boolq-00001"]
    assert metrics["boolq:dirty"]["value"] == correct["boolq-00002"]
    assert metrics["piqa:clean"]["value"] == metrics["piqa"]["value"] and "piqa:dirty" not in metrics
    assert metrics["piqa:acc:clean"]["n"] == 2 and not any(
        k.startswith("crows") and k.endswith("clean") for k in metrics
    )
