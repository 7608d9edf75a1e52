"""sentencepiece's .model file: a protocol buffer, of which the few fields that decide ids are read here.

sentencepiece's own Python module of the format wants the very protobuf that it was generated with; the fields and their
numbers are those of its sentencepiece_model.proto.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = range(1, 7)
"""Types of pieces."""
UNIGRAM, BPE = 1, 2
"""Types of models."""


@dataclass(frozen=True)
class SentencePieceModel:
    """What a .model file says."""

    pieces: list[tuple[str, float, int]]
    """(piece, score, type) by id."""
    model_type: int = UNIGRAM
    byte_fallback: bool = False
    charsmap: bytes = b""
    """The normaliser's compiled rules, empty for none."""
    add_dummy_prefix: bool = True
    remove_extra_whitespaces: bool = True
    blank_as_suffix: bool = False


def parse(data: bytes) -> SentencePieceModel:
    """Read a ModelProto.

    Raises:
        ValueError: it is none.
    """
    pieces: list[tuple[str, float, int]] = []
    trainer: dict[int, int | bytes] = {}
    normalizer: dict[int, int | bytes] = {}
    for number, value in _fields(data):
        match number, value:
            case 1, bytes():
                piece = dict(_fields(value))
                text, score, kind = piece.get(1, b""), piece.get(2, b"\0\0\0\0"), piece.get(3, NORMAL)
                if not isinstance(text, bytes) or not isinstance(score, bytes) or not isinstance(kind, int):
                    raise ValueError("a field of a piece has another type")
                pieces.append((text.decode(), struct.unpack("<f", score)[0], kind))
            case 2, bytes():
                trainer = dict(_fields(value))
            case 3, bytes():
                normalizer = dict(_fields(value))
    charsmap = normalizer.get(2, b"")
    if not pieces or not isinstance(charsmap, bytes):
        raise ValueError("no pieces in it")
    return SentencePieceModel(
        pieces,
        int(trainer.get(3, UNIGRAM)),
        bool(trainer.get(35, 0)),
        charsmap,
        bool(normalizer.get(3, 1)),
        bool(normalizer.get(4, 1)),
        bool(trainer.get(24, 0)),
    )


def _fields(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Number and value of each field of a message: an int for a varint, else its bytes (protobuf's wire format)."""
    at = 0
    while at < len(data):
        tag, at = _varint(data, at)
        kind = tag & 7
        if kind == 0:
            value, at = _varint(data, at)
            yield tag >> 3, value
            continue
        if kind not in (1, 2, 5):
            raise ValueError(f"wire type {kind} at byte {at}")
        size, at = _varint(data, at) if kind == 2 else (8 if kind == 1 else 4, at)
        if at + size > len(data):
            raise ValueError(f"cut off at byte {len(data)}")
        yield tag >> 3, data[at : at + size]
        at += size


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while at < len(data) and shift < 70:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            return value, at
    raise ValueError(f"cut off at byte {at}")
