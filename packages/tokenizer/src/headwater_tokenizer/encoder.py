"""Text to ids with a trained tokenizer: the ids of Hugging Face tokenizers, from compiled loops over columns of text.

The loops (pieces.py, bpe.py) know the splits of splits.py and plain byte-level BPE; any other tokenizer.json, and a
text with a piece of more than 4,096 bytes, goes through tokenizers itself. `Encoder.compare_engines` holds the two
against each other on the first documents that it is given.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
from tokenizers import Tokenizer

from headwater_tokenizer._contracts.errors import UserError
from headwater_tokenizer.bpe import Cache, Merges, encode_texts, merges_table, new_cache
from headwater_tokenizer.byte_names import byte_entries, bytes_of_characters
from headwater_tokenizer.classes import class_table
from headwater_tokenizer.pieces import PATTERNS
from headwater_tokenizer.splits import split_pattern

COMPARED_DOCUMENTS = 64
COMPARED_CHARACTERS = 4096  # of each: 64 documents cost about 50 ms
MOST_DIGITS = 9

_KNOWN = {split_pattern(name, digits): (number, digits) for name, number in PATTERNS.items()
          for digits in range(MOST_DIGITS + 1)}  # fmt: skip
"""Regular expression -> number of its walk in pieces.py, longest run of digits."""


@dataclass(frozen=True)
class _Compiled:
    pattern: int
    digits: int
    merges: Merges
    cache: Cache


class Encoder:
    """Encodes text as ordinary text: `<|endoftext|>` written in a document gives its characters' ids, never
    the special id, so that no document can end itself or speak as another role.

    Attributes:
        vocab_size: entries in all, special and reserved ones included.
        engine: `compiled`, or `tokenizers` where the tokenizer is none that the compiled loops know.
        byte_entries: (at most 256,) int64 ids of the entries that are single bytes.
        unknown: id of the unknown token, None where the model has none.
        dtype: smallest type of Megatron's that holds the ids: uint16 below 65,500 entries, else int32
            (megatron.core.datasets.indexed_dataset.DType.optimal_dtype).
    """

    def __init__(self, folder: Path, engine: str = "compiled"):
        """Load `tokenizer.json` from a folder; `engine` tokenizers switches the compiled loops off.

        Raises:
            UserError: the file is missing or not a tokenizer.
        """
        path = Path(folder) / "tokenizer.json"
        try:
            content = path.read_text()
            self._slow = Tokenizer.from_str(content)
        except FileNotFoundError:
            raise UserError(f"{folder}: no tokenizer.json; name a folder that headwater-tokenizer train made") from None
        except Exception as e:  # tokenizers raises plain Exception
            raise UserError(f"{path}: not readable as a tokenizer ({' '.join(str(e).split())})") from None
        self._slow.encode_special_tokens = True
        self._slow.no_padding()
        self._slow.no_truncation()
        self.vocab_size = max(self._slow.get_vocab(with_added_tokens=True).values()) + 1
        described = json.loads(content)
        names = list(bytes_of_characters()) if '"ByteLevel"' in content else byte_entries()
        ids = [self._slow.token_to_id(name) for name in names]
        self.byte_entries = np.array([i for i in ids if i is not None], np.int64)
        model = described["model"]
        unknown = model.get("unk_token")
        self.unknown = model.get("unk_id") if unknown is None else self._slow.token_to_id(unknown)
        self.dtype = np.dtype(np.uint16 if self.vocab_size < 65_500 else np.int32)
        self._fast = _compiled(described) if engine == "compiled" else None

    @property
    def engine(self) -> str:
        return "tokenizers" if self._fast is None else "compiled"

    def id_of(self, token: str) -> int:
        """Id of a special token.

        Raises:
            UserError: the tokenizer has no such token.
        """
        number = self._slow.token_to_id(token)
        if number is None:
            raise UserError(f"the tokenizer has no token {token}; train it with headwater-tokenizer train, or add it")
        return number

    def encode(self, texts: list[str]) -> list[np.ndarray]:
        """Ids of each text: a list of 1-D arrays of `dtype`, without any token added.

        Raises:
            UnicodeEncodeError: a text holds a lone surrogate.
        """
        ids, lengths = self.encode_column(pa.array(texts, pa.large_string()))
        return np.split(ids, np.cumsum(lengths)[:-1]) if texts else []

    def encode_column(self, texts: pa.LargeStringArray, end: int | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Ids of a column of valid UTF-8, texts end to end.

        Args:
            end: id that is written after each text.

        Returns:
            (ids,) of `dtype`, and (texts,) int64: how many are each text's, `end` included.
        """
        if self._fast is None:
            return self._join(self._encode_slowly(texts.to_pylist()), end)
        data, offsets = buffers(texts)
        fast, lengths = self._fast, np.zeros(len(texts), np.int64)
        ids = np.empty(int(offsets[-1] - offsets[0]) + len(texts), self.dtype)
        written = encode_texts(
            data, offsets, class_table(), fast.pattern, fast.digits, fast.merges, fast.cache,
            -1 if end is None else end, ids, lengths,
        )  # fmt: skip
        left = np.flatnonzero(lengths < 0)
        if not len(left):
            return ids[:written], lengths
        parts = np.split(ids[:written], np.cumsum(np.maximum(lengths, 0))[:-1])
        for row, slow in zip(left.tolist(), self._encode_slowly([texts[i].as_py() for i in left]), strict=True):
            parts[row] = slow if end is None else np.append(slow, self.dtype.type(end))
        return self._join(parts, None)

    def _join(self, parts: list[np.ndarray], end: int | None) -> tuple[np.ndarray, np.ndarray]:
        tail = np.array([] if end is None else [end], self.dtype)
        pieces = [piece for part in parts for piece in (part, tail)]
        lengths = np.array([len(part) + len(tail) for part in parts], np.int64)
        return np.concatenate([np.zeros(0, self.dtype), *pieces]), lengths

    def decode(self, ids: np.ndarray) -> str:
        """The text of (ids,) integers, special tokens written out; what is no whole character as U+FFFD.

        Raises:
            UserError: an id is none of the tokenizer's.
        """
        if len(ids) and int(ids.max()) >= self.vocab_size:
            raise UserError(f"id {int(ids.max())} in the data, but the tokenizer has only {self.vocab_size}; name the "
                            "tokenizer that the data was made with")  # fmt: skip
        return self._slow.decode(ids.tolist(), skip_special_tokens=False)

    def compare_engines(self, texts: list[str]) -> bool:
        """Compare the two engines on the beginnings of some texts; where an id differs, use tokenizers from here on.

        Returns:
            Whether the compiled one is in use after it.
        """
        if self._fast is not None:
            begins = [text[:COMPARED_CHARACTERS] for text in texts[:COMPARED_DOCUMENTS]]
            pairs = zip(self.encode(begins), self._encode_slowly(begins), strict=True)
            if not all(np.array_equal(fast, slow) for fast, slow in pairs):
                self._fast = None
        return self._fast is not None

    def _encode_slowly(self, texts: list[str]) -> list[np.ndarray]:
        encodings = self._slow.encode_batch_fast(texts, add_special_tokens=False)
        return [np.array(encoding.ids, self.dtype) for encoding in encodings]


def buffers(texts: pa.LargeStringArray) -> tuple[np.ndarray, np.ndarray]:
    """A column's bytes, (bytes,) uint8, and where its texts begin in them, (texts + 1,) int64; nothing is copied."""
    if not len(texts):
        return np.zeros(0, np.uint8), np.zeros(1, np.int64)
    _, offsets, data = texts.buffers()
    starts = np.frombuffer(offsets, np.int64)[texts.offset : texts.offset + len(texts) + 1]
    return np.frombuffer(data, np.uint8) if data is not None else np.zeros(0, np.uint8), starts


def _compiled(tokenizer: dict) -> _Compiled | None:
    """What the compiled loops need of a byte-level BPE; None where the tokenizer holds anything that they do not do."""
    model, pattern = tokenizer["model"], _pattern(tokenizer.get("pre_tokenizer"))
    others = (
        "dropout",
        "unk_token",
        "continuing_subword_prefix",
        "end_of_word_suffix",
        "byte_fallback",
        "ignore_merges",
    )
    if model["type"] != "BPE" or any(model.get(key) for key in others) or tokenizer.get("normalizer"):
        return None
    byte_of = bytes_of_characters()
    vocabulary: dict[str, int] = model["vocab"]
    merges = [merge if isinstance(merge, list) else merge.split(" ") for merge in model["merges"]]
    if pattern not in _KNOWN or any(c not in vocabulary for c in byte_of):
        return None
    byte_ids = np.zeros(256, np.int32)
    for character, byte in byte_of.items():
        byte_ids[byte] = vocabulary[character]
    pairs = np.array([[vocabulary[a], vocabulary[b]] for a, b in merges], np.int64).reshape(-1, 2)
    ids = np.array([vocabulary[a + b] for a, b in merges], np.int64)
    return _Compiled(*_KNOWN[pattern], merges_table(byte_ids, pairs, ids), new_cache())


def _pattern(pre_tokenizer: dict | None) -> str:
    """The split's regular expression, where the pre-tokenizer is no more than a split and bytes; else nothing."""
    steps = (pre_tokenizer or {}).get("pretokenizers", [pre_tokenizer])
    match steps:
        case [{"type": "ByteLevel", "use_regex": True, "add_prefix_space": False}]:
            return split_pattern("gpt2", digits=0)
        case [
            {"type": "Split", "pattern": {"Regex": str(pattern)}, "behavior": "Isolated", "invert": False},
            {"type": "ByteLevel", "use_regex": False, "add_prefix_space": False},
        ]:
            return pattern
    return ""
