"""Quality signals of texts: Gopher's, C4's and FineWeb's, each value kept, nothing judged.

A text is split into words and lines once, by compiled loops over its UTF-8 bytes (kernels.py). The published rules
leave some terms open; these are the definitions here, and datatrove's own filter classes, given the same words, come
to the same verdicts (tests/test_quality.py on a few texts, benchmarks/conformance.py on 20,000):

- word: what blanks separate (`str.split`). With spaCy's tokens instead, the rule "80% of words have a letter" alone
  rejects 1,380 of 2,000 technical documents, with these words 84. `words: punctuation` also parts punctuation from
  words, one mark a word, which is close to spaCy's.
- word count and mean length: words that are not punctuation throughout.
- duplicate (line, paragraph): a second or later copy; the first is free. `duplicates: all` counts it too, as dolma and
  DCLM do.
- duplicate n-gram: scanned from the left; a repeated n-gram counts its characters and is skipped as a whole.
  `ngrams: letters` compares the words run together, as datatrove does: in a table of numbers `1 11` repeats `11 1`.
- every share of characters is of the whole text, blanks included; `denominator: words` takes the characters of the
  words, as DCLM and RedPajama do.

Papers: Rae et al. 2021 (Gopher, arXiv 2112.11446, section A1.1 and table A1), Raffel et al. 2020 (C4, arXiv
1910.10683, section 2.2), Penedo et al. 2024 (FineWeb, arXiv 2406.17557, section 3.6).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import polars as pl

from ..buffers import text_buffers
from ..characters import class_table
from ..config.quality import Definitions
from .kernels import measure_texts

TOP_NGRAMS = (2, 3, 4)
DUPLICATE_NGRAMS = (5, 6, 7, 8, 9, 10)

SIGNALS = (
    "characters",
    "gopher_words", "gopher_word_length", "gopher_hashes", "gopher_ellipses", "gopher_bullet_lines",
    "gopher_ellipsis_lines", "gopher_alpha_words", "gopher_stop_words",
    "gopher_duplicate_lines", "gopher_duplicate_line_chars",
    "gopher_duplicate_paragraphs", "gopher_duplicate_paragraph_chars",
    *(f"gopher_top_{n}_gram" for n in TOP_NGRAMS), *(f"gopher_duplicate_{n}_gram" for n in DUPLICATE_NGRAMS),
    "c4_sentences", "c4_curly_brackets", "c4_lorem_ipsum",
    "c4_terminal_sentences", "c4_terminal_curly_brackets", "c4_terminal_lorem_ipsum",
    "c4_javascript_lines", "c4_policy_lines", "c4_longest_word",
    "fineweb_terminal_lines", "fineweb_short_lines", "fineweb_duplicate_line_chars", "fineweb_newlines_per_word",
    "upper_letters", "digits", "symbols", "code_lines",
)  # fmt: skip
"""Column names, in the order in which the kernel fills them.

c4_*: counted over the lines that C4 keeps, without its rule that a line ends in punctuation, as FineWeb runs it;
c4_terminal_*: with that rule. upper_letters is a share of the letters; digits and symbols (neither letter, digit nor
blank) of the characters; code_lines the share of lines that end in one of ; { } as program text does.
"""


def measure(texts: Sequence[str] | pl.Series, definitions: Definitions | None = None) -> pl.DataFrame:
    """All signals of texts, one row a text, Float64: shares are of 1, counts are counts, lengths are characters."""
    definitions = definitions or Definitions()
    data, offsets = text_buffers(texts)
    values = np.zeros((len(SIGNALS), len(offsets) - 1), np.float64)
    measure_texts(
        data, offsets, class_table(), definitions.words == "punctuation", definitions.duplicates == "all",
        definitions.ngrams == "letters", definitions.denominator == "words", values,
    )  # fmt: skip
    return pl.DataFrame({name: values[i] for i, name in enumerate(SIGNALS)})
