"""One trained tokenizer for all tests: learning it takes most of the time."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from hypothesis import settings

settings.register_profile("headwater", deadline=None)  # a loaded machine is no failure
settings.load_profile("headwater")
sys.path.insert(0, str(Path(__file__).parent))  # importlib mode leaves the tests' own helpers out of reach

from corpora import real_documents, write_corpus  # noqa: E402

from headwater_tokenizer.cli import main  # noqa: E402

SMALL = ["--set", "vocab_size=1024", "--set", "reserved=4"]


@pytest.fixture(scope="session")
def corpus(tmp_path_factory) -> Path:
    return write_corpus(tmp_path_factory.mktemp("corpus") / "corpus", real_documents(), shards=2)


@pytest.fixture(scope="session")
def tokenizer(corpus, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("tokenizer")
    arguments = ["train", "--in", str(corpus), "--out", str(folder / "tokenizer"), "--work", str(folder / "work")]
    assert main([*arguments, *SMALL]) == 0
    return folder / "tokenizer"
