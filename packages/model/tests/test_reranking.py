"""Re-ranking in `generate`: of the texts that were drawn the one that the judge scores lowest, blank ones last."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from headwater_model import gpt, pretrained, reranking
from headwater_model._contracts.errors import UsageError, UserError
from headwater_model.cli import main
from headwater_model.config import ModelConfig
from headwater_model.generation import generate


@pytest.fixture(scope="module")
def base(shape: ModelConfig, tokenizer_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("base")
    model = gpt.build(shape, seed=5)
    torch.nn.init.normal_(model.output_layer.weight, std=0.3, generator=torch.Generator().manual_seed(5))
    pretrained.save(folder, model, shape, tokenizer_folder)
    return folder


@pytest.fixture
def judges(monkeypatch: pytest.MonkeyPatch) -> str:
    """A module of judges: how often a letter stands in a text, and one that reads the letter from a folder."""
    module = ModuleType("own_judges")

    class FromFolder:
        def __init__(self, folder: Path):
            self.letter = (folder / "letter").read_text()

        def scores(self, texts: list[str]) -> list[int]:
            return [text.count(self.letter) for text in texts]

    module.short = lambda texts: [len(text) for text in texts]
    module.load = FromFolder
    module.broken = lambda texts: [float("nan")] * len(texts)
    monkeypatch.setitem(sys.modules, "own_judges", module)
    return "own_judges"


@given(st.lists(st.tuples(st.sampled_from(["", " \n", "a", "b"]), st.floats(0, 1)), min_size=1))
def test_no_candidate_with_text_has_a_lower_score_than_the_chosen_one(drawn) -> None:
    texts, scores = [text for text, _ in drawn], [score for _, score in drawn]
    chosen = reranking.choose(texts, lambda _: scores)
    said = [i for i, text in enumerate(texts) if text.strip()] or list(range(len(texts)))
    assert chosen in said and scores[chosen] == min(scores[i] for i in said)
    assert chosen == min(i for i in said if scores[i] == scores[chosen])


def test_generate_keeps_the_one_of_its_candidates_that_the_judge_prefers(base, judges, tmp_path, capsys) -> None:
    options = ["generate", "--model", str(base), "--prompt", "The", "--max-tokens", "12", "--seed", "3"]
    assert main([*options, "--rerank", "5", "--judge", f"{judges}:short"]) == 0
    said = capsys.readouterr().out.removeprefix("The").removesuffix("\n")
    loaded = pretrained.load(base)
    prompt = [loaded.end_of_text, *loaded.tokenizer.encode("The").ids]
    drawn = generate(
        loaded.model, [prompt] * 5, 12, 0.8, top_p=0.95, stop_ids=[loaded.end_of_text], seeds=[15, 16, 17, 18, 19]
    )
    texts = [loaded.tokenizer.decode(list(one.tokens)) for one in drawn]
    assert said == min((text for text in texts if text.strip()), key=len)
    (tmp_path / "letter").write_text("e")
    assert main([*options, "--rerank", "5", "--judge", f"{judges}:load={tmp_path}"]) == 0
    assert capsys.readouterr().out.removeprefix("The").count("e") == min(t.count("e") for t in texts if t.strip())


def test_what_cannot_be_reranked_is_one_line(base, judges, capsys) -> None:
    options = ["generate", "--model", str(base), "--prompt", "The", "--max-tokens", "4"]
    for more, why in (
        (["--rerank", "4"], "give both"),
        (["--judge", f"{judges}:short"], "give both"),
        (["--rerank", "1", "--judge", f"{judges}:short"], "2 candidates or more"),
        (["--rerank", "2", "--judge", f"{judges}:short", "--temperature", "0"], "makes them differ"),
        (["--rerank", "2", "--judge", f"{judges}:absent"], "write MODULE:FUNCTION"),
        (["--rerank", "2", "--judge", f"{judges}:broken"], "no number"),
    ):
        assert main([*options, *more]) > 0
        assert why in capsys.readouterr().err.splitlines()[-1]
    with pytest.raises(UsageError):
        reranking.judge("no_such_module_at_all:f")
    with pytest.raises(UserError, match="1 scores for 2 texts"):
        reranking.choose(["a", "b"], lambda texts: [0.0])
