"""Rounds of labels as DVC stages: sampled, ranked by a simulated labeller, imported; each round starts from the last.

The policy is a tiny model with fresh weights; the stages are dvc.yaml's own.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import yaml

from headwater_align._contracts import manifest as artefacts
from headwater_align.cli import main as align
from tests.conftest import copy_tree, dvc, set_scale

ROUNDS = {"r1": {"policy": "ppo", "reward": "reward"}, "r2": {"policy": "ppo-r1", "reward": "reward-r1"}}
SPECIAL = ["<|endoftext|>", "<|pad|>", "<|system|>", "<|user|>", "<|assistant|>", "<|end|>"]


def set_rounds(tree: Path, rounds: dict) -> None:
    params = tree / "params.yaml"
    params.write_text(re.sub(r"^rounds: .*$", f"rounds: {json.dumps(rounds)}", params.read_text(), flags=re.M))


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A copy of the tree at scale smoke with two rounds."""
    found = copy_tree(tmp_path / "headwater")
    set_scale(found, "smoke")
    set_rounds(found, ROUNDS)
    return found


def write_policy(folder: Path) -> None:
    """A language model's export with fresh weights: one token a byte, 2 layers, 32 wide."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

    from headwater_model import gpt, pretrained, runtime
    from headwater_model.config import ModelConfig

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({letter: i for i, letter in enumerate(letters)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(token, special=True) for token in SPECIAL])
    own = folder.with_name("tokenizer-of-policy")
    own.mkdir(parents=True)
    tokenizer.save(str(own / "tokenizer.json"))
    names = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": SPECIAL[0], "pad_token": SPECIAL[1]}
    (own / "tokenizer_config.json").write_text(json.dumps(names))
    runtime.initialize(seed=1)
    config = ModelConfig(layers=2, hidden=32, heads=2, vocab=264, context=128)
    pretrained.save(folder, gpt.build(config, seed=1), config, own, "lm")
    artefacts.write(folder, artefacts.Manifest("export", artefacts.SCHEMAS["export"], "test", "0", "export", {}))


def write_instructions(tree: Path) -> None:
    source = tree / "made" / "s"
    source.mkdir(parents=True)
    (source / "source.json").write_text(json.dumps({"name": "s", "role": "instructions", "licence": "x"}))
    rows = [{"prompt": f"Number {i}?", "completion": f"It is {i}."} for i in range(60)]
    (source / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    about = artefacts.Manifest("sources", artefacts.SCHEMAS["sources"], "test", "0", "collect", {})
    artefacts.write(source.parent, about)
    given = ["--in", f"sources={source.parent}", "--out", str(tree / "artefacts/instructions")]
    assert align(["instructions", *given, "--work", str(tree / "made" / "work")]) == 0


def simulated_labeller(tree: Path, name: str, labeller: str) -> None:
    """A test double for a person: who says that the response with more distinct characters is better."""
    rankings = []
    for line in (tree / f"artefacts/sheet-{name}/key.jsonl").read_text().splitlines():
        task = json.loads(line)
        scores = {response: len(set(text)) for response, text in zip(task["names"], task["responses"], strict=True)}
        order = sorted(set(scores.values()), reverse=True)
        rankings.append({"task": task["task"], "ranks": {r: order.index(s) + 1 for r, s in scores.items()}})
    saved = {"format": "headwater-labels", "version": 1, "labeller": labeller, "rankings": rankings}
    folder = tree / "labels" / name
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{labeller}.json").write_text(json.dumps(saved))


def edges(tree: Path, target: str) -> set[tuple[str, str]]:
    return set(re.findall(r'"([^"]+)" -> "([^"]+)"', dvc(tree, "dag", "--dot", target).stdout))


def test_a_round_starts_from_the_policy_and_the_reward_model_of_the_round_before(tree: Path) -> None:
    found = edges(tree, "round-ppo@r2")
    for name, policy, reward in (("r1", "ppo", "reward"), ("r2", "round-ppo@r1", "round-reward@r1")):
        assert {
            (policy, f"round-sample@{name}"), (f"round-sample@{name}", f"round-sheet@{name}"),
            (f"round-sheet@{name}", f"round-labels@{name}"), (f"round-labels@{name}", f"round-preferences@{name}"),
            (f"round-preferences@{name}", f"round-reward@{name}"), (reward, f"round-reward@{name}"),
            (f"round-reward@{name}", f"round-ppo@{name}"), (policy, f"round-ppo@{name}"),
        } <= found  # fmt: skip


def test_without_rounds_the_lineage_has_none(tmp_path: Path) -> None:
    plain = copy_tree(tmp_path / "headwater")
    listed = dvc(plain, "stage", "list").stdout
    assert "report" in listed and "round-" not in listed


def test_a_round_goes_from_completions_to_labels_and_a_second_labeller_runs_no_more_than_it_must(tree: Path) -> None:
    (tree / "artefacts").mkdir()
    write_policy(tree / "artefacts/ppo")
    write_instructions(tree)
    stages = yaml.safe_load((tree / "dvc.yaml").read_text())["stages"]
    own = {"stages": {name: stage for name, stage in stages.items() if name.startswith("round-")}}
    (tree / "dvc.yaml").write_text(yaml.safe_dump(own, sort_keys=False))
    (tree / "dvc.lock").unlink(missing_ok=True)
    dvc(tree, "repro", "round-sheet@r1")
    told = dvc(tree, "repro", "--single-item", "round-labels@r1", check=False)
    assert told.returncode and "labels/r1" in told.stdout  # people have not answered yet
    simulated_labeller(tree, "r1", "ann")
    dvc(tree, "repro", "round-labels@r1")
    first = [json.loads(line) for line in (tree / "artefacts/labels-r1/labels.jsonl").read_text().splitlines()]
    assert first and all(r["policies"] == ["ppo"] * len(r["responses"]) and r["round"] == "r1" for r in first)
    simulated_labeller(tree, "r1", "bob")
    out = dvc(tree, "repro", "round-labels@r1").stdout
    assert [line.split("'")[1] for line in out.splitlines() if line.startswith("Running stage")] == ["round-labels@r1"]
    metrics = json.loads((tree / "artefacts/labels-r1/metrics.json").read_text())
    assert metrics["labels"] == 2 * len(first) and metrics["agreement"]["value"] == 1.0
