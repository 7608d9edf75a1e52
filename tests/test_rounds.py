"""Rounds of labels as DVC stages, run twice: sampled, ranked by a simulated labeller, learnt from; each round starts
from the last.

SFT model, reward model and policy that the first round starts from are tiny models with fresh weights; the stages are
dvc.yaml's own.
"""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest
import yaml

from headwater_align._contracts import manifest as artefacts
from headwater_align.cli import main as align
from tests.conftest import copy_tree, dvc, set_scale

ROUNDS = {"r1": {"policy": "ppo-ptx", "reward": "reward"}, "r2": {"policy": "ppo-r1", "reward": "reward-r1"}}
SPECIAL = ["<|endoftext|>", "<|pad|>", "<|system|>", "<|user|>", "<|assistant|>", "<|end|>"]


def replace(path: Path, pattern: str, text: str) -> None:
    path.write_text(re.sub(pattern, text, path.read_text(), count=1, flags=re.M))


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the tree at scale smoke with two rounds, for all tests to read."""
    found = copy_tree(tmp_path_factory.mktemp("rounds") / "headwater")
    set_scale(found, "smoke")
    replace(found / "params.yaml", r"^rounds: .*$", f"rounds: {json.dumps(ROUNDS)}")
    replace(found / "configs/smoke.yaml", r"^  steps: 6$", "  steps: 2")  # of PPO: two are enough to move a policy
    return found


@pytest.fixture(scope="module")
def handed_out(tree: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tree with what the rounds start from, where the first round's completions lie ready for labellers."""
    found = Path(shutil.copytree(tree, tmp_path_factory.mktemp("handed-out") / "headwater", symlinks=True))
    stages = yaml.safe_load((found / "dvc.yaml").read_text())["stages"]
    own = {"stages": {name: stage for name, stage in stages.items() if name.startswith("round-")}}
    (found / "dvc.yaml").write_text(yaml.safe_dump(own, sort_keys=False))
    (found / "dvc.lock").unlink(missing_ok=True)
    write_models(found / "artefacts")
    write_sources(found / "artefacts/sources")
    write_tokens(found / "artefacts/tokens")
    given = ["--in", f"sources={found}/artefacts/sources", "--out", f"{found}/artefacts/instructions"]
    assert align(["instructions", *given, "--set", "sources=[docstrings]", "--work", f"{found}/made"]) == 0
    dvc(found, "repro", "round-sheet@r1")
    return found


@pytest.fixture
def work(handed_out: Path, tmp_path: Path) -> Path:
    """A copy to go on with."""
    return Path(shutil.copytree(handed_out, tmp_path / "headwater", symlinks=True))


def write_models(folder: Path) -> None:
    """Exports with fresh weights: one token a byte, 2 layers, 32 wide; two language models and a reward model."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

    from headwater_model import gpt, pretrained, runtime
    from headwater_model.config import ModelConfig

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({letter: i for i, letter in enumerate(letters)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(token, special=True) for token in SPECIAL])
    own = folder.parent / "made" / "tokenizer"
    own.mkdir(parents=True)
    tokenizer.save(str(own / "tokenizer.json"))
    names = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": SPECIAL[0], "pad_token": SPECIAL[1]}
    (own / "tokenizer_config.json").write_text(json.dumps(names))
    runtime.initialize(seed=1)
    config = ModelConfig(layers=2, hidden=32, heads=2, vocab=264, context=128)
    for seed, (name, head) in enumerate((("sft", "lm"), ("ppo-ptx", "lm"), ("reward", "scalar"))):
        pretrained.save(folder / name, gpt.build(config, head, seed=seed), config, own, head)
        if head == "scalar":
            (folder / name / "reward.json").write_text('{"gain": 1.0, "bias": 0.0}')
        write_manifest(folder / name, "export")


def write_sources(folder: Path) -> None:
    """Questions with answers; called `docstrings`, which the scale smoke reads."""
    source = folder / "docstrings"
    source.mkdir(parents=True)
    (source / "source.json").write_text(json.dumps({"name": "docstrings", "role": "instructions", "licence": "x"}))
    rows = [{"prompt": f"Number {i}?", "completion": f"It is {i}."} for i in range(60)]
    (source / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    write_manifest(folder, "sources")


def write_tokens(folder: Path) -> None:
    """A Megatron dataset of one document."""
    import numpy as np
    import torch
    from megatron.core.datasets.indexed_dataset import IndexedDatasetBuilder

    folder.mkdir()
    builder = IndexedDatasetBuilder(str(folder / "train.bin"), dtype=np.uint16)
    builder.add_document(torch.arange(600) % 97, [600])
    builder.finalize(str(folder / "train.idx"))
    write_manifest(folder, "tokens")


def write_manifest(folder: Path, kind: str) -> None:
    artefacts.write(folder, artefacts.Manifest(kind, artefacts.SCHEMAS[kind], "test", "0", kind, {}))


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
    for name, policy, reward in (("r1", "ppo-ptx", "reward"), ("r2", "round-ppo@r1", "round-reward@r1")):
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


def test_without_labels_a_round_waits_and_a_second_labeller_runs_no_more_than_it_must(work: Path) -> None:
    told = dvc(work, "repro", "--single-item", "round-labels@r1", check=False)
    assert told.returncode and "labels/r1" in told.stdout  # people have not answered yet
    simulated_labeller(work, "r1", "ann")
    dvc(work, "repro", "round-labels@r1")
    first = [json.loads(line) for line in (work / "artefacts/labels-r1/labels.jsonl").read_text().splitlines()]
    assert first and all(r["policies"] == ["ppo-ptx"] * len(r["responses"]) and r["round"] == "r1" for r in first)
    simulated_labeller(work, "r1", "bob")
    out = dvc(work, "repro", "round-labels@r1").stdout
    assert [line.split("'")[1] for line in out.splitlines() if line.startswith("Running stage")] == ["round-labels@r1"]
    metrics = json.loads((work / "artefacts/labels-r1/metrics.json").read_text())
    assert metrics["labels"] == 2 * len(first) and metrics["agreement"]["value"] == 1.0


def test_two_rounds_run_whole_and_the_second_goes_on_from_the_first(work: Path) -> None:
    def made(name: str) -> Path:
        return work / "artefacts" / name

    def records(name: str) -> list[dict]:
        return [json.loads(line) for line in made(name).read_text().splitlines()]

    simulated_labeller(work, "r1", "ann")
    dvc(work, "repro", "round-sheet@r2")  # what round 1 has left to do, and the sampling of round 2
    simulated_labeller(work, "r2", "ann")
    dvc(work, "repro", "round-ppo@r2")

    for name, policy, reward in (("r1", "ppo-ptx", "reward"), ("r2", "ppo-r1", "reward-r1")):
        preferences = records(f"preferences-{name}/train.jsonl") + records(f"preferences-{name}/heldout.jsonl")
        of_people = [record for record in preferences if record["labeller"]]
        assert len(of_people) == len(records(f"labels-{name}/labels.jsonl")) > 0
        assert all((r["labeller"], r["round"], *set(r["policies"])) == ("ann", name, policy) for r in of_people)
        for stage, inputs in {
            f"completions-{name}": {"policy": policy},
            f"reward-{name}": {"start": reward, "model": "sft", "preferences": f"preferences-{name}"},
            f"ppo-{name}": {"policy": policy, "reference": "sft", "reward": f"reward-{name}", "tokens": "tokens"},
        }.items():
            read = artefacts.verify(made(stage)).inputs
            wanted = {role: artefacts.manifest_hash(made(given)) for role, given in inputs.items()}
            assert {role: read[role] for role in wanted} == wanted, stage
    # The KL is counted from SFT: a policy that is another begins with some, as it would not from itself.
    assert abs(records("ppo-r2/log.jsonl")[0]["kl"]) > 1e-3
