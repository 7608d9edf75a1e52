"""A tokenizer under comparison: its entries as bytes, and which bytes of a text each token covers.

Where the entries' own bytes make up the text, as with every lossless tokenizer that changes nothing, spans are their
lengths summed up; else they are the offsets that tokenizers itself reports.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
from tokenizers import Tokenizer

from headwater_tokenizer.byte_names import byte_entries, bytes_of_characters
from headwater_tokenizer.encoder import Encoder, buffers

BLANK = "\u2581"
"""How sentencepiece writes one."""
_NEVER_FITS = -(1 << 40)
"""Length of an entry without bytes of its own: no sum with it is a text's."""


@dataclass(frozen=True)
class Spans:
    """The tokens of a column of texts."""

    ids: np.ndarray
    """(tokens,), texts end to end."""
    counts: np.ndarray
    """(texts,) int64: tokens of each."""
    starts: np.ndarray
    """(tokens,) int64: where each begins in the column's bytes (`encoder.buffers`)."""
    ends: np.ndarray


class Subject:
    """One tokenizer.

    Attributes:
        encoder: the one that `encode` uses.
        pieces: bytes that each id stands for in text, by id; a special token's are its name's.
        learned: (learned,) int64 ids of the entries that are no special tokens.
        byte_ids: ids of the entries that write one byte of a character outside ASCII, or any byte as a fallback.
    """

    def __init__(self, name: str, folder: Path):
        """Load a tokenizer artefact.

        Raises:
            UserError: it holds no readable tokenizer.json.
        """
        self.name, self.folder = name, Path(folder)
        self.encoder = Encoder(self.folder)
        content = (self.folder / "tokenizer.json").read_text()
        described = json.loads(content)
        self.tokenizer = Tokenizer.from_str(content)
        self.tokenizer.encode_special_tokens = True
        self.tokenizer.no_padding()
        self.tokenizer.no_truncation()
        special = {token["content"] for token in described["added_tokens"] if token["special"]}
        vocabulary = self.tokenizer.get_vocab(with_added_tokens=False)
        learned = {entry: i for entry, i in vocabulary.items() if entry not in special}
        self.learned = np.array(sorted(learned.values()), np.int64)
        written = _written(described)
        self.pieces = [b""] * self.encoder.vocab_size
        for entry, i in self.tokenizer.get_vocab(with_added_tokens=True).items():
            self.pieces[i] = written(entry) if entry in learned else entry.encode()
        self._by_level = _by_level(described)
        self._sizes = np.array([len(piece) or _NEVER_FITS for piece in self.pieces], np.int64)
        if self.encoder.unknown is not None:
            self._sizes[self.encoder.unknown] = _NEVER_FITS
        self._changes_nothing = _changes_nothing(described)
        fallback = set(byte_entries()) if described["model"].get("byte_fallback") else set()
        single = (i for entry, i in learned.items() if len(self.pieces[i]) == 1
                  and (entry in fallback or self.pieces[i][0] >= 0x80))  # fmt: skip
        self.byte_ids = np.array(sorted(single), np.int64)

    def name_of(self, number: int) -> str:
        """An entry as a reader would know it: its text where it is written in stand-ins for bytes, else its name."""
        if self._by_level:
            return self.pieces[number].decode(errors="replace")
        return self.tokenizer.id_to_token(number) or ""

    def encode(self, texts: list[str]) -> Spans:
        """`spans` of a list."""
        return self.spans(pa.array(texts, pa.large_string()))

    def spans(self, texts: pa.LargeStringArray) -> Spans:
        """The tokens of a column of texts, without any token added."""
        ids, counts = self.encoder.encode_column(texts)
        _, offsets = buffers(texts)
        ends = np.cumsum(self._sizes[ids])
        of_text = np.diff(np.concatenate([[0], ends])[np.concatenate([[0], np.cumsum(counts)])])
        if self._changes_nothing and np.array_equal(of_text, np.diff(offsets)):
            ends += offsets[0]
            return Spans(ids, counts, ends - self._sizes[ids], ends)
        return self._reported(texts)

    def _reported(self, texts: pa.LargeStringArray) -> Spans:
        data, offsets = buffers(texts)
        encodings = self.tokenizer.encode_batch(texts.to_pylist(), add_special_tokens=False)
        starts, ends = [], []
        for encoding, start, end in zip(encodings, offsets[:-1].tolist(), offsets[1:].tolist(), strict=True):
            begins = np.flatnonzero((data[start:end] & 0xC0) != 0x80)  # byte at which each character begins
            at = np.append(begins, end - start) + start
            characters = np.array(encoding.offsets, np.int64).reshape(-1, 2)
            starts.append(at[characters[:, 0]])
            ends.append(at[characters[:, 1]])
        none = np.zeros(0, np.int64)
        return Spans(
            np.array([i for encoding in encodings for i in encoding.ids], self.encoder.dtype),
            np.array([len(encoding) for encoding in encodings], np.int64),
            np.concatenate([none, *starts]),
            np.concatenate([none, *ends]),
        )

    def normalized(self, text: str) -> str:
        """What the tokenizer reads instead of a text, sentencepiece's marks for blanks undone."""
        if self.tokenizer.normalizer is None:
            return text
        found = self.tokenizer.normalizer.normalize_str(text)
        if BLANK in found and BLANK not in text:
            found = found.replace(BLANK, " ")
            return found[1:] if found[:1] == " " and text[:1] != " " else found
        return found


def _by_level(described: dict) -> bool:
    """Whether entries are written in stand-ins for bytes."""
    return '"ByteLevel"' in json.dumps([described.get("pre_tokenizer"), described.get("decoder")])


def _written(described: dict):
    """What an entry of the model stands for in text, as a function of its name."""
    model = described["model"]
    if _by_level(described):
        byte_of = bytes_of_characters()
        return lambda name: bytes(map(byte_of.__getitem__, name)) if all(c in byte_of for c in name) else name.encode()
    fallback = {name: bytes([byte]) for byte, name in enumerate(byte_entries())} if model.get("byte_fallback") else {}
    before, after = model.get("continuing_subword_prefix") or "", model.get("end_of_word_suffix") or ""
    blank = BLANK if BLANK in json.dumps(described.get("decoder"), ensure_ascii=False) else " "
    return lambda name: fallback.get(name) or name.removeprefix(before).removesuffix(after).replace(blank, " ").encode()


def _changes_nothing(described: dict) -> bool:
    """Whether every byte of a text is in one of its tokens, for all that the normaliser and the cuts do."""
    cut = described.get("pre_tokenizer") or {"type": "Sequence", "pretokenizers": []}
    steps = cut["pretokenizers"] if cut["type"] == "Sequence" else [cut]
    kept = all(
        (step["type"] == "Split" and step["behavior"] != "Removed")
        or (step["type"] == "ByteLevel" and not step["add_prefix_space"])
        for step in steps
    )
    return kept and not described.get("normalizer") and described["model"]["type"] in ("BPE", "Unigram")
