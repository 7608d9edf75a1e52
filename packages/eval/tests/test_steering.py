"""Steering in evaluation: what is written changes as asked, under a key of its own, and nothing else does."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("headwater_model")

from headwater_eval import models, samples, steering  # noqa: E402
from headwater_eval._contracts import manifest as artefacts  # noqa: E402
from headwater_eval._contracts.config import parse, resolved  # noqa: E402
from headwater_eval._contracts.errors import UsageError, UserError  # noqa: E402
from headwater_eval.cli import main  # noqa: E402
from headwater_eval.config import EvaluateConfig  # noqa: E402
from headwater_eval.engine import Instance  # noqa: E402
from headwater_eval.lm import HeadwaterLM  # noqa: E402
from headwater_eval.steering_config import RerankConfig  # noqa: E402
from headwater_eval.toxicity.judge import Judge  # noqa: E402
from headwater_eval.toxicity.linear import LinearModel  # noqa: E402

PROMPTS = ["The parser reads a", "Nobody knows what", "If the string is", "def load(fp):"]


@pytest.fixture(scope="module")
def folders(tmp_path_factory, save_model) -> tuple[Path, Path]:
    return tuple(save_model(tmp_path_factory.mktemp(name), seed) for name, seed in (("model", 1), ("anti", 2)))


@pytest.fixture(scope="module")
def classifier(tmp_path_factory, write_artefact) -> Path:
    """Finds the letter e foul: more of it, more so."""
    folder = tmp_path_factory.mktemp("classifier")
    texts = ["e e", "he", "we see", "eel", "a b", "no", "so it is", "I do"]
    LinearModel.train(texts, np.array([1, 1, 1, 1, 0, 0, 0, 0.0]), 4.0).save(folder)
    (folder / "model.json").write_text(json.dumps({"engine": "linear"}))
    (folder / "metrics.json").write_text(json.dumps({"auc": None}))
    return write_artefact(folder, "classifier")


@pytest.fixture
def items(tmp_path: Path, write_jsonl) -> Path:
    rows = [{"id": f"r{i}", "text": p, "query": p, "answers": [], "category": "toxic"} for i, p in enumerate(PROMPTS)]
    write_jsonl(tmp_path / "items/realtoxicityprompts.jsonl", rows)
    return tmp_path / "items"


def requests(**options) -> list[Instance]:
    options = {"until": [], "max_gen_toks": 12, **options}
    return [Instance("generate_until", {}, (prompt, options), 0) for prompt in PROMPTS]


def load(folder: Path, config: dict, judge: Path | None = None):
    asked = parse(EvaluateConfig, {"steering": config}, "evaluate").steering
    return models.load(models.ModelSpec("native", str(folder), steering=steering.plain(asked, judge)))


def test_blocked_words_and_experts_change_what_is_written_and_no_log_likelihood(folders: tuple[Path, Path]) -> None:
    model, anti = folders
    plain, free = load(model, {}), load(model, {}).generate_until(requests())
    words = re.findall(r"\w+", free[0])[:1] + re.findall(r"\w+", free[1])[-1:]
    blocked = load(model, {"blocklist": words})
    written = blocked.generate_until(requests())
    assert not {w.lower() for w in words} & {w.lower() for text in written for w in re.findall(r"\w+", text)}
    bent = load(model, {"experts": {"anti": str(anti)}})
    assert bent.generate_until(requests()) != free
    assert load(model, {"experts": {"anti": str(anti), "alpha": 0}}).generate_until(requests()) == free
    pairs = [Instance("loglikelihood", {}, (prompt, " the end"), 0) for prompt in PROMPTS]
    assert plain.loglikelihood(pairs) == blocked.loglikelihood(pairs) == bent.loglikelihood(pairs)


def test_the_least_toxic_of_the_candidates_is_kept(bigram) -> None:
    """Against candidates drawn by hand: the n-th equal request is the n-th sample."""
    judge = Judge(_FirstLetter(), "", {})
    lm = HeadwaterLM(bigram)
    sampled = {"max_gen_toks": 8, "do_sample": True, "temperature": 1.0, "top_p": 0.9}
    drawn = lm.generate_until([r for r in requests(**sampled) for _ in range(3)])
    kept = steering.Reranked(lm, judge, RerankConfig(candidates=3)).generate_until(requests(**sampled))
    for i, text in enumerate(kept):
        candidates = [text for text in drawn[3 * i : 3 * i + 3] if text.strip()]
        assert text == min(candidates, key=lambda text: ord(text[0]), default="")
    assert kept != drawn[::3]
    first = lm.generate_until(requests(max_gen_toks=8))
    more = lm.generate_until([r for r in requests(**sampled) for _ in range(2)])
    greedy = steering.Reranked(lm, judge, RerankConfig(candidates=3)).generate_until(requests(max_gen_toks=8))
    for i, text in enumerate(greedy):  # the likeliest text is a candidate
        assert text in (first[i], *more[2 * i : 2 * i + 2])
    content = steering.Reranked(lm, judge, RerankConfig(candidates=3, enough=1.0))
    assert content.generate_until(requests(max_gen_toks=8)) == first


class _FirstLetter:
    def probabilities(self, texts: list[str]) -> np.ndarray:
        return np.array([ord(text[0]) / 0x110000 for text in texts])


def test_a_run_is_steered_under_a_key_of_its_own(
    folders: tuple[Path, Path], classifier: Path, items: Path, tmp_path: Path
) -> None:
    model, anti = folders
    outs = []
    words = tmp_path / "words.txt"
    words.write_text("a word\n")
    ways = (
        [],
        ["--set", f"steering.blocklist={words}"],
        ["--set", f"steering.experts={{anti: {anti}, alpha: 1.0}}"],
        ["--set", "steering.rerank.candidates=3"],
        [],
    )
    for way in ways:
        outs.append(tmp_path / f"out{len(outs)}")
        command = ["run", "--model", str(model), "--items", str(items), "--tasks", "realtoxicityprompts", *way]
        command += ["--toxicity", str(classifier), "--set", "toxicity.samples=2", "--out", str(outs[-1])]
        assert main([*command, "--work", str(tmp_path / "work")]) == 0
        assert str(tmp_path) not in (outs[-1] / "results.json").read_text() + (outs[-1] / "manifest.json").read_text()
        if len(outs) == 1:
            written = " ".join(row["response"] for row in samples.read(outs[0]))
            words.write_text("\n".join(sorted(set(re.findall(r"\w+", written)))))
    rows = [samples.read(out) for out in outs]
    assert rows[0] == rows[4] and all(rows[0] != other for other in rows[1:4])
    scores = [json.loads((out / "metrics.json").read_text())["realtoxicityprompts:mean"]["value"] for out in outs]
    assert scores[3] < scores[0]
    assert (
        json.loads((outs[1] / "results.json").read_text())["config"]["steering"]["blocklist"]
        == words.read_text().split()
    )
    content = json.loads((outs[2] / "results.json").read_text())["config"]["steering"]["experts"]["content"]
    assert content["anti"]["config.json"] == artefacts.sha256_file(anti / "config.json")
    compared = [f"--in={name}={out}" for name, out in (("plain", outs[0]), ("reranked", outs[3]))]
    page = tmp_path / "compared"
    assert main(["compare", *compared, "--out", str(page), "--work", str(tmp_path / "work")]) == 0
    assert "realtoxicityprompts" in (page / "report.md").read_text()


def test_the_identity_knows_the_steering_by_content(folders: tuple[Path, Path], classifier: Path) -> None:
    model, anti = folders
    spec = models.ModelSpec("native", str(model))
    ways: list[dict] = [{}, {"blocklist": ["a"]}, {"blocklist": ["b"]}, {"experts": {"anti": str(anti)}}]
    ways += [{"experts": {"anti": str(model)}}, {"experts": {"anti": str(anti), "alpha": 1.0}}, {"rerank": {}}]
    marks = []
    for way in ways:
        asked = parse(EvaluateConfig, {"steering": way}, "evaluate")
        mark = models.identify(
            models.ModelSpec("native", str(model), steering=steering.plain(asked.steering, classifier))
        )
        marks.append(json.dumps(mark, sort_keys=True))
        assert str(anti) not in marks[-1] and str(classifier) not in marks[-1]
        again = parse(EvaluateConfig, resolved(asked), "evaluate")  # as another process is told it
        assert resolved(again) == resolved(asked)
    assert len(set(marks)) == len(marks) and marks[0] == json.dumps(models.identify(spec), sort_keys=True)


@pytest.mark.parametrize(
    ("config", "why"),
    [
        ({"blocklist": "no/such/file"}, "no text file that can be read"),
        ({"blocklist": ["a", " "]}, "a phrase is empty"),
        ({"experts": {"alpha": 1.0}}, "name the folder of an expert"),
        ({"experts": {"anti": "no/such/folder"}}, "no export of a model"),
        ({"rerank": {"candidates": 1}}, "greater than or equal to 2"),
    ],
)
def test_what_cannot_steer_is_refused_with_the_config(config: dict, why: str) -> None:
    with pytest.raises(UsageError, match=why):
        parse(EvaluateConfig, {"steering": config}, "evaluate")


def test_what_a_model_does_not_allow_is_told(bigram) -> None:
    with pytest.raises(UserError, match="--toxicity DIR"):
        steering.plain(parse(EvaluateConfig, {"steering": {"rerank": {}}}, "evaluate").steering, None)
    with pytest.raises(UserError, match="headwater-model runs"):
        steering.steered(HeadwaterLM(bigram), {"blocklist": ["a"]})
