"""What a model can't see inside a token: spelling probes of a tokenizer, no model needed.

A model gets ids. The letters of a token reach it only as far as training happened to put them into its embedding
(Itzhak and Levy 2022, arXiv 2108.11193, read the spelling of up to a third of RoBERTa's vocabulary out of it; Kaushal
and Mahowald 2022, arXiv 2206.02608, ask which letters a token holds). So the probes count what the cut hides: letters
inside tokens, tokens that are others after a change of one letter or of case, letters that can be counted by counting
tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from statistics import fmean

from headwater_tokenizer._contracts.errors import UserError
from headwater_tokenizer.compare.spans import Cut, Cutter
from headwater_tokenizer.encoder import Encoder

WORDS = (
    # known for questions about their letters
    "strawberry", "Mississippi", "bookkeeper", "raspberry", "committee", "occurrence", "banana", "lollipop",
    # common
    "people", "because", "water", "different", "government", "children", "important", "between", "together", "morning",
    "language", "answer", "mother", "question", "knowledge", "weather", "beautiful", "remember", "necessary", "through",
    # built from parts
    "unhappiness", "rewriting", "incomprehensibilities", "disestablishment", "counterrevolutionary", "misunderstood",
    "thoughtfulness", "irresponsibly", "rereleased", "nonlinearity",
    # rare
    "rhythm", "onomatopoeia", "syzygy", "chrysanthemum", "fuchsia", "queueing", "mnemonic", "sesquipedalian",
    "phlegmatic", "quixotic", "zephyr", "obstreperous",
    # names
    "Constantinople", "Katherine", "Massachusetts", "Dostoevsky", "Reykjavik", "Hermione", "Abdullah", "Siobhan",
    "Tchaikovsky", "Philippines",
)  # fmt: skip
"""English words to probe with; the first ones are shown as examples."""

EXAMPLES = 8


CHANGES: dict[str, Callable[[str], Iterable[str]]] = {
    "dropped": lambda word: (" " + word[:i] + word[i + 1 :] for i in range(len(word))),
    "doubled": lambda word: (" " + word[: i + 1] + word[i:] for i in range(len(word))),
    "swapped": lambda word: (" " + word[:i] + word[i + 1] + word[i] + word[i + 2 :] for i in range(len(word) - 1)),
    "capitalised": lambda word: [" " + word.capitalize()],
    "capitals": lambda word: [" " + word.upper()],
    "no_blank": lambda word: [word],
}
"""Change -> the texts that it makes of a word: one a letter that is dropped, doubled or swapped with the next."""


@dataclass(frozen=True)
class Probe:
    """What one word, written after a blank, shows; `kept` by the names of `CHANGES`."""

    word: str
    tokens: list[str]
    """Its tokens as text, without tokens of white space; bytes of a part of a character as \\xe2."""
    unknown: int
    """How many of them are the unknown token."""
    hidden: int
    """Letters that stand beside another one in their token, but for one a token: letters minus tokens, where no
    letter is cut. All letters of an unknown token."""
    kept: dict[str, float | None]
    """Share of its tokens that are still there after a change, in order: mean over the changed texts; None if none."""
    countable: float
    """Share of its different letters whose every occurrence is a token of its own, so that counting tokens counts
    them."""
    asked: str
    """The letter that a question would ask for: its most frequent, the first of those."""
    asked_countable: bool
    spelled: list[str]
    """Tokens of the word written letter by letter, each after a blank."""
    letter_each: bool
    """Whether each of those is one letter, so that the model sees all of them."""


def probe(encoder: Encoder, words: Sequence[str]) -> dict:
    """Probe one tokenizer with some words.

    Returns:
        `words`, `letters`, `tokens`: counts. Shares from 0 to 1: `hidden_share` of the letters, `whole_words_share` of
        the words (one token, no unknown one), `kept` by change (mean over words; None where no word can be changed so),
        `countable_share` of the words' different letters, `asked_countable_share` of the words, `letter_each_share`
        of the words written letter by letter. `examples`: the first words' `Probe`s as dicts.

    Raises:
        UserError: no word, or one that is empty or holds white space.
    """
    probes = list(probes_of(encoder, words))
    letters = sum(len(p.word) for p in probes)
    kept = {name: [p.kept[name] for p in probes] for name in CHANGES}
    different = [len(set(p.word)) for p in probes]
    return {
        "words": len(probes),
        "letters": letters,
        "tokens": sum(len(p.tokens) for p in probes),
        "hidden_share": sum(p.hidden for p in probes) / letters,
        "whole_words_share": fmean(len(p.tokens) == 1 and not p.unknown for p in probes),
        "kept": {name: _mean(shares) for name, shares in kept.items()},
        "countable_share": sum(p.countable * n for p, n in zip(probes, different, strict=True)) / sum(different),
        "asked_countable_share": fmean(p.asked_countable for p in probes),
        "letter_each_share": fmean(p.letter_each for p in probes),
        "examples": [vars(p) for p in probes[:EXAMPLES]],
    }


def probes_of(encoder: Encoder, words: Sequence[str]) -> Iterator[Probe]:
    """Each word's probe."""
    if not words:
        raise UserError("no words to probe the spelling with; name some")
    cutter = Cutter(encoder)
    for number, word in enumerate(words):
        if not word or any(character.isspace() for character in word):
            raise UserError(f"word {number} of the spelling probes: {word!r} must be one word, without white space")
        plain = " " + word
        texts = {name: [t for t in dict.fromkeys(change(word)) if t.strip() and t != plain]
                 for name, change in CHANGES.items()}  # fmt: skip
        spelled_out = "".join(" " + letter for letter in word)
        cuts = cutter.cut([plain, spelled_out, *(text for made in texts.values() for text in made)])
        base, spelled, *changed = (_Tokens(cut, encoder.unknown) for cut in cuts)
        later = iter(changed)
        kept = {name: _mean([base.kept_in(next(later)) for _ in made]) for name, made in texts.items()}
        asked = max(word, key=word.count)
        countable = {letter: base.letters.count(letter) == word.count(letter) for letter in word}
        yield Probe(
            word, base.texts, base.ids.count(None), base.hidden, kept, fmean(countable.values()), asked,
            countable[asked], spelled.texts, all(len(letters) == 1 for letters in spelled.letters),
        )  # fmt: skip


class _Tokens:
    """The tokens of a text, but for those of white space alone."""

    def __init__(self, cut: Cut, unknown: int | None):
        self.ids: list[int | None] = []
        self.texts: list[str] = []
        self.letters: list[str] = []
        """The whole characters in each token, none in an unknown one."""
        self.hidden = 0
        for id_, piece in zip(cut.ids, cut.pieces, strict=True):
            text = piece.decode(errors="backslashreplace")
            if not text.strip(_BLANKS):
                continue
            letters = piece.decode(errors="ignore").strip(_BLANKS)
            missed = id_ == unknown
            self.ids.append(None if missed else id_)
            self.texts.append(text)
            self.letters.append("" if missed else letters)
            self.hidden += len(letters) if missed else max(0, len(letters) - 1)

    def kept_in(self, other: _Tokens) -> float:
        """Share of the tokens that the other text has, too, in order; an unknown one is like no other."""
        return longest_common(self.ids, other.ids) / len(self.ids) if self.ids else 0.0


_BLANKS = " \N{LOWER ONE EIGHTH BLOCK}"  # and how sentencepiece writes one


def longest_common(one: Sequence[int | None], other: Sequence[int | None]) -> int:
    """Length of the longest common subsequence; None equals nothing."""
    row = [0] * (len(other) + 1)
    for a in one:
        diagonal = 0
        for j, b in enumerate(other, 1):
            above = row[j]
            row[j] = diagonal + 1 if a is not None and a == b else max(above, row[j - 1])
            diagonal = above
    return row[-1]


def _mean(values: Iterable[float | None]) -> float | None:
    found = [value for value in values if value is not None]
    return fmean(found) if found else None
