"""Benchmark items must not be learnt from demonstrations: does a text hold one?"""

from __future__ import annotations

import re
from pathlib import Path

from . import jsonl

N = 13  # words; the n-gram length of GPT-3's contamination study (arXiv:2005.14165, appendix C)
SHORTEST = 6  # words; a shorter item ("yes", "the sun") is in many texts by chance

_WORD = re.compile(r"\w+")


class ItemIndex:
    """The word n-grams of all items of an items artefact."""

    def __init__(self, texts: list[str]):
        self.grams: dict[int, set[tuple[str, ...]]] = {}
        self.whole: set[tuple[str, ...]] = set()
        for text in texts:
            words = tuple(_WORD.findall(text.casefold()))
            self.whole.add(words)
            n = min(N, len(words))
            if n >= SHORTEST:
                self.grams.setdefault(n, set()).update(words[i : i + n] for i in range(len(words) - n + 1))

    @classmethod
    def from_artefact(cls, folder: Path) -> ItemIndex:
        """Read the `text` of every TASK.jsonl."""
        texts = []
        for path in sorted(folder.glob("*.jsonl")):
            texts += [item["text"] for item in jsonl.read(path)]
        return cls(texts)

    def found_in(self, text: str) -> bool:
        """Whether the text shares 13 words in a row with an item, or holds the whole of a shorter one."""
        words = tuple(_WORD.findall(text.casefold()))
        return any(words[i : i + n] in grams for n, grams in self.grams.items() for i in range(len(words) - n + 1))

    def holds(self, text: str) -> bool:
        """Whether the text is an item word for word, however short."""
        return tuple(_WORD.findall(text.casefold())) in self.whole
