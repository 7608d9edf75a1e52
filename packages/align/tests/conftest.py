"""Real, small inputs: the standard library's docstrings, and a sources artefact made of them."""

from __future__ import annotations

import inspect
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import settings

os.environ.setdefault("OMP_NUM_THREADS", "1")

from headwater_align._contracts import manifest  # noqa: E402

settings.register_profile("untimed", deadline=None)  # how long an example takes is the machine's affair
settings.load_profile("untimed")


def stdlib_docstrings() -> list[dict]:
    """Name, signature and docstring of functions that every Python carries."""
    import json.decoder
    import random
    import shutil
    import statistics
    import textwrap

    found = []
    for module in (statistics, textwrap, shutil, random, json.decoder):
        for name, thing in sorted(vars(module).items()):
            if not name.startswith("_") and inspect.isfunction(thing) and thing.__doc__:
                signature = str(inspect.signature(thing))
                found.append({"name": f"{module.__name__}.{name}", "signature": signature, "doc": thing.__doc__})
    return found


def _make_sources(folder: Path, sources: dict[str, tuple[str, dict[str, str]]]) -> Path:
    for name, (role, files) in sources.items():
        (folder / name).mkdir(parents=True)
        for file, text in files.items():
            (folder / name / file).write_text(text)
        about = {"name": name, "role": role, "licence": "PSF-2.0"}
        (folder / name / "source.json").write_text(json.dumps(about))
    manifest.write(folder, manifest.Manifest("sources", 1, "test", "0", "collect", {}))
    return folder


def _jsonl(rows: list) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


@pytest.fixture(scope="session")
def make_sources():
    """A function that writes a sources artefact to a folder from {name: (role, {file: text})}."""
    return _make_sources


@pytest.fixture(scope="session")
def jsonl():
    """A function that turns rows into the text of a JSONL file."""
    return _jsonl


@pytest.fixture(scope="session")
def docstring_sources(tmp_path_factory) -> Path:
    rows = _jsonl(stdlib_docstrings())
    return _make_sources(
        tmp_path_factory.mktemp("in") / "sources", {"docstrings": ("corpus", {"docstrings.jsonl": rows})}
    )


SPECIAL_TOKENS = ["<|endoftext|>", "<|pad|>", "<|system|>", "<|user|>", "<|assistant|>", "<|end|>"]


@pytest.fixture(scope="session")
def byte_tokenizer():
    """A tokenizer with one token a byte and the special tokens of the chat format."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({letter: i for i, letter in enumerate(alphabet)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(token, special=True) for token in SPECIAL_TOKENS])
    return tokenizer


@pytest.fixture(scope="session")
def base_model(byte_tokenizer, tmp_path_factory) -> Path:
    """A language model's export with fresh weights: one token a byte, 2 layers, 32 wide, context 256."""
    import torch

    from headwater_model import gpt, pretrained, runtime
    from headwater_model.config import ModelConfig

    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("model")
    names = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "<|endoftext|>", "pad_token": "<|pad|>"}
    (folder / "tokenizer").mkdir()
    byte_tokenizer.save(str(folder / "tokenizer" / "tokenizer.json"))
    (folder / "tokenizer" / "tokenizer_config.json").write_text(json.dumps(names))
    runtime.initialize(seed=1)
    config = ModelConfig(layers=2, hidden=32, heads=2, vocab=264, context=256)
    pretrained.save(folder / "export", gpt.build(config, seed=1), config, folder / "tokenizer", "lm")
    manifest.write(folder / "export", manifest.Manifest("export", 1, "test", "0", "export", {}))
    return folder / "export"


def _run(stage: str, inputs: dict[str, Path], out: Path, *options: str, code: int = 0) -> Path:
    from headwater_align.cli import main

    given = [part for name, folder in inputs.items() for part in ("--in", f"{name}={folder}")]
    assert main([stage, *given, "--out", str(out), "--work", f"{out}.work", *options]) == code
    return out


def _kill_when(there: Callable[[], object], arguments: list[str]) -> None:
    program = "import sys; from headwater_align.cli import main; sys.exit(main(sys.argv[1:]))"
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen([sys.executable, "-W", "ignore", "-c", program, *arguments], env=environment)
    deadline = time.monotonic() + 120
    while not there():
        assert process.poll() is None and time.monotonic() < deadline, "ended too early, or too slow"
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.wait()


@pytest.fixture(scope="session")
def kill_when():
    """A function that runs the command line in a process of its own and kills it with -9 once something is there."""
    return _kill_when


@pytest.fixture(scope="session")
def instructions(tmp_path_factory) -> Path:
    """Questions about numbers whose answers are letters, a's as often as b's."""
    rows = [{"prompt": f"Number {i}?", "completion": ("a" if i % 2 else "b") * (4 + i % 5)} for i in range(120)]
    folder = tmp_path_factory.mktemp("instructions")
    _make_sources(folder / "sources", {"s": ("instructions", {"rows.jsonl": _jsonl(rows)})})
    return _run("instructions", {"sources": folder / "sources"}, folder / "out", "--set", "heldout_fraction=0.25")


@pytest.fixture(scope="session")
def make_preferences():
    """A function that writes a preferences artefact of records to a folder."""

    def make(folder: Path, train: list[dict], heldout: list[dict]) -> Path:
        folder.mkdir(parents=True)
        for side, records in (("train", train), ("heldout", heldout), ("rejects", [])):
            (folder / f"{side}.jsonl").write_text(_jsonl(records))
        kind = "preferences"
        manifest.write(folder, manifest.Manifest(kind, manifest.SCHEMAS[kind], "test", "0", kind, {}))
        return folder

    return make


def ranking(name: str, asked: str, responses: list[str], ranks: list[int], **more: object) -> dict:
    """A preferences record."""
    prompt = [{"role": "user", "content": asked}]
    about = {"id": name, "source": "s", "licence": "none", "split": None, "prompt": prompt}
    return {**about, "responses": responses, "ranks": ranks, **more}


@pytest.fixture(scope="session")
def make_ranking():
    """A function that makes a preferences record of (id, question, responses, ranks, more keys)."""
    return ranking


@pytest.fixture(scope="session")
def preferences(make_preferences, tmp_path_factory) -> Path:
    """Rankings of two or three answers: the more a's, the better, of any length."""
    sides: tuple[list[dict], list[dict]] = ([], [])
    for i in range(160):
        texts, ranks = ["b" * (3 + 5 * i % 7), "a" * (3 + i % 7)], [2, 1]
        if i % 5 == 0:
            texts, ranks = [*texts, "ab" * (2 + i % 3)], [3, 1, 2]
        about = {"source": f"s{i % 2}", "labeller": None if i % 3 else f"w{i % 2}"}
        sides[i % 4 == 0].append(ranking(f"{i:03d}", f"Number {i}?", texts, ranks, **about))
    return make_preferences(tmp_path_factory.mktemp("preferences") / "out", *sides)


SFT = ["optimizer.lr=0.01", "epochs=4", "batch_size=16", "checkpoint_every=5"]
REWARD = ["optimizer.lr=0.01", "epochs=2", "batch_size=16", "checkpoint_every=2"]
DPO = ["optimizer.lr=0.003", "batch_size=16", "micro_batch=16", "checkpoint_every=2"]
PPO = [
    "batch_size=32",
    "minibatches=2",
    "micro_batch=16",
    "policy_optimizer.lr=0.003",
    "value_optimizer.lr=0.003",
    "max_prompt_length=40",
    "max_response_length=12",
    "checkpoint_every=2",
    "normalise_samples=64",
]


def _set(options: list[str]) -> list[str]:
    return [part for option in options for part in ("--set", option)]


@pytest.fixture(scope="session")
def sft_model(base_model, instructions, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("sft") / "out"
    return _run("sft", {"model": base_model, "instructions": instructions}, out, *_set(SFT))


@pytest.fixture(scope="session")
def reward_model(sft_model, preferences, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("reward") / "out"
    return _run("reward", {"model": sft_model, "preferences": preferences}, out, *_set(REWARD))


@pytest.fixture(scope="session")
def reward_inputs(sft_model, preferences, instructions) -> dict[str, Path]:
    return {"model": sft_model, "preferences": preferences, "instructions": instructions}


@pytest.fixture(scope="session")
def run_reward(reward_inputs):
    """A function that runs the stage into FOLDER/out with more options or inputs; the folder, None on failure."""

    def run(folder: Path, *options: str, code: int = 0, **inputs: Path) -> Path | None:
        given = [part for option in options for part in ("--set", option)]
        out = _run("reward", {**reward_inputs, **inputs}, folder / "out", *_set(REWARD), *given, code=code)
        return None if code else out

    return run


@pytest.fixture(scope="session")
def token_dataset(tmp_path_factory) -> Path:
    """A Megatron dataset of two documents that count from 0 to 96 again and again."""
    import numpy as np
    import torch
    from megatron.core.datasets.indexed_dataset import IndexedDatasetBuilder

    folder = tmp_path_factory.mktemp("tokens")
    builder = IndexedDatasetBuilder(str(folder / "train.bin"), dtype=np.uint16)
    for start in (0, 2):
        builder.add_document(torch.arange(start * 97, (start + 2) * 97) % 97, [194])
    builder.finalize(str(folder / "train.idx"))
    manifest.write(folder, manifest.Manifest("tokens", 1, "test", "0", "encode", {}))
    return folder


@pytest.fixture(scope="session")
def dpo_inputs(sft_model, preferences) -> dict[str, Path]:
    return {"model": sft_model, "preferences": preferences}


@pytest.fixture(scope="session")
def run_dpo(dpo_inputs):
    """A function that runs the stage into FOLDER/out with more options; the folder, None on failure."""

    def run(folder: Path, *options: str, code: int = 0) -> Path | None:
        out = _run("dpo", dpo_inputs, folder / "out", *_set([*DPO, *options]), code=code)
        return None if code else out

    return run


@pytest.fixture(scope="session")
def ppo_inputs(sft_model, reward_model, instructions) -> dict[str, Path]:
    return {"policy": sft_model, "reward": reward_model, "instructions": instructions}


@pytest.fixture(scope="session")
def run_ppo(ppo_inputs):
    """A function that runs the stage into FOLDER/out with more options and gives the output folder, None on failure."""

    def run(folder: Path, *options: str, code: int = 0) -> Path | None:
        out = _run("ppo", ppo_inputs, folder / "out", *_set(PPO), *options, code=code)
        return None if code else out

    return run


@pytest.fixture(scope="session")
def stage_runs(
    base_model, instructions, reward_inputs, dpo_inputs, ppo_inputs
) -> dict[str, tuple[dict[str, Path], list[str]]]:
    """{stage: (inputs, options)} of the stages that a test kills and resumes."""
    return {
        "sft": ({"model": base_model, "instructions": instructions}, _set(SFT)),
        "reward": (reward_inputs, _set([*REWARD, "dropout=0.1"])),
        "dpo": (dpo_inputs, _set([*DPO, "epochs=2"])),
        "ppo": (ppo_inputs, _set([*PPO, "steps=8", "kl_target=0.5"])),
    }
