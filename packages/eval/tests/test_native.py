"""The native scorer says what Hugging Face's model says with the same weights, and writes what it writes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from lm_eval.api.instance import Instance

pytest.importorskip("headwater_model")
transformers = pytest.importorskip("transformers")

from headwater_eval import models  # noqa: E402
from headwater_eval._contracts.errors import UserError  # noqa: E402
from headwater_eval.lm import Decoding, HeadwaterLM  # noqa: E402

WORDS = Path(json.__file__).read_text().split()


@pytest.fixture(scope="module")
def folder(tmp_path_factory, save_model) -> Path:
    return save_model(tmp_path_factory.mktemp("model"), 1)


@pytest.fixture(scope="module")
def lm(folder: Path) -> HeadwaterLM:
    return models.load(models.ModelSpec("native", str(folder), batch_tokens=300))


@pytest.fixture(scope="module")
def theirs(folder: Path):
    return transformers.LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()


def _requests() -> list[tuple[str, str]]:
    """Four choices after each question, of one and of many tokens, after shared and own examples; one too long."""
    shared = " ".join(WORDS[:25])
    pairs = []
    for q in range(6):
        own = " ".join(WORDS[50 + 9 * q : 59 + 7 * q])
        context = own if q % 2 else f"{shared} {own}"
        pairs += [
            (context, " " + " ".join(WORDS[c + q : c + q + n])) for c, n in ((300, 1), (320, 5), (340, 9), (300, 2))
        ]
    return [*pairs, ("", "the"), ("a trailing space ", "word"), (" ".join(WORDS[:150]), " end of it")]


@torch.no_grad()
def _as_hflm(theirs, lm: HeadwaterLM, context: str, continuation: str) -> tuple[float, bool]:
    """lm-eval's `HFLM._loglikelihood_tokens` for one request, without batch and padding."""
    ids, ends = lm._encode_pair(context, continuation) if context else ([lm.eot_token_id], lm.tok_encode(continuation))
    window = torch.tensor([(ids + ends)[-(lm.max_length + 1) :][:-1]])
    logits = theirs(window).logits[0, -len(ends) :].log_softmax(-1)
    target = torch.tensor(ends)
    return float(logits.gather(1, target[:, None]).sum()), bool((logits.argmax(-1) == target).all())


def test_log_likelihoods_and_flags_are_those_of_the_hugging_face_model(lm: HeadwaterLM, theirs) -> None:
    pairs = _requests()
    greedy = theirs.generate(torch.tensor([lm.tok_encode("the")]), max_new_tokens=1, do_sample=False, pad_token_id=1)
    pairs.append(("the", lm.scorer.decode([int(greedy[0, -1])])))  # one that greedy decoding writes
    found = lm.loglikelihood([Instance("loglikelihood", {}, pair, 0) for pair in pairs])
    for pair, (total, flag) in zip(pairs, found, strict=True):
        nats, expected = _as_hflm(theirs, lm, *pair)
        assert total == pytest.approx(nats, abs=1e-3) and flag == expected, pair
    assert found[-1][1] and not all(flag for _, flag in found)


def test_token_by_token_they_are_those_of_the_hugging_face_model(lm: HeadwaterLM, theirs) -> None:
    rows = [lm.tok_encode(" ".join(WORDS[n : n + 4 + 3 * n])) for n in range(4)]
    end = lm.eot_token_id
    for row, nats in zip(rows, lm.scorer.token_logprobs(rows), strict=True):
        with torch.no_grad():
            expected = theirs(torch.tensor([[end, *row[:-1]]])).logits[0].log_softmax(-1)
        assert nats.tolist() == pytest.approx(expected.gather(1, torch.tensor(row)[:, None])[:, 0].tolist(), abs=1e-4)


def test_shared_work_is_done_once(lm: HeadwaterLM, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = []
    real = lm.scorer._tree_scores
    monkeypatch.setattr(
        lm.scorer, "_tree_scores", lambda m, tree, *r: sizes.append(len(tree.tokens)) or real(m, tree, *r)
    )
    question = lm.tok_encode(" ".join(WORDS[:20]))
    lm.score([(question, [choice]) for choice in range(5)])
    assert sizes == [len(question)]
    lm.score([(question, [choice, 9]) for choice in range(5)])
    assert sizes[1:] == [len(question) + 5]


def test_lm_evals_own_model_agrees(folder: Path, lm: HeadwaterLM) -> None:
    pytest.importorskip("accelerate", reason="lm-eval's hf imports it")
    theirs = models.load(models.resolve("hf", {"pretrained": str(folder), "dtype": "float32"}, batch_size=4))
    asked = [Instance("loglikelihood", {}, pair, 0) for pair in _requests()]
    expected = theirs.loglikelihood(asked, disable_tqdm=True)
    for (total, flag), (nats, likeliest) in zip(lm.loglikelihood(asked), expected, strict=True):
        assert total == pytest.approx(nats, abs=1e-3) and flag == likeliest
    options = {"until": ["e", "\n"], "max_gen_toks": 20}
    texts = [Instance("generate_until", {}, (" ".join(WORDS[n : n + 3 + n]), options), 0) for n in range(6)]
    assert lm.generate_until(texts) == theirs.generate_until(texts, disable_tqdm=True)


def test_each_text_ends_at_its_own_stop_string_whatever_the_batch(lm: HeadwaterLM, theirs) -> None:
    prompts = [lm.tok_encode(" ".join(WORDS[n : n + 2 + n])) for n in range(7)]
    how = Decoding(30, until=("e",))
    together = lm.scorer.write(prompts, how, [0] * 7)
    for prompt, text in zip(prompts, together, strict=True):
        assert lm.scorer.write([prompt], how, [0]) == [text]
        ids = theirs.generate(torch.tensor([prompt]), max_new_tokens=30, do_sample=False, pad_token_id=1)
        assert lm.scorer.decode(ids[0, len(prompt) :].tolist()).split("e")[0] == text
    assert len({len(text) for text in together}) > 1


def test_a_sample_depends_on_its_seed_alone(lm: HeadwaterLM) -> None:
    prompts = [lm.tok_encode(word) for word in ("the", "of it", "def")]
    how = Decoding(20, temperature=1.0, top_k=50)
    together = lm.scorer.write(prompts, how, [1, 2, 3])
    assert [lm.scorer.write([p], how, [s])[0] for p, s in zip(prompts, (1, 2, 3), strict=True)] == together
    assert lm.scorer.write(prompts[:1], how, [4]) != together[:1]


def test_a_tokenizer_without_the_chat_format_scores_but_does_not_chat(lm: HeadwaterLM, monkeypatch) -> None:
    monkeypatch.setattr(lm.scorer, "_chat", [2, 3, None, 5])
    assert lm.scorer.score([([1], [2])])
    with pytest.raises(UserError, match="no <|assistant|>".replace("|", r"\|")):
        lm.scorer.encode_chat("who?")


def test_a_checkpoint_with_its_tokenizer_is_the_model_that_its_export_is(
    folder: Path, lm: HeadwaterLM, tmp_path: Path
) -> None:
    from headwater_model import checkpoint, pretrained

    loaded = pretrained.load(folder)
    checkpoint.write(tmp_path / "final/state", {"model": loaded.model.sharded_state_dict()})
    state = {"model": loaded.config.model_dump(), "head": "lm", "precision": "float32"}
    (tmp_path / "run.json").write_text(json.dumps(state))
    asked = [Instance("loglikelihood", {}, pair, 0) for pair in _requests()]
    same = models.load(models.resolve(str(tmp_path), {}, folder, batch_tokens=300))
    assert same.loglikelihood(asked) == lm.loglikelihood(asked)
    with pytest.raises(UserError, match="--tokenizer"):
        models.load(models.resolve(str(tmp_path), {}))
