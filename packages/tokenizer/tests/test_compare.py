"""Every measure of a comparison against a count by hand, and the stage as a whole."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import pytest
from corpora import real_documents, write_corpus
from foreign import BYTES, publish, rank_file
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers

from headwater_tokenizer._contracts import manifest
from headwater_tokenizer._contracts.errors import UserError
from headwater_tokenizer.adopt import from_ranks
from headwater_tokenizer.classes import class_table
from headwater_tokenizer.cli import main
from headwater_tokenizer.compare import stage
from headwater_tokenizer.compare.audit import audit
from headwater_tokenizer.compare.config import JudgeConfig, ModelConfig, ParityConfig
from headwater_tokenizer.compare.measures import count_words, renyi_efficiency, summed, tally
from headwater_tokenizer.compare.parity import premiums, read_parallel
from headwater_tokenizer.compare.probes import digits, indentation, numbers, white_space_share
from headwater_tokenizer.compare.shown import choose
from headwater_tokenizer.compare.subject import Subject
from headwater_tokenizer.corpus import Batch
from headwater_tokenizer.encoder import buffers


def saved(folder, tokenizer: Tokenizer) -> Subject:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "tokenizer.json").write_text(tokenizer.to_str())
    return Subject("s", folder)


def byte_level(folder, *tokens: str, split="gpt2", longest=0) -> Subject:
    """Byte-level BPE whose entries beside the bytes are these, each the sum of two before it."""
    return saved(folder, from_ranks(rank_file([*BYTES, *(token.encode() for token in tokens)]), split, longest))


def wordpiece(folder, *names: str) -> Subject:
    model = models.WordPiece({name: i for i, name in enumerate(["[UNK]", *names])}, unk_token="[UNK]")
    tokenizer = Tokenizer(model)
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece(prefix="##", cleanup=False)
    tokenizer.add_special_tokens([AddedToken("[UNK]", special=True)])
    return saved(folder, tokenizer)


def batch(*documents: tuple[str, str, str]) -> Batch:
    """Of (text, source, language)."""
    texts, sources, langs = zip(*documents, strict=True)
    return Batch([f"d{i}" for i in range(len(texts))], pa.array(texts, pa.large_string()), list(sources), list(langs))


def measured(subject: Subject, *documents) -> tuple[dict, dict, int]:
    """Figures by source and by language, and documents lost."""
    totals, lost = tally(subject, [batch(*documents), Batch()])
    size = subject.encoder.vocab_size
    return *({name: t.figures(subject) for name, t in summed(totals, part, size).items()} for part in (0, 1)), lost


def test_figures_of_a_byte_level_tokenizer_are_those_of_a_count_by_hand(tmp_path):
    subject = byte_level(tmp_path, "da", "dam", " d", " dam", "s ")
    # dam| dam|s|\n  and  d|\xc3|\xa9| |x|\xe2|\x80|\xa6  (no token crosses a cut of the split)
    by_source, by_language, lost = measured(subject, ("dam dams\n", "a", "en"), ("dé x…", "b", ""), ("", "b", ""))
    a, b = by_source["a"], by_source["b"]
    assert lost == 0 and set(by_language) == {"en", "unknown"} and by_language["unknown"] == b
    assert (a["documents"], a["bytes"], a["characters"], a["words"], a["tokens"]) == (1, 9, 9, 2, 4)
    assert (a["continued_words_share"], a["single_character_words_share"]) == (1 / 2, 0)
    assert (a["bytes_per_token"], a["tokens_per_word"], a["characters_per_token"]) == (9 / 4, 4 / 2, 9 / 4)
    assert (a["byte_share"], a["unknown_share"]) == (0, 0)
    assert a["vocabulary_used_share"] == 4 / 261  # dam, ' dam', s, line end
    assert (b["documents"], b["bytes"], b["characters"], b["words"], b["tokens"]) == (2, 8, 5, 2, 8)
    assert (b["byte_share"], b["continued_words_share"]) == (5 / 8, 1)
    assert b["single_character_words_share"] == 1  # dé and x… are bytes and letters only
    assert a["renyi_efficiency"] == pytest.approx(1)  # four tokens, each once


def test_figures_of_a_lossy_tokenizer_come_from_the_places_that_tokenizers_reports(tmp_path):
    subject = wordpiece(tmp_path, "dam", "##s", "a", "##b", "!")
    # Dam|##s  [UNK]  a|##b  !  : four words, for the mark hangs at the third
    by_source, _, lost = measured(subject, ("Dams  weir ab! a", "a", "en"))
    a = by_source["a"]
    assert (a["tokens"], a["words"], lost) == (7, 4, 1)
    assert (a["unknown_share"], a["byte_share"]) == (1 / 7, 0)
    assert (a["continued_words_share"], a["single_character_words_share"]) == (2 / 4, 1 / 4)
    assert a["vocabulary_used_share"] == 1  # the unknown token is none of the learned


def test_fallback_bytes_are_counted_and_a_normalised_text_is_not_lost(tmp_path):
    names = ["<unk>", *(f"<0x{byte:02X}>" for byte in range(256)), "a", "b"]
    model = models.BPE({name: i for i, name in enumerate(names)}, [], unk_token="<unk>", byte_fallback=True)
    tokenizer = Tokenizer(model)
    tokenizer.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Fuse()])
    tokenizer.add_special_tokens([AddedToken("<unk>", special=True)])
    by_source, _, lost = measured(saved(tmp_path / "plain", tokenizer), ("ab cé", "a", "en"))
    assert (by_source["a"]["byte_share"], by_source["a"]["tokens"], lost) == (4 / 6, 6, 0)  # blank, c, two of é
    tokenizer.normalizer = normalizers.Lowercase()
    by_source, _, lost = measured(saved(tmp_path / "lower", tokenizer), ("AB ba", "a", "en"))
    assert (by_source["a"]["tokens"], lost) == (5, 0)


@given(st.text("ab\n é水", max_size=40), st.data())
def test_words_are_counted_as_cut_wherever_tokens_end(text, data):
    column = pa.array([text, "x y"], pa.large_string())
    raw = text.encode()
    ends = sorted(data.draw(st.sets(st.integers(1, len(raw))))) if raw else []
    ends = sorted({*ends, len(raw)} - {0})
    starts = [0, *ends[:-1]] if ends else []
    last = len(raw) + 3
    found = count_words(
        *buffers(column), np.array([*starts, len(raw)], np.int64), np.array([*ends, last], np.int64),
        np.array([len(ends), 1], np.int64), class_table(),
    ).tolist()  # fmt: skip
    words = [match.span() for match in re.finditer(r"\S+", text)]
    spans = [(len(text[:i].encode()), len(text[:j].encode())) for i, j in words]
    parts = [[raw[max(i, s) : min(j, e)] for s, e in zip(starts, ends, strict=True) if s < j and e > i]
             for i, j in spans]  # fmt: skip
    single = [len(text[i:j]) > 1 and all(len(re.sub(rb"[\x80-\xbf]+", b"", p[1:])) == 0 for p in cut)
              for (i, j), cut in zip(words, parts, strict=True)]  # fmt: skip
    assert found == [[len(words), sum(len(cut) > 1 for cut in parts), sum(single)], [2, 0, 0]]


@given(st.text(max_size=60))
def test_spans_of_a_lossless_tokenizer_lie_end_to_end_and_hold_its_pieces(tokenizer, text):
    subject = _subject(tokenizer)
    spans = subject.encode(["x", text])
    raw = b"x" + text.encode()
    assert [0, *spans.ends.tolist()] == [*spans.starts.tolist(), len(raw)]
    cut = [raw[i:j] for i, j in zip(spans.starts.tolist(), spans.ends.tolist(), strict=True)]
    assert cut == [subject.pieces[i] for i in spans.ids.tolist()]


def test_spans_are_those_of_a_column_that_begins_within_another(tmp_path):
    column = pa.array(["weir", "dé m"], pa.large_string())[1:]
    for subject in (byte_level(tmp_path / "a", "é", " m"), wordpiece(tmp_path / "b", "dé", "m")):
        spans, (data, _) = subject.spans(column), buffers(column)
        cut = [data[i:j].tobytes().strip() for i, j in zip(spans.starts.tolist(), spans.ends.tolist(), strict=True)]
        assert b"".join(cut) == "dém".encode() and cut[-1] == b"m"


def test_spans_are_reported_ones_where_lengths_add_up_by_chance(tmp_path):
    tokenizer = Tokenizer(models.BPE({"<u>": 0, "\u2581": 1, "a": 2, "b": 3}, [], unk_token="<u>"))
    tokenizer.add_special_tokens([AddedToken("<u>", special=True)])
    assert saved(tmp_path / "a", tokenizer).encode(["é𐍈"]).starts.tolist() == [0, 2]  # unknown ones of 2 and 4 bytes
    tokenizer.normalizer = normalizers.Sequence([normalizers.Strip(), normalizers.Prepend("\u2581")])
    tokenizer.decoder = decoders.Metaspace()
    spans = saved(tmp_path / "b", tokenizer).encode(["ab "])  # without its last blank, but with one before
    assert spans.ends.tolist()[1:] == [1, 2]


_subjects: dict = {}


def _subject(folder) -> Subject:
    return _subjects.setdefault(folder, Subject("s", folder))


@given(st.integers(2, 50), st.integers(1, 9))
def test_equal_frequencies_are_fully_efficient_and_unequal_ones_less(types, count):
    occurrences = np.array([count] * types + [0, 0])
    assert renyi_efficiency(occurrences) == pytest.approx(1)
    occurrences[0] += 1
    assert renyi_efficiency(occurrences) < 1


def test_renyi_efficiency_is_that_of_the_authors_package():
    # tokenization-scorer 1.1.8 of [["pick", "@@ed", "pick", "@@l", "@@ed", "pick", "@@les"]], power 2.5
    assert renyi_efficiency(np.array([3, 2, 1, 1])) == pytest.approx(0.8265064834225245)
    assert renyi_efficiency(np.array([5, 0])) == renyi_efficiency(np.zeros(3, np.int64)) == 0


PATTERN = r"/(?P<language>\w+)/(?P<key>\w+)\.html$"


def documents(folder):
    """Parallel documents of source manual in three languages, and others."""
    rows = [
        ("manual", "/en/a.html", "dam"), ("manual", "/en/b.html", "weir"), ("manual", "/en/c.html", "x"),
        ("manual", "/de/a.html", "Damm!!"), ("manual", "/de/b.html", "Wehr"), ("manual", "/de/d.html", "y"),
        ("manual", "/fr/b.html", "un"), ("manual", "/fr/b.html", "barrage"), ("manual", "/xx/z.html", "q"),
        ("manual", "index.html", "index"), ("other", "/en/a.html", "a"),
    ]  # fmt: skip
    folder.mkdir()
    for number in range(2):
        table = pl.DataFrame(rows[number::2], schema=["source", "url", "text"], orient="row")
        table.write_parquet(folder / f"part-{number:05d}.parquet")
    manifest.write(folder, manifest.Manifest("documents", 1, "headwater-data", "0.1.0", "extract", {}))
    return folder


def test_premiums_are_ratios_over_shared_documents_and_the_base_languages_is_one(tmp_path):
    config = ParityConfig(source="manual", pattern=PATTERN)
    found = premiums(byte_level(tmp_path / "t"), read_parallel(documents(tmp_path / "d"), config), "en")
    assert found == {
        "en": {"documents": 3, "tokens": 8, "premium": 1.0},
        "de": {"documents": 2, "tokens": 10, "premium": 10 / 7},
        "fr": {"documents": 1, "tokens": 9, "premium": 9 / 4},
    }


@pytest.mark.parametrize(
    ("settings", "fault"),
    [
        ({"source": "mannual"}, "no source mannual; it has manual, other"),
        ({"base": "eng"}, "in language eng; it finds de, en, fr, xx"),
        ({"pattern": "/(?P<language>q)/(?P<key>.)"}, "in language en; it finds none"),
    ],
)
def test_parallel_documents_that_are_not_there_are_named(tmp_path, settings, fault):
    config = ParityConfig(**({"source": "manual", "pattern": PATTERN} | settings))
    with pytest.raises(UserError, match=re.escape(fault)):
        read_parallel(documents(tmp_path / "d"), config)


def test_a_pattern_without_its_groups_is_refused():
    for pattern in ("(", "/(?P<language>.)/"):
        with pytest.raises(ValueError, match="not a regular expression|needs the groups"):
            ParityConfig(source="s", pattern=pattern)


def test_numbers_are_told_apart_by_where_they_are_cut(tmp_path):
    twos, threes = ([f"{n:0{size}}" for n in range(10**size)] for size in (2, 3))
    in_threes = digits(byte_level(tmp_path / "a", *twos, *threes, split="gpt4", longest=3))
    assert in_threes["tokens_per_number"]["4"] == 2 and in_threes["cuts"]["7"] == 1  # 123|4: a place has no fixed value
    assert not in_threes["aligned_from_right"]
    one_by_one = digits(byte_level(tmp_path / "b", *twos, split="gpt4", longest=1))
    assert one_by_one["aligned_from_right"] and one_by_one["tokens_per_number"]["9"] == 9
    some = digits(byte_level(tmp_path / "c", "10", "11"))
    assert some["cuts"]["2"] == 2 and not some["aligned_from_right"]
    assert some["tokens_per_number"]["2"] == pytest.approx(2 - 2 / 90)


def test_groups_of_three_from_the_right_are_aligned(tmp_path):
    parts = [*BYTES, *(f"{n:0{size}}".encode() for size in (2, 3) for n in range(10**size))]
    tokenizer = from_ranks(rank_file(parts), "gpt2", 0)
    cut = pre_tokenizers.Split(Regex(r"\d{1,3}(?=(?:\d{3})*(?!\d))|\D"), "isolated")
    as_bytes = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([cut, as_bytes])
    found = digits(saved(tmp_path, tokenizer))
    assert found["aligned_from_right"] and set(found["cuts"].values()) == {1}
    assert [found["tokens_per_number"][str(n)] for n in (3, 4, 9)] == [1, 2, 3]


def test_numbers_are_all_of_their_length_or_many_without_repeats():
    assert numbers(2) == list(range(10, 100))
    many = numbers(9)
    assert len(set(many)) == 1000 and {len(str(n)) for n in many} == {9}
    assert np.histogram(many, 9, (1e8, 1e9))[0].min() > 100  # spread evenly


def test_code_is_judged_by_what_its_white_space_takes(tmp_path):
    subject = byte_level(tmp_path, "  ", "   ", "    ", " r")
    # the split leaves the last blank to the word, so that 3, 7, 11 and 15 are to be written
    assert indentation(subject) == {"4": 1, "8": 2, "12": 3, "16": 4}
    occurrences = np.zeros(subject.encoder.vocab_size, np.int64)
    occurrences[[ord("x"), ord(" "), ord("\n"), 256 + 2]] = [3, 1, 2, 4]
    assert white_space_share(subject, occurrences) == 7 / 10


def test_embedding_costs_are_those_of_the_formulas():
    found = stage.embedding(1000, 4.0, ModelConfig(hidden=10, layers=2, tied=False))
    body = 12 * 2 * 10 * 10
    assert found == {
        "parameters": 20_000, "share_of_model": 20_000 / (20_000 + body), "output_flops_per_byte": 6 * 10_000 / 4,
        "body_flops_per_byte": 6 * body / 4,
    }  # fmt: skip
    tied = stage.embedding(1000, 4.0, ModelConfig(hidden=10, layers=2, tied=True))
    assert (tied["parameters"], tied["output_flops_per_byte"]) == (10_000, 15_000)


def test_the_audit_finds_entries_that_no_text_gives_and_those_that_hardly_occur(tmp_path):
    tokenizer = from_ranks(rank_file([*BYTES, b"da", b"dam", b"\xc3\xa9", b"\xa9x"]), "gpt2", 0)
    described = json.loads(tokenizer.to_str())
    described["model"]["vocab"]["spillway"] = 260  # no merge makes it
    subject = saved(tmp_path, Tokenizer.from_str(json.dumps(described)))
    occurrences = np.full(261, 100)
    occurrences[[256, 257, 258]] = [0, 4, 5]
    found = audit(subject, occurrences, 5)
    assert (found["unreachable"], found["unreachable_examples"]) == (1, ["spillway"])
    assert found["partial_utf8"] == 128 + 1  # bytes of longer characters, and one entry of such a byte and an x
    assert (found["under_trained"], found["never_in_sample"]) == (2, 1)
    assert found["under_trained_examples"] == ["dam", "da"]


def test_entries_that_only_a_neighbour_brings_about_are_reachable(tmp_path):
    words = Tokenizer(models.WordLevel({"a": 0, "esp.": 1, "esp": 2, ".": 3}, unk_token="a"))
    words.pre_tokenizer = pre_tokenizers.Split(Regex(r"[a-z]+\.(?= )|[a-z]+|\."), "removed", invert=True)
    assert audit(saved(tmp_path / "w", words), np.zeros(4, np.int64), 1)["unreachable"] == 0
    found = audit(wordpiece(tmp_path, "a", "b", "##ing", "##!", "Upper"), np.zeros(6, np.int64), 1)
    assert found["unreachable_examples"] == ["Upper", "##!"]  # lower-cased away; a mark is cut off first


COMPARE = ["compare", "--set", "sample_bytes=50000", "--set", "speed_bytes=20000", "--set", "page_characters=200"]
REFERENCE = "references={few: {source: foreign, file: few.tiktoken, split: gpt2, digits: 0}}"


def run(folder: Path, out: str, *more: str) -> tuple[int, Path]:
    return main([*COMPARE, "--out", str(folder / out), "--work", str(folder / f"work-{out}"), *more]), folder / out


@pytest.fixture(scope="module")
def lossy(corpus, tmp_path_factory):
    folder = tmp_path_factory.mktemp("wordpiece")
    arguments = ["train", "--in", str(corpus), "--out", str(folder / "t"), "--work", str(folder / "w")]
    assert main([*arguments, "--set", "algorithm=wordpiece", "--set", "vocab_size=512"]) == 0
    return folder / "t"


def test_the_stage_gives_the_same_bytes_twice_and_every_part(corpus, tokenizer, lossy, tmp_path, capsys):
    sources = publish(tmp_path / "sources", {"few.tiktoken": rank_file([*BYTES, b"th", b"the"]),
                                             "w.tsv": b"arguments\targument s\nparser\tpars er\n"})  # fmt: skip
    folders = {"corpus": corpus, "sources": sources, "documents": documents(tmp_path / "d"), "ours": tokenizer,
               "lossy": lossy}  # fmt: skip
    settings = [REFERENCE, "morphemes={en: foreign}", "code_sources=[source]", "model={hidden: 64, layers: 2}",
                f"parity={{source: manual, pattern: '{PATTERN}'}}"]  # fmt: skip
    options = [word for name, folder in folders.items() for word in ("--in", f"{name}={folder}")]
    options += [word for setting in settings for word in ("--set", setting)]
    record = tmp_path / "record.json"
    (code, first), (again, second) = run(tmp_path, "a", *options, "--record", str(record)), run(tmp_path, "b", *options)
    assert code == again == 0
    names = ["comparison.csv", "comparison.json", "languages.csv", "metrics.json", "page.html"]
    assert manifest.list_files(first) == names
    assert all((first / name).read_bytes() == (second / name).read_bytes() for name in names)

    found = json.loads((first / "comparison.json").read_text())
    heldout = real_documents()[:20]
    assert found["heldout"]["bytes"] == sum(len(text.encode()) for _, text, _ in heldout)
    assert 0 < found["sample"]["bytes"] <= 50_000 and len(found["texts"]) == 12
    own, few = found["tokenizers"]["ours"], found["tokenizers"]["few"]
    facts = json.loads((tokenizer / "metrics.json").read_text())
    assert own["heldout"]["tokens"] == facts["heldout"]["tokens"] and own["learned"] == facts["learned"]
    assert own["code"]["bytes_per_token"] == facts["heldout"]["by_source"]["source"]["bytes_per_token"]
    assert sum(f["tokens"] for f in own["by_source"].values()) == own["heldout"]["tokens"]
    assert [found["tokenizers"][name]["lossless"] for name in ("ours", "few", "lossy")] == [True, True, False]
    assert (few["stage"], few["algorithm"], few["learned"]) == ("adopt", "bpe", 258)
    assert few["parity"]["de"]["premium"] == 10 / 7 and few["morphemes"]["en"]["words"] == 2
    assert all(part is not None for name, part in own.items() if name != "judge")
    headlines = json.loads((first / "metrics.json").read_text())
    assert headlines["few"]["bytes_per_token"] == few["heldout"]["bytes_per_token"]
    rows = {row["tokenizer"]: row for row in csv.DictReader((first / "comparison.csv").open())}
    assert float(rows["ours"]["tokens_per_word"]) == own["heldout"]["tokens_per_word"]
    lines = [(row["tokenizer"], row["language"]) for row in csv.DictReader((first / "languages.csv").open())]
    assert lines.count(("few", "unknown")) == lines.count(("few", "fr")) == 1
    speeds = json.loads(record.read_text())["measured"]["speeds"]
    assert set(speeds) == {"ours", "few", "lossy"} and all(speed["decode"] > 0 for speed in speeds.values())
    assert "enc MB/s" in capsys.readouterr().out


def test_parts_without_their_input_are_null_and_a_killed_comparison_goes_on(corpus, tokenizer, tmp_path, monkeypatch):
    options = ["--in", f"corpus={corpus}", "--in", f"a={tokenizer}", "--in", f"b={tokenizer}", "--set",
               "morphemes={en: nowhere}", "--set", f"parity={{source: nowhere, pattern: '{PATTERN}'}}"]  # fmt: skip
    code, whole = run(tmp_path, "whole", *options)
    assert code == 0
    own = json.loads((whole / "comparison.json").read_text())["tokenizers"]["a"]
    assert [name for name, part in own.items() if part is None] == ["code", "embedding", "judge", "morphemes", "parity"]
    figures, done = stage._figures, []

    def killed(subject, *rest):
        if subject.name == "b":
            raise KeyboardInterrupt
        done.append(subject.name)
        return figures(subject, *rest)

    monkeypatch.setattr(stage, "_figures", killed)
    assert run(tmp_path, "part", *options)[0] == 130
    monkeypatch.setattr(stage, "_figures", lambda subject, *rest: done.append(subject.name) or figures(subject, *rest))
    code, part = run(tmp_path, "part", *options)
    assert code == 0 and done == ["a", "b"]
    assert (part / "comparison.json").read_bytes() == (whole / "comparison.json").read_bytes()


@pytest.mark.parametrize(
    ("more", "fault"),
    [
        ([], "no tokenizer to compare"),
        (["--set", REFERENCE], "references: few is adopted from sources; give --in sources=DIR"),
        (["--in", "t", "--set", "code_sources=[sauce]"], "no held-out document of source sauce"),
        (["--in", "t", "--set", "judge={flops: 1e9, tokenizers: [bpe]}"], "there is no bpe here, but t"),
        (["--in", "t", "--in", "sources", "--set", "morphemes={en: hunspel}"], "no source hunspel; it has foreign"),
        (["--in", "few", "--in", "sources", "--set", REFERENCE], "references: few is the name of an input already"),
    ],
)  # fmt: skip
def test_what_the_inputs_do_not_hold_is_named_in_one_line(corpus, tokenizer, tmp_path, capsys, more, fault):
    sources = publish(tmp_path / "sources", {"few.tiktoken": rank_file(BYTES)})
    folders = {"t": f"t={tokenizer}", "few": f"few={tokenizer}", "sources": f"sources={sources}"}
    code, out = run(tmp_path, "out", "--in", f"corpus={corpus}", *(folders.get(word, word) for word in more))
    said = capsys.readouterr().err
    assert code == 1 and fault in said and len(said.splitlines()) == 1 and not out.exists()


def test_documents_shown_come_from_each_source_in_turn_and_are_cut(corpus):
    texts = {id_: text for id_, text, _ in real_documents()}
    shown = [choose(corpus, 5, 30, seed) for seed in (0, 0, 1)]
    assert shown[0] == shown[1] != shown[2]
    assert [text["source"] for text in shown[0]] == ["docstring", "source", "docstring", "source", "docstring"]
    assert len({text["id"] for text in shown[0]}) == 5
    assert all(text["text"] == texts[text["id"]][:30] for text in shown[0])


def test_judges_are_the_named_ones_or_what_was_trained_and_loses_nothing():
    found = {name: {"stage": stage_, "lossless": lossless} for name, stage_, lossless in
             (("bpe", "train", True), ("words", "train", False), ("gpt2", "adopt", True))}  # fmt: skip
    assert stage.judged(found, JudgeConfig(flops=1)) == ["bpe"]
    assert stage.judged(found, JudgeConfig(flops=1, tokenizers=("gpt2",))) == ["gpt2"]


def test_a_corpus_that_says_categories_has_its_code_found(tmp_path):
    folder = write_corpus(tmp_path / "corpus", [("a", "x", "s")])
    for name, category in (("one", "misc"), ("two", "prose")):
        table = pl.DataFrame({"id": [name], "text": ["x"], "source": [name], "category": [category]})
        (folder / "heldout" / "part-00000.parquet").unlink(missing_ok=True)
        table.write_parquet(folder / "heldout" / f"{name}.parquet")
    assert stage.code_sources(folder, None) == ["one"]
    assert stage.code_sources(folder, ("two",)) == ["two"]
