"""Real text that every Python carries, tokenized as the tokenizer package does, in artefacts as a user has them."""

from __future__ import annotations

import json
import os
import pydoc_data.topics
import sys
from collections.abc import Iterator
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).parent))  # importlib mode leaves the tests' own helpers out of reach

import numpy as np
import pytest
import torch
from hypothesis import settings
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from headwater_model import runtime
from headwater_model._contracts.manifest import Manifest, write
from headwater_model.config import ModelConfig

torch.set_num_threads(1)
settings.register_profile("untimed", deadline=None)  # how long an example takes is the machine's affair
settings.load_profile("untimed")
SPECIAL = ["<|endoftext|>", "<|pad|>", "<|system|>", "<|user|>", "<|assistant|>", "<|end|>"]
SHAPE = ModelConfig(layers=2, hidden=64, heads=4, kv_heads=2, vocab=512, context=32)


@pytest.fixture(scope="session", autouse=True)
def one_rank() -> None:
    runtime.initialize(seed=1)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """A command that takes all cores (`generate`) leaves them to no test after it: on a busy machine threads of OpenMP
    that wait for each other made every later product 300 times as dear."""
    yield
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def shape() -> ModelConfig:
    return SHAPE


@pytest.fixture(scope="session")
def tokenizer_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tokenizer")
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=512,
        special_tokens=SPECIAL,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_documents()[:20], trainer)
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {"eos_token": "<|endoftext|>", "pad_token": "<|pad|>", "tokenizer_class": "PreTrainedTokenizerFast"}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    write(folder, Manifest("tokenizer", 1, "test", "0", "train", {}))
    return folder


@pytest.fixture(scope="session")
def tokens_folder(tokenizer_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    from megatron.core.datasets.indexed_dataset import IndexedDatasetBuilder

    folder = tmp_path_factory.mktemp("tokens")
    tokenizer = Tokenizer.from_file(str(tokenizer_folder / "tokenizer.json"))
    texts = _documents()
    counts: dict = {"vocabulary": tokenizer.get_vocab_size()}
    for split, part in (("heldout", texts[:3]), ("train", texts[3:])):
        builder = IndexedDatasetBuilder(str(folder / f"{split}.bin"), dtype=np.uint16)
        total = 0
        for text in part:
            ids = torch.tensor([*tokenizer.encode(text).ids, tokenizer.token_to_id("<|endoftext|>")])
            builder.add_document(ids, [len(ids)])
            total += len(ids)
        builder.finalize(str(folder / f"{split}.idx"))
        counts[split] = {"tokens": total, "bytes": sum(len(t.encode()) for t in part), "documents": len(part)}
    (folder / "metrics.json").write_text(json.dumps(counts))
    write(folder, Manifest("tokens", 1, "test", "0", "encode", {}))
    return folder


def _documents() -> list[str]:
    return [text for _, text in sorted(pydoc_data.topics.topics.items())][:40]
