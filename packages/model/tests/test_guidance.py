"""Guides: no blocked phrase is ever written, nothing else changes, and experts bend logits as the paper says."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models

from headwater_model import decode_step, forward, gpt, pretrained
from headwater_model._contracts.errors import UserError
from headwater_model.blocklist import HIT, Blocklist, Phrases, read, token_bytes
from headwater_model.cli import main
from headwater_model.config import ModelConfig
from headwater_model.experts import Experts, combine
from headwater_model.generation import generate, stream
from headwater_model.guidance import guides

PROMPTS = [[5, 6, 7, 8, 9], [11], [3, 4, 5], list(range(100, 115))]


def pattern(phrases: list[str], ignore_case: bool = True, whole_words: bool = True) -> re.Pattern:
    """What a blocklist forbids, by Python's `re`."""
    found = []
    for phrase in phrases:
        phrase = phrase.strip()
        text = r"\s+".join(map(re.escape, phrase.split()))
        before = r"(?<!\w)" if whole_words and re.match(r"\w", phrase) else ""
        after = r"(?!\w)" if whole_words and re.search(r"\w$", phrase) else ""
        found.append(before + text + after)
    return re.compile("|".join(found), re.IGNORECASE if ignore_case else 0)


@pytest.fixture(scope="module")
def tokenizer(tokenizer_folder: Path) -> Tokenizer:
    return Tokenizer.from_file(str(tokenizer_folder / "tokenizer.json"))


@pytest.fixture(scope="module")
def model(shape: ModelConfig) -> gpt.GPT:
    return _model(shape, 5)


def _model(shape: ModelConfig, seed: int) -> gpt.GPT:
    model = gpt.build(shape, seed=seed)
    torch.nn.init.normal_(model.output_layer.weight, std=0.3, generator=torch.Generator().manual_seed(seed))
    return model


PHRASES = st.lists(st.text("abAé ._ß", min_size=1, max_size=4).filter(str.strip), min_size=1, max_size=4)


@given(PHRASES, st.text("abABéÉ ._ß\n", max_size=16), st.booleans(), st.booleans())
@settings(max_examples=400)
def test_the_automaton_finds_what_a_regular_expression_finds(
    phrases: list[str], text: str, ignore_case: bool, whole_words: bool
) -> None:
    """At every prefix, since a text may end anywhere."""
    automaton, expected = Phrases(phrases, ignore_case, whole_words), pattern(phrases, ignore_case, whole_words)
    state = automaton.START
    for end in range(1, len(text) + 1):
        state = automaton.step(state, text[end - 1])
        if expected.search(text[:end]):
            assert automaton.complete(state)
            return
        assert not automaton.complete(state)


@given(PHRASES, st.lists(st.integers(6, 511), max_size=6))
@settings(max_examples=100)
def test_the_tokens_that_are_masked_are_those_after_which_the_text_holds_a_phrase(
    tokenizer: Tokenizer, phrases: list[str], ids: list[int]
) -> None:
    blocklist, expected = Blocklist(phrases, tokenizer), pattern(phrases)
    state = Phrases.START, b""
    for at, token in enumerate(ids):
        masked = blocklist.masked(state)
        for other in (token, *range(6, 512, 37), *tokenizer.encode(phrases[0]).ids):
            assert bool(masked[other]) == bool(expected.search(tokenizer.decode([*ids[:at], other])))
        if masked[token]:
            return
        state = blocklist.advance(state, token)
    assert not blocklist.masked(state)[:6].any()  # special tokens have no text


@given(st.data())
@settings(max_examples=25)
def test_no_text_holds_a_phrase_and_texts_that_would_not_are_unchanged(
    model: gpt.GPT, tokenizer: Tokenizer, data: st.DataObject
) -> None:
    seeds = data.draw(st.lists(st.integers(0, 999), min_size=4, max_size=4))
    temperature = data.draw(st.sampled_from([0.0, 1.0]))
    free = generate(model, PROMPTS, 12, temperature, seeds=seeds)
    written = [tokenizer.decode(row.tokens) for row in free]
    pieces = [text[a : a + n].strip() for text in written for a in range(len(text)) for n in (1, 2, 4)]
    phrases = data.draw(
        st.lists(st.sampled_from([p for p in pieces if p and "\ufffd" not in p]), min_size=1, max_size=3)
    )
    whole = data.draw(st.booleans())
    expected, blocklist = pattern(phrases, whole_words=whole), Blocklist(phrases, tokenizer, whole_words=whole)
    steered = generate(model, PROMPTS, 12, temperature, seeds=seeds, guides=[blocklist])
    for prompt, before, after in zip(PROMPTS, free, steered, strict=True):
        prefixes = [tokenizer.decode(before.tokens[:n]) for n in range(1, 13)]
        assert not expected.search(tokenizer.decode(after.tokens))
        begun = tokenizer.decode(prompt)
        if any(expected.search(text) for text in prefixes):
            assert after.tokens != before.tokens
        elif temperature == 0 and not any(_crosses(expected, begun, text) for text in prefixes):
            assert after.tokens == before.tokens
        assert not _crosses(expected, begun, tokenizer.decode(after.tokens))


def _crosses(expected: re.Pattern, begun: str, written: str) -> bool:
    """Whether a phrase begins in one text and ends in the next."""
    return any(
        match.start() < len(begun) < match.end()
        for at in range(len(begun))
        if (match := expected.match(begun + written, at))
    )


def test_a_phrase_over_tokens_within_tokens_and_over_white_space_is_never_written(tokenizer: Tokenizer) -> None:
    blocklist = Blocklist(["Bad phrase", "naïve"], tokenizer)

    def refused(text: str, ids: list[int] | None = None) -> bool:
        state = Phrases.START, b""
        for token in ids or tokenizer.encode(text).ids:
            if blocklist.masked(state)[token]:
                return True
            state = blocklist.advance(state, token)
        return False

    assert refused("a bad  \n pHrase") and refused("bad phrase") and refused("so NAÏVE!")
    assert not refused("a bad, phrase") and not refused("badphrase") and not refused("naive")
    split = [tokenizer.encode(c).ids[0] for c in "na"] + tokenizer.encode("ï").ids + tokenizer.encode("v").ids
    assert len(tokenizer.encode("ï").ids) == 2  # one character, two tokens
    assert refused("", [*split, *tokenizer.encode("e").ids]) and not refused("", split)


def test_a_phrase_that_the_prompt_begins_is_not_completed(model: gpt.GPT, tokenizer: Tokenizer) -> None:
    prompt = tokenizer.encode("Raise the").ids
    (free,) = generate(model, [prompt], 1, temperature=0)
    word = tokenizer.decode(free.tokens).strip() or "x"
    blocklist = Blocklist([f"the{tokenizer.decode(free.tokens)}"], tokenizer, whole_words=False)
    (steered,) = generate(model, [prompt], 1, temperature=0, guides=[blocklist])
    assert steered.tokens != free.tokens, word
    kept = Blocklist(["raise the"], tokenizer)  # what stands in the prompt is not the model's doing
    assert generate(model, [prompt], 8, temperature=0, guides=[kept])[0].tokens == generate(
        model, [prompt], 8, temperature=0
    )[0].tokens  # fmt: skip


@pytest.mark.parametrize("short", [True, False])
def test_rows_that_leave_the_batch_keep_each_row_its_own_state(
    model: gpt.GPT, shape: ModelConfig, tokenizer: Tokenizer, short: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not short:
        monkeypatch.setattr(decode_step, "fits", lambda model: False)
    bent = [Experts(_model(shape, 6), _model(shape, 7), 1.5), Blocklist(["a", "the", "in"], tokenizer)]
    free = generate(model, PROMPTS, 12, seeds=[4, 5, 6, 7], guides=bent)
    stops = {row.tokens[2] for row in free[:3]} - set(free[3].tokens)
    ended = generate(model, PROMPTS, 12, seeds=[4, 5, 6, 7], stop_ids=sorted(stops), guides=bent)
    assert min(len(row.tokens) for row in ended) <= 3
    for prompt, seed, a, b in zip(PROMPTS, [4, 5, 6, 7], free, ended, strict=True):
        assert a.tokens[: len(b.tokens)] == b.tokens
        assert generate(model, [prompt], 12, seeds=[seed], guides=bent)[0].tokens == a.tokens


def test_equation_2_by_hand() -> None:
    base, expert, anti = torch.tensor([[0.5, 0.3, 0.2]]).log(), torch.tensor([[1.0, 0, 0]]), torch.tensor([[0, 0, 1.0]])
    found = combine(base, expert, anti, alpha=2.0).exp()
    e = torch.e
    torch.testing.assert_close(found, torch.tensor([[0.5 * e**2, 0.3, 0.2 / e**2]]))
    cut = combine(base, expert, anti, alpha=2.0, top_p=0.7)  # 0.5 and 0.3 reach it
    assert cut[0, 2] == -torch.inf and torch.equal(cut[0, :2], found.log()[0, :2])


def test_experts_with_caches_are_the_equation_over_full_passes(model: gpt.GPT, shape: ModelConfig) -> None:
    expert, anti = _model(shape, 6), _model(shape, 7)
    for pair, alpha, top_p in (((expert, anti), 2.0, 0.9), ((None, anti), 1.5, 1.0)):
        rows = generate(model, PROMPTS, 8, temperature=0, guides=[Experts(*pair, alpha, top_p)])
        for prompt, row in zip(PROMPTS, rows, strict=True):
            whole = torch.tensor([[*prompt, *row.tokens]])
            with torch.no_grad():
                z = forward.logits(model, whole)[0]
                more, less = (z if m is None else forward.logits(m, whole)[0] for m in pair)
            for at, (token, logprob) in enumerate(zip(row.tokens, row.logprobs, strict=True), len(prompt) - 1):
                p = z[at].softmax(-1)
                likelier = [float(p[i]) for i in range(len(p)) if p[i] > p[token]]
                bent = (z[at] + alpha * (more[at] - less[at])).tolist()
                kept = [i for i in range(len(p)) if float(p[p > p[i]].sum()) < top_p]
                assert sum(likelier) < top_p and token == max(kept, key=lambda i: bent[i])
                expected = torch.tensor([bent[i] for i in kept]).log_softmax(-1)[kept.index(token)]
                assert logprob == pytest.approx(float(expected), abs=1e-4)


def test_experts_choose_among_what_a_blocklist_leaves(
    folders: tuple[Path, Path], model: gpt.GPT, tokenizer: Tokenizer
) -> None:
    """Also where all that the model finds likely is blocked, and with no cut and an expert alone."""
    loaded = pretrained.load(folders[0])
    prompt = tokenizer.encode("Raise the").ids
    words = re.findall(r"\w+", tokenizer.decode(generate(model, [prompt], 12, temperature=0)[0].tokens))
    for top_p, pair in ((1e-6, folders), (1.0, (folders[1], None)), (1.0, (None, folders[1]))):
        steering = guides(loaded, words, *pair, top_p=top_p)
        for temperature in (0.0, 1.0):
            (row,) = generate(model, [prompt], 12, temperature, guides=steering)
            assert not pattern(words).search(tokenizer.decode(row.tokens))
            assert all(logprob > -torch.inf for logprob in row.logprobs)
    with pytest.raises(UserError, match="leaves no token"):
        bare = Tokenizer(models.BPE({"a": 0, "A": 1}, []))
        bare.decoder = decoders.ByteLevel()
        Blocklist(["a"], bare).masked((Phrases.START, b""))


def test_no_weight_is_no_steering_bit_for_bit(model: gpt.GPT, shape: ModelConfig) -> None:
    off = Experts(_model(shape, 6), _model(shape, 7), alpha=0.0)
    assert generate(model, PROMPTS, 12, seed=3, guides=[off]) == generate(model, PROMPTS, 12, seed=3)
    same = Experts(model, model, alpha=2.0, top_p=1.0)
    assert [r.tokens for r in generate(model, PROMPTS, 12, seed=3, guides=[same])] == [
        r.tokens for r in generate(model, PROMPTS, 12, seed=3)
    ]


def test_the_same_seed_gives_the_same_steered_text(model: gpt.GPT, shape: ModelConfig, tokenizer: Tokenizer) -> None:
    bent = [Experts(None, _model(shape, 7)), Blocklist(["the"], tokenizer)]
    texts = [generate(model, PROMPTS[:1], 12, seed=s, guides=bent) for s in (1, 1, 2)]
    assert texts[0] == texts[1] != texts[2]
    assert list(stream(model, PROMPTS[0], 12, seed=1, guides=bent)) == texts[0][0].tokens


def test_the_bytes_of_tokens_are_what_they_decode_to(tokenizer: Tokenizer) -> None:
    found = token_bytes(tokenizer)
    for ids in ([i] for i in range(512)):
        assert b"".join(found[i] for i in ids).decode("utf-8", "replace") == tokenizer.decode(ids)
    pieces = Tokenizer(models.BPE({"▁a": 0, "<0xC3>": 1, "<0xA9>": 2, "b": 3}, [], byte_fallback=True))
    with pytest.raises(UserError, match="none"):
        token_bytes(pieces)
    pieces.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    assert token_bytes(pieces) == [b" a", b"\xc3", b"\xa9", b"b"]
    assert Blocklist(["é"], pieces).masked(Blocklist(["é"], pieces).advance((0, b""), 1)).tolist() == [0, 0, 1, 0]


@pytest.fixture(scope="module")
def folders(model: gpt.GPT, shape: ModelConfig, tokenizer_folder: Path, tmp_path_factory) -> tuple[Path, Path]:
    both = tmp_path_factory.mktemp("base"), tmp_path_factory.mktemp("anti")
    for folder, m in zip(both, (model, _model(shape, 7)), strict=True):
        pretrained.save(folder, m, shape, tokenizer_folder)
    return both


def test_the_generate_command_writes_no_blocked_word(
    folders: tuple[Path, Path], tmp_path: Path, capsys, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.cpu_count", lambda: 1)  # on a busy machine more threads wait for each other
    base, anti = map(str, folders)
    words = tmp_path / "words.txt"
    said = []
    for options in ([], ["--block", str(words)], ["--anti-expert", anti], ["--anti-expert", anti, "--alpha", "0"]):
        if options[:1] == ["--block"]:
            words.write_text(said[0].split()[-1] + "\n\n" + re.findall(r"\w+", said[0])[-1] + "\n")
        assert main(["generate", "--model", base, "--prompt", "The", "--max-tokens", "20", *options]) == 0
        said.append(capsys.readouterr().out)
    blocked = pattern(read(words))
    assert blocked.search(said[0]) and not blocked.search(said[1])
    assert said[2] != said[0] == said[3]


def test_what_cannot_steer_is_one_line(folders: tuple[Path, Path], tmp_path: Path, shape: ModelConfig, capsys) -> None:
    base, anti = folders
    empty, missing, other = tmp_path / "empty", tmp_path / "missing", tmp_path / "other"
    empty.write_text("\n \n")
    other.mkdir()
    for file in anti.iterdir():
        (other / file.name).write_bytes(file.read_bytes())
    tokens = json.loads((other / "tokenizer.json").read_text())
    swapped = tokens["model"]["vocab"]
    swapped["a"], swapped["b"] = swapped["b"], swapped["a"]
    (other / "tokenizer.json").write_text(json.dumps(tokens))
    for options, why in (
        (["--block", str(empty)], "no word in it"),
        (["--block", str(missing)], "blocklist is a text file"),
        (["--anti-expert", str(other)], "another tokenizer"),
        (["--alpha", "1"], "--alpha weighs experts"),
    ):
        assert main(["generate", "--model", str(base), "--prompt", "The", *options]) > 0
        assert why in capsys.readouterr().err.splitlines()[-1]
    with pytest.raises(UserError, match="phrase is empty"):
        Blocklist([" "], Tokenizer.from_file(str(base / "tokenizer.json")))
    assert HIT == -1 and guides(pretrained.load(base)) == []
