"""Dictionaries give the morphemes that their rules say, and agreement with them is counted as by hand."""

from __future__ import annotations

import pytest
from foreign import BYTES, publish, rank_file
from hypothesis import assume, given
from hypothesis import strategies as st

from headwater_tokenizer._contracts.errors import UserError
from headwater_tokenizer.adopt import from_ranks
from headwater_tokenizer.compare.hunspell import Dictionary, draw, parse_affixes
from headwater_tokenizer.compare.morphemes import agreement, parse_table, read_words
from headwater_tokenizer.compare.subject import Subject

ENGLISH = b"""# affixes by hand
SET UTF-8
TRY abc
PFX A Y 1
PFX A   0     re         .
PFX U N 1
PFX U   0     un         .
SFX D Y 4
SFX D   0     d          e
SFX D   y     ied        [^aeiou]y   # takes a letter off: says no boundary
SFX D   0     ed         [^ey]
SFX D   0     ed         [aeiou]y
SFX S N 1
SFX S   0     's         .
"""


def words(aff: bytes, *stems: bytes) -> dict[str, set[str]]:
    """Stem -> every word that it makes, cut."""
    dictionary = Dictionary(b"\n".join([b"%d" % len(stems), *stems]), parse_affixes(aff))
    made = {stem: {dictionary.words_of(stem, number) for number in range(50)} for stem in dictionary.stems}
    return {stem: {cut(dictionary, word) for word in found if word} for stem, found in made.items()}


def cut(dictionary: Dictionary, word: str) -> str:
    ends = [*dictionary.cuts(word), len(word)]
    return "|".join(word[i:j] for i, j in zip([0, *ends], ends, strict=False))


def test_rules_make_the_words_that_strip_nothing_under_their_conditions_and_cross_as_they_say():
    found = words(ENGLISH, b"bake/AD\tpo:verb", b"try/ADU po:verb", b"play/DS", b"lock/AUD", b"dam", b"a\\/c/D")
    assert found == {
        "bake": {"re|bake", "bake|d", "re|bake|d"},
        "try": {"re|try", "un|try"},
        "play": {"play|ed"},
        "lock": {"re|lock", "un|lock", "lock|ed", "re|lock|ed"},  # U does not cross
        "a/c": set(),
    }


def test_a_word_is_cut_at_every_boundary_that_the_dictionary_knows():
    dictionary = Dictionary(b"3\nunlock/D\nlock/U\nunlocked/A", parse_affixes(ENGLISH.replace(b"PFX U N", b"PFX U Y")))
    assert cut(dictionary, "unlocked") == "unlock|ed"
    apart = Dictionary(b"3\nunlock/D\nlock/UD\nunlocked/A", parse_affixes(ENGLISH))  # its un- does not cross
    assert cut(apart, "unlocked") == "unlock|ed"
    more = Dictionary(b"3\nunlock/D\nlock/UD\nunlocked/A", parse_affixes(ENGLISH.replace(b"PFX U N", b"PFX U Y")))
    assert cut(more, "unlocked") == "un|lock|ed" and cut(more, "reunlocked") == "re|unlocked"


@pytest.mark.parametrize(
    ("options", "rules", "stem"),
    [
        ("SET ISO8859-2\n", "SFX ł Y 1\nSFX ł 0 ów .\n", "pień/ł".encode("iso8859-2")),
        ("FLAG long\nSET UTF-8\n", "SFX Aa Y 1\nSFX Aa 0 ów .\n", "pień/XxAa".encode()),
        ("FLAG num\nSET UTF-8\n", "SFX 1021 Y 1\nSFX 1021 0 ów .\n", "pień/7,1021".encode()),
        ("FLAG UTF-8\nSET UTF-8\n", "SFX ż Y 1\nSFX ż 0 ów .\n", "pień/bż".encode()),
        ("SET UTF-8\nAF 2\nAF XY # 1\nAF QA # 2\n", "SFX A Y 1\nSFX A 0 ów/1 .\n", "pień/2".encode()),
        ("\ufeffSET UTF-8\n", "SFX A Y 1\r\nSFX A 0 ów [^a]\r\n", "pień/A".encode()),
    ],
)
def test_every_way_of_writing_flags_and_letters_is_read(options, rules, stem):
    encoding = "iso8859-2" if "8859-2" in options else "utf-8"
    assert words((options + rules).encode(encoding), stem) == {"pień": {"pień|ów"}}


def test_what_makes_no_word_by_itself_is_passed_over():
    aff = b"""SET UTF-8
NEEDAFFIX n
ONLYINCOMPOUND c
FORBIDDENWORD f
SFX A Y 3
SFX A 0 er/n .
SFX A 0 s/c .
SFX A 0 en .
"""
    found = words(aff, b"Tor/A", b"Wehr/An", b"Damm/Ac", b"Kanal/Af")
    assert found == {"Tor": {"Tor|en"}, "Wehr": {"Wehr|en"}}


def test_a_draw_is_the_same_each_time_changes_with_the_seed_and_takes_no_word_whose_morphemes_melt():
    stems = [b"%s/D" % (a + b).encode() for a in "bdfgklmn" for b in ("aste", "ore", "ike", "umble", "e\u0301")]
    dictionary = Dictionary(b"\n".join([b"0", *stems, "가/D".encode()]), parse_affixes(ENGLISH))
    draws = [draw(dictionary, 10, seed) for seed in (0, 0, 1)]
    assert draws[0] == draws[1] != draws[2]
    assert len(draws[0]) == 10 and list(draws[0]) == sorted(draws[0])
    assert all("".join(morphemes) == word and morphemes[-1] in ("d", "ed") for word, morphemes in draws[0].items())
    melting = Dictionary("1\n가/A".encode(), parse_affixes("SET UTF-8\nSFX A Y 1\nSFX A 0 ᆫ .\n".encode()))
    assert melting.words_of("가", 0) and draw(melting, 5, 0) == {}


def subject_of(tmp_path, *tokens: str) -> Subject:
    """Byte-level BPE with these entries, each the sum of two before it."""
    tokenizer = from_ranks(rank_file([*BYTES, *(token.encode() for token in tokens)]), "gpt2", 0)
    (tmp_path / "tokenizer.json").write_text(tokenizer.to_str())
    return Subject("s", tmp_path)


def test_agreement_is_that_of_a_count_by_hand(tmp_path):
    subject = subject_of(tmp_path, "oc", "ock", "lock", " lock", "ed", "da", "dam", " dam", "dams", " dams")
    table = {
        "locked": ("lock", "ed"),  # ' lock|ed': one boundary, right
        "relock": ("re", "lock"),  # ' |r|e|lock': two, one right; the blank's own is before the word
        "dammed": ("dam", "med"),  # ' dam|m|ed': two, one right
        "dams": ("dam", "s"),  # ' dams': not cut, set aside
    }
    found = agreement(subject, table)
    assert found == {"words": 3, "uncut": 1, "precision": 3 / 5, "recall": 1.0, "f1": 2 * 3 / (5 + 3)}


def test_boundaries_inside_a_character_are_no_morphemes(tmp_path):
    found = agreement(subject_of(tmp_path), {"hée": ("hé", "e")})  # h|b1|b2|e
    assert (found["precision"], found["recall"]) == (1 / 3, 1.0)


@given(st.lists(st.lists(st.text("abé", min_size=1, max_size=3), min_size=2, max_size=4), min_size=1, max_size=6))
def test_single_characters_find_every_boundary_and_perfect_cuts_score_one(tmp_path_factory, segmented):
    table = {"".join(morphemes): tuple(morphemes) for morphemes in segmented}
    subject = subject_of(tmp_path_factory.mktemp("t"), "é")
    assert agreement(subject, table)["recall"] == 1.0
    perfect = {word: tuple(word) for word in table}
    assume(all(len(word) > 1 for word in perfect))
    found = agreement(subject, perfect)
    assert (found["precision"], found["recall"], found["f1"]) == (1.0, 1.0, 1.0)


def test_words_come_from_a_dictionary_or_a_table_and_a_source_with_neither_is_named(tmp_path):
    files = {"xx.aff": ENGLISH, "xx.dic": b"1\nlock/D"}
    twice = publish(tmp_path / "twice", files | {"yy.aff": files["xx.aff"], "yy.dic": files["xx.dic"]})
    for sources in (publish(tmp_path / "plain", files), publish(tmp_path / "tar", files, packed=True), twice):
        assert read_words(sources, "foreign", 10, 0) == {"locked": ("lock", "ed")}
    table = publish(tmp_path / "table", {"words.tsv": b"locked\tlock ed\ndam\tdam\n"})
    assert read_words(table, "foreign", 10, 0) == {"locked": ("lock", "ed")}
    several = publish(tmp_path / "several", files | {"yy.aff": ENGLISH, "yy.dic": b"1\ndam/D"})
    with pytest.raises(UserError, match="one dictionary .* it has xx, yy"):
        read_words(several, "foreign", 10, 0)
    bare = publish(tmp_path / "bare", {"xx.aff": ENGLISH, "xx.dic": b"1\nlock"})
    with pytest.raises(UserError, match="no word in it has a boundary"):
        read_words(bare, "foreign", 10, 0)


@pytest.mark.parametrize(
    ("read", "fault"),
    [
        (lambda: parse_table(b"locked\tlock ed\ndams\tdam x\n", "w.tsv"), "w.tsv line 2: not a word"),
        (lambda: parse_table(b"\xff\t\xff\n", "w.tsv"), "w.tsv line 1: not UTF-8"),
        (lambda: parse_affixes(b"SET KLINGON\n", "x.aff"), "x.aff: encoding KLINGON is unknown"),
        (lambda: parse_affixes(b"SFX A Y 1\nSFX A 0\n", "x.aff"), "x.aff line 2: an affix rule of only 3 fields"),
    ],
)
def test_a_faulty_file_is_named_with_the_line(read, fault):
    with pytest.raises(UserError, match=fault):
        read()


@given(st.binary(max_size=200), st.binary(max_size=100))
def test_any_bytes_are_read_or_refused_in_one_line(aff, dic):
    try:
        dictionary = Dictionary(b"1\n" + dic, parse_affixes(b"SFX A Y 9\nSFX A 0 " + aff, "x.aff"))
    except UserError as e:
        assert str(e).startswith("x.aff")
    else:
        assert all("".join(m) == word for word, m in draw(dictionary, 3, 0).items())
