"""Which bytes of a text each of its tokens covers, for any tokenizer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate, pairwise

from tokenizers import Tokenizer

from headwater_tokenizer.byte_names import byte_entries, bytes_of_characters
from headwater_tokenizer.encoder import Encoder

Span = tuple[int, int]
"""Bytes [start, end) of a text's UTF-8."""


@dataclass(frozen=True)
class Cut:
    """A text and its tokens."""

    text: str
    """As the model's vocabulary sees it: the normalised text where the tokenizer normalises."""
    ids: list[int]
    spans: list[Span]
    """Of each token in `text`: ascending, apart; bytes between them are no token's (white space that a tokenizer
    drops). Empty for a token that stands for no byte of its own."""
    origin: list[Span] | None
    """Of each token in the text as it was given, where that is another; these may overlap."""

    @cached_property
    def pieces(self) -> list[bytes]:
        """The bytes of each token."""
        data = self.text.encode()
        return [data[start:end] for start, end in self.spans]


class Cutter:
    """Cuts texts with one tokenizer.

    The tokens' own bytes are the spans where they make up the text, which holds for every lossless tokenizer, also
    inside a character; otherwise (unknown tokens, words without their blanks) the spans are the offsets that
    tokenizers reports, in whole characters.
    """

    def __init__(self, encoder: Encoder):
        self.encoder = encoder
        self._whole: Tokenizer = encoder._slow
        self._added = {id_: added.content for id_, added in self._whole.get_added_tokens_decoder().items()}
        by_level = "ByteLevel" in f"{self._whole.pre_tokenizer} {self._whole.decoder}"
        self._byte_of = bytes_of_characters() if by_level else None
        self._known: dict[int, bytes | None] = {}

    def cut(self, texts: list[str]) -> list[Cut]:
        """The tokens of each text, without any token added."""
        encoded = self.encoder.encode(texts)
        return [self._cut(text, ids.tolist()) for text, ids in zip(texts, encoded, strict=True)]

    def _cut(self, text: str, ids: list[int]) -> Cut:
        normalizer = self._whole.normalizer
        shown = text if normalizer is None else normalizer.normalize_str(text)
        known = [self._bytes_of(id_) for id_ in ids]
        certain = [part for part in known if part is not None]
        if len(certain) == len(ids) and b"".join(certain) == shown.encode():
            spans = list(pairwise(accumulate((len(part) for part in certain), initial=0)))
        else:
            encoding = self._bare.encode(shown, add_special_tokens=False)
            if encoding.ids != ids:  # a normaliser that is more than a rewriting of the text: show what was given
                shown, encoding = text, self._whole.encode(text, add_special_tokens=False)
            spans = apart(in_bytes(encoding.offsets, shown), known)
        if shown == text:
            return Cut(shown, ids, spans, None)
        offsets = self._whole.encode(text, add_special_tokens=False).offsets
        return Cut(shown, ids, spans, in_bytes(offsets, text))

    @cached_property
    def _bare(self) -> Tokenizer:
        """The tokenizer without its normaliser, whose offsets are those in the normalised text."""
        if self._whole.normalizer is None:
            return self._whole
        bare = Tokenizer.from_str(self._whole.to_str())
        bare.normalizer = None
        bare.encode_special_tokens = True
        return bare

    def _bytes_of(self, id_: int) -> bytes | None:
        if id_ not in self._known:
            self._known[id_] = self._read(id_)
        return self._known[id_]

    def _read(self, id_: int) -> bytes | None:
        """The bytes that an entry stands for; None where that is not fixed."""
        if id_ == self.encoder.unknown:
            return None
        if id_ in self._added:
            return self._added[id_].encode()
        token = self._whole.id_to_token(id_)
        if token is None:
            return None
        if self._byte_of is not None:
            found = [self._byte_of.get(character) for character in token]
            return bytes(byte for byte in found if byte is not None) if None not in found else None
        return bytes([_FALLBACK[token]]) if token in _FALLBACK else token.encode()


_FALLBACK = {name: byte for byte, name in enumerate(byte_entries())}


def in_bytes(offsets: Sequence[Span], text: str) -> list[Span]:
    """Offsets in characters as offsets in UTF-8."""
    at = list(accumulate((len(character.encode()) for character in text), initial=0))
    return [(at[start], at[end]) for start, end in offsets]


def apart(ranges: Sequence[Span], known: Sequence[bytes | None]) -> list[Span]:
    """Spans that do not overlap, from ranges that do where several tokens share a character.

    Such a run of tokens is cut by the tokens' own bytes where they are as many as the run's; else the first has the
    character and the others nothing.

    Args:
        ranges: of each token, starts ascending.
        known: of each token its bytes, or None.
    """
    spans: list[Span] = []
    at = first = 0
    while first < len(ranges):
        start, end = ranges[first]
        after = first + 1
        while after < len(ranges) and ranges[after][0] < end:
            end = max(end, ranges[after][1])
            after += 1
        start = max(at, start)
        sizes = [-1 if part is None else len(part) for part in known[first:after]]
        if after - first > 1 and min(sizes) >= 0 and sum(sizes) == end - start:
            spans += pairwise(accumulate(sizes, initial=start))
        else:
            for low, high in ranges[first:after]:
                low = max(at, low)
                spans.append((low, max(low, high)))
                at = spans[-1][1]
        at, first = max(at, end), after
    return spans
