"""The Moses rules as one expression, beside sacremoses."""

from __future__ import annotations

from difflib import SequenceMatcher

import pytest
from corpora import real_documents
from sacremoses import MosesTokenizer
from tokenizers import Regex, pre_tokenizers

from headwater_tokenizer.moses import moses_pattern


def tokens(text: str, language: str = "en") -> list[str]:
    cut = pre_tokenizers.Split(Regex(moses_pattern(language)), "removed", invert=True)
    return [token for token, _ in cut.pre_tokenize_str(text)]


@pytest.mark.parametrize(
    ("language", "text"),
    [
        ("en", 'It\'s 5,300 m, "wide" (or so) -- e.g. the U.S. one.'),
        ("en", "Mr. Smith's weir, etc., in No. 5 and No. That was it. And then... more"),
        ("en", "approx. the well-known one. The 1990's, it cost $5.30! Didn't it?"),
        ("fr", "L'eau de l'étang n'est pas à M. Dupont, dit-il."),
        ("it", "Dell'acqua, c'è n'è poca."),
        ("de", "Das ist z.B. Hr. Müllers Wehr am 5. Mai. Und dann?"),
    ],
)
def test_sentences_are_cut_as_sacremoses_cuts_them(language, text):
    assert tokens(text, language) == MosesTokenizer(lang=language).tokenize(text, escape=False)


def test_of_real_text_nearly_every_token_is_sacremoses_own():
    moses, same, whole = MosesTokenizer(lang="en"), 0, 0
    for _, text, source in real_documents()[:120]:
        if source == "docstring":
            for line in text.splitlines():
                theirs = moses.tokenize(line, escape=False)
                whole += len(theirs)
                same += sum(b.size for b in SequenceMatcher(None, theirs, tokens(line), False).get_matching_blocks())
    assert whole > 2000
    assert same / whole > 0.98
