"""Which held-out documents the page shows."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from pathlib import Path

from headwater_tokenizer.corpus import read_split

SEPARATOR = "\0"


def choose(corpus: Path, documents: int, characters: int, seed: int) -> list[dict]:
    """Some held-out documents, of each source and language in turn the one whose id's hash is lowest.

    Returns:
        `{"id", "source", "lang", "text"}`, text cut to so many characters.
    """
    found: dict[tuple[str, str], list[tuple[bytes, str, str]]] = defaultdict(list)
    for batch in read_split(corpus, "heldout"):
        for row, (id_, source, lang) in enumerate(zip(batch.ids, batch.sources, batch.langs, strict=True)):
            key = hashlib.blake2b(f"{seed}{SEPARATOR}{id_}".encode(), digest_size=8).digest()
            group = found[source, lang]
            if len(group) < documents or key < group[-1][0]:
                group.append((key, id_, batch.texts[row].as_py()[:characters]))
                group.sort()
                del group[documents:]
    turns = [(turn, source, lang) for (source, lang), group in found.items() for turn in range(len(group))]
    chosen = [(source, lang, found[source, lang][turn]) for turn, source, lang in sorted(turns)[:documents]]
    return [{"id": id_, "source": source, "lang": lang, "text": text} for source, lang, (_, id_, text) in chosen]
