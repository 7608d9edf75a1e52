"""Text to ids with a trained tokenizer: tokenizers' ids at tiktoken's speed.

Why the ids are the same. tokenizers merges the pair that was learned first; tiktoken merges the pair whose
concatenation is the token of lowest rank. Merges never cross the ends of a token that stands in the result,
so the pieces inside it came about as they would have with nothing around them; hence every learned token's
bytes, encoded alone, give that token, no token can be learned twice, and any two neighbours whose
concatenation is a token are a learned pair. Both rules then choose the same pair each time. What could
differ is the cut into pieces, since the regular expressions run on other engines: the tests compare them
over every Unicode code point, and `Encoder` compares the two on the first documents that it is given.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import tiktoken
from tokenizers import Tokenizer

from headwater_tokenizer._contracts.errors import UserError
from headwater_tokenizer.splits import split_pattern

COMPARED_DOCUMENTS = 64
COMPARED_CHARACTERS = 4096  # of each: 64 documents cost about 50 ms


class Encoder:
    """Encodes text as ordinary text: `<|endoftext|>` written in a document gives its characters' ids, never
    the special id, so that no document can end itself or speak as another role.

    Attributes:
        vocab_size: entries in all, special and reserved ones included.
        engine: `tiktoken`, or `tokenizers` where the tokenizer's pattern or model has no equal there.
        dtype: smallest type of Megatron's that holds the ids: uint16 below 65,500 entries, else int32
            (megatron.core.datasets.indexed_dataset.DType.optimal_dtype).
    """

    def __init__(self, folder: Path, engine: str = "tiktoken"):
        """Load `tokenizer.json` from a folder; `engine` tokenizers switches tiktoken off.

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
        self.dtype = np.dtype(np.uint16 if self.vocab_size < 65_500 else np.int32)
        fast = _tiktoken(json.loads(content)) if engine == "tiktoken" else None
        self._fast: tiktoken.Encoding | None
        self._id_of_rank: np.ndarray | None
        self._fast, self._id_of_rank = fast or (None, None)

    @property
    def engine(self) -> str:
        return "tokenizers" if self._fast is None else "tiktoken"

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
        """Ids of each text: a list of 1-D arrays of `dtype`, without any token added."""
        if self._fast is None:
            return self._encode_slowly(texts)
        return [self._encode_fast(text) for text in texts]

    def compare_engines(self, texts: list[str]) -> bool:
        """Compare the two engines on the beginnings of some texts; where an id differs, use tokenizers from here on.

        Returns:
            Whether tiktoken is in use after it.
        """
        if self._fast is not None:
            begins = [text[:COMPARED_CHARACTERS] for text in texts[:COMPARED_DOCUMENTS]]
            pairs = zip(self.encode(begins), self._encode_slowly(begins), strict=True)
            if not all(np.array_equal(fast, slow) for fast, slow in pairs):
                self._fast = None
        return self._fast is not None

    def _encode_fast(self, text: str) -> np.ndarray:
        assert self._fast is not None
        try:
            ranks = self._fast.encode_to_numpy(text, disallowed_special=())
        except ValueError:
            # fancy-regex's stack ends at runs of about a million blanks; Oniguruma takes them.
            return self._encode_slowly([text])[0]
        if self._id_of_rank is not None:
            ranks = self._id_of_rank[ranks]
        return ranks.astype(self.dtype)

    def _encode_slowly(self, texts: list[str]) -> list[np.ndarray]:
        encodings = self._slow.encode_batch_fast(texts, add_special_tokens=False)
        return [np.array(encoding.ids, self.dtype) for encoding in encodings]


def _tiktoken(tokenizer: dict) -> tuple[tiktoken.Encoding, np.ndarray | None] | None:
    """The same byte-level BPE as a tiktoken encoding, and the ids of its ranks (None where they are equal).

    None where the tokenizer holds anything that tiktoken cannot express.
    """
    model, pattern = tokenizer["model"], _pattern(tokenizer.get("pre_tokenizer"))
    plain = model["type"] == "BPE" and not any(
        model.get(key) for key in ("dropout", "unk_token", "continuing_subword_prefix", "end_of_word_suffix")
    )
    if not plain or pattern is None or tokenizer.get("normalizer"):
        return None
    byte_of = bytes_of_characters()
    vocabulary: dict[str, int] = model["vocab"]
    singles = [character for character in byte_of if character in vocabulary]
    products = [left + right for left, right in (m if isinstance(m, list) else m.split(" ") for m in model["merges"])]
    ordered = singles + products
    if len(singles) != 256 or len(set(ordered)) != len(ordered) or any(token not in vocabulary for token in ordered):
        return None
    ordered[:256] = sorted(singles, key=vocabulary.__getitem__)
    ranks = {bytes(byte_of[c] for c in token): rank for rank, token in enumerate(ordered)}
    ids = np.array([vocabulary[token] for token in ordered], np.uint32)
    encoding = tiktoken.Encoding("headwater", pat_str=pattern, mergeable_ranks=ranks, special_tokens={})
    return encoding, None if np.array_equal(ids, np.arange(len(ids))) else ids


def _pattern(pre_tokenizer: dict | None) -> str | None:
    """The split's regular expression, where the pre-tokenizer is no more than a split and bytes."""
    steps = (pre_tokenizer or {}).get("pretokenizers", [pre_tokenizer])
    match steps:
        case [{"type": "ByteLevel", "use_regex": True, "add_prefix_space": False}]:
            return split_pattern("gpt2", digits=0)
        case [
            {"type": "Split", "pattern": {"Regex": str(pattern)}, "behavior": "Isolated", "invert": False},
            {"type": "ByteLevel", "use_regex": False, "add_prefix_space": False},
        ]:
            return pattern
    return None


def bytes_of_characters() -> dict[str, int]:
    """GPT-2's printable stand-in of each byte -> the byte (Radford et al. 2019, encoder.py, bytes_to_unicode).

    Printable Latin-1 stands for itself, the other 68 bytes for the characters from U+0100 on.
    """
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(b): b for b in printable} | {chr(0x100 + i): b for i, b in enumerate(others)}
