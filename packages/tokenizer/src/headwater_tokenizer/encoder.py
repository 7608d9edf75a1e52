"""Text to ids with a trained tokenizer: the ids of Hugging Face tokenizers, from compiled loops over columns of text.

The loops (compiled.py) know BPE and Unigram behind the splits of pieces.py and any normaliser; any other tokenizer.json
goes through tokenizers itself. `Encoder.compare_engines` holds the two against each other on the first documents that
it is given.
"""

from __future__ import annotations

import json
import re
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from tokenizers import Tokenizer

from headwater_tokenizer._contracts.errors import UserError
from headwater_tokenizer.byte_names import byte_entries, bytes_of_characters
from headwater_tokenizer.classes import class_table
from headwater_tokenizer.compiled import compiled, encode_texts, new_room
from headwater_tokenizer.piece_cache import LONGEST, new_cache

COMPARED_DOCUMENTS = 64
COMPARED_CHARACTERS = 4096  # of each: 64 documents cost about 50 ms
MOST_IDS = 2**31
_BYTE = re.compile("<0x[0-9A-Fa-f]{2}>")
_PLAIN = ("NFC", "NFD", "NFKC", "NFKD", "Lowercase")
"""Normalisers that change of ASCII nothing but the case."""


class Encoder:
    """Encodes text as ordinary text: `<|endoftext|>` written in a document gives its characters' ids, never
    the special id, so that no document can end itself or speak as another role. It remembers pieces of text (48 MB),
    so each thread needs one of its own.

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
        self.vocab_size = max(self._slow.get_vocab(with_added_tokens=True).values(), default=-1) + 1
        if not 0 < self.vocab_size <= MOST_IDS:
            raise UserError(
                f"{path}: ids up to {self.vocab_size - 1}, but Megatron's token files hold 0 to {MOST_IDS - 1}; give "
                "its entries ids without gaps"
            )
        described = json.loads(content)
        names = list(bytes_of_characters()) if '"ByteLevel"' in content else byte_entries()
        ids = [self._slow.token_to_id(name) for name in names]
        self.byte_entries = np.array([i for i in ids if i is not None], np.int64)
        model = described["model"]
        unknown = model.get("unk_token")
        self.unknown = model.get("unk_id") if unknown is None else self._slow.token_to_id(unknown)
        self.dtype = np.dtype(np.uint16 if self.vocab_size < 65_500 else np.int32)
        self._fast = compiled(self._slow) if engine == "compiled" else None
        self._cache, self._room = new_cache(), new_room(LONGEST)
        self._decoder = described.get("decoder")
        step = described.get("normalizer")
        steps = step.get("normalizers", [step]) if step else []
        self._plain = all(step["type"] in _PLAIN for step in steps)
        self._lower = any(step["type"] == "Lowercase" for step in steps)

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
            return self._encode_slowly(texts.to_pylist(), end)
        data, offsets = buffers(self._normalized(texts))
        ids = np.empty(int(offsets[-1] - offsets[0]) + len(texts) + 2, np.int32)
        lengths = np.zeros(len(texts), np.int64)
        written = encode_texts(
            data, offsets, class_table(), self._fast, self._cache, self._room, -1 if end is None else end, ids, lengths
        )
        return ids[:written].astype(self.dtype), lengths

    def _normalized(self, texts: pa.LargeStringArray) -> pa.LargeStringArray:
        normalizer = self._slow.normalizer
        if normalizer is None:
            return texts
        others = pc.invert(pc.string_is_ascii(texts)) if self._plain else pa.array([True] * len(texts), pa.bool_())
        changed = [normalizer.normalize_str(text) for text in texts.filter(others).to_pylist()]
        same = pc.ascii_lower(texts) if self._lower else texts
        return pc.replace_with_mask(same, others, pa.array(changed, pa.large_string()))

    def decode(self, ids: np.ndarray) -> str:
        """The text of (ids,) integers, special tokens written out; what is no whole character as U+FFFD.

        Raises:
            UserError: an id is none of the tokenizer's.
        """
        self._refuse_strange(ids)
        return self._slow.decode(ids.tolist(), skip_special_tokens=False)

    def decode_column(self, ids: np.ndarray, lengths: np.ndarray) -> pa.LargeStringArray:
        """The texts of documents end to end, as `decode` gives them.

        Args:
            ids: (ids,) integers.
            lengths: (documents,) how many are each document's.

        Raises:
            UserError: an id is none of the tokenizer's.
        """
        self._refuse_strange(ids)
        ends = np.cumsum(lengths, dtype=np.int64)
        if self._entries is None:
            return pa.array(self._decode_slowly(ids, ends), pa.large_string())
        tokens = self._entries.take(pa.array(ids))
        data, starts = buffers(tokens)
        offsets = pa.py_buffer(np.concatenate([starts[:1], starts[ends]]))
        texts = pa.LargeBinaryArray.from_buffers(pa.large_binary(), len(ends), [None, offsets, pa.py_buffer(data)])
        try:
            return texts.cast(pa.large_string())
        except pa.ArrowInvalid:  # some document is no whole characters
            return pa.array(self._decode_slowly(ids, ends), pa.large_string())

    def _decode_slowly(self, ids: np.ndarray, ends: np.ndarray) -> list[str]:
        parts = np.split(ids, ends[:-1]) if len(ends) else []
        return self._slow.decode_batch([part.tolist() for part in parts], skip_special_tokens=False)

    @cached_property
    def _entries(self) -> pa.LargeBinaryArray | None:
        """The bytes of each id, where decoding is no more than putting them together."""
        names = [self._slow.id_to_token(i) or "" for i in range(self.vocab_size)]
        match self._decoder:
            case {"type": "ByteLevel"}:
                byte_of = bytes_of_characters()
                known = [bytes(map(byte_of.__getitem__, name)) if byte_of.keys() >= set(name) else name.encode()
                         for name in names]  # fmt: skip
            case {"type": "Sequence", "decoders": [{"type": "ByteFallback"}, {"type": "Fuse"}]}:
                known = [bytes([int(name[3:5], 16)]) if _BYTE.fullmatch(name) else name.encode() for name in names]
            case _:
                return None
        return pa.array(known, pa.large_binary())

    def _refuse_strange(self, ids: np.ndarray) -> None:
        if len(ids) and int(ids.max()) >= self.vocab_size:
            raise UserError(f"id {int(ids.max())} in the data, but the tokenizer has only {self.vocab_size}; name the "
                            "tokenizer that the data was made with")  # fmt: skip

    def compare_engines(self, texts: list[str]) -> bool:
        """Compare the two engines on the beginnings of some texts; where an id differs, use tokenizers from here on.

        Returns:
            Whether the compiled one is in use after it.
        """
        if self._fast is not None:
            begins = [text[:COMPARED_CHARACTERS] for text in texts[:COMPARED_DOCUMENTS]]
            pairs = zip(
                self.encode_column(pa.array(begins, pa.large_string())), self._encode_slowly(begins), strict=True
            )
            if not all(np.array_equal(fast, slow) for fast, slow in pairs):
                self._fast = None
        return self._fast is not None

    def _encode_slowly(self, texts: list[str], end: int | None = None) -> tuple[np.ndarray, np.ndarray]:
        encodings = self._slow.encode_batch_fast(texts, add_special_tokens=False)
        tail = [] if end is None else [end]
        parts = [np.array(encoding.ids + tail, self.dtype) for encoding in encodings]
        lengths = np.array([len(part) for part in parts], np.int64)
        return np.concatenate([np.zeros(0, self.dtype), *parts]), lengths


def buffers(texts: pa.LargeStringArray) -> tuple[np.ndarray, np.ndarray]:
    """A column's bytes, (bytes,) uint8, and where its texts begin in them, (texts + 1,) int64; nothing is copied."""
    if not len(texts):
        return np.zeros(0, np.uint8), np.zeros(1, np.int64)
    _, offsets, data = texts.buffers()
    starts = np.frombuffer(offsets, np.int64)[texts.offset : texts.offset + len(texts) + 1]
    return np.frombuffer(data, np.uint8) if data is not None else np.zeros(0, np.uint8), starts
