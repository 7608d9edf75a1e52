"""What the compiled loops know of a tokenizer.json, and the loop over a column of texts that they share.

    text -> pieces (pieces.py) -> ids, from the cache of pieces (piece_cache.py) or else
        BPE      symbols merged (bpe.py)
        Unigram  the likeliest cut into entries (unigram.py)

BPE without merges over whole texts (characters, bytes) has an id for each symbol and needs no pieces.
"""

from __future__ import annotations

import json
from collections import namedtuple

import numpy as np
from tokenizers import Tokenizer

from headwater_tokenizer.bpe import Symbols, merge, merges_table, new_chain, symbols_of
from headwater_tokenizer.byte_names import byte_entries, bytes_of_characters
from headwater_tokenizer.jit import counted, uncounted
from headwater_tokenizer.piece_cache import LONGEST, copy, find, keep, piece_key
from headwater_tokenizer.pieces import BY_SCRIPT, MARKED, PATTERNS, RAW, WHOLE, piece_end
from headwater_tokenizer.splits import RAW as RAW_PATTERN
from headwater_tokenizer.splits import split_pattern
from headwater_tokenizer.unigram import UNKNOWN_PENALTY, Scores, best_cut, entry_of, new_path, trie_of

BPE, UNIGRAM, SYMBOLS = 0, 1, 2
MOST_DIGITS = 9

_SPLITS = {split_pattern(name, digits, scripts): (number | BY_SCRIPT * scripts, digits)
           for name, number in PATTERNS.items() for digits in range(MOST_DIGITS + 1)
           for scripts in (False, True)}  # fmt: skip
_GPT2 = split_pattern("gpt2", digits=0)
_LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|%s"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
KNOWN = _SPLITS | {
    _LLAMA3 % r"\p{N}{1,3}": (PATTERNS["llama3"], 3),  # as Llama 3 has it
    _LLAMA3 % r"\p{N}": (PATTERNS["llama3"], 1),  # as Qwen 2 has it
    RAW_PATTERN: (RAW, 0),
}
"""Regular expression -> number of its walk in pieces.py, longest run of digits."""

Model = namedtuple(
    "Model", ["kind", "pattern", "digits", "symbols", "merges", "trie", "scores", "whole_first", "of_byte"]
)
"""kind: BPE, UNIGRAM or SYMBOLS (BPE without merges over whole texts). whole_first: whether a piece that is an entry is
that (`ignore_merges`), by the trie; of_byte (256,) int32: the id of a piece of one byte, -1: not one id."""


def compiled(tokenizer: Tokenizer) -> Model | None:
    """The tokenizer for the loops; None where it holds anything that they do not do. Its normaliser is not looked at.

    It is read from what tokenizers holds, not from the file: its JSON reader rounds some scores to a neighbouring f64.
    """
    described = json.loads(tokenizer.to_str())
    cut = _cut(described["pre_tokenizer"])
    if cut is None or not all(token["special"] for token in described["added_tokens"]):
        return None
    pattern, digits, by_bytes = cut
    model = described["model"]
    if len(model["vocab"]) != tokenizer.get_vocab_size(with_added_tokens=False):
        return None  # an id with two names
    if model["type"] == "BPE":
        return _bpe(model, pattern, digits, by_bytes)
    if model["type"] == "Unigram" and not by_bytes and model["unk_id"] is not None:
        return _unigram(model, pattern, digits)
    return None


def _bpe(model: dict, pattern: int, digits: int, by_bytes: bool) -> Model | None:
    vocabulary: dict[str, int] = model["vocab"]
    others = ("dropout", "continuing_subword_prefix", "end_of_word_suffix")
    if any(model[key] for key in others) or "" in vocabulary:
        return None
    if by_bytes:
        byte_of = bytes_of_characters()
        names = sorted(byte_of, key=byte_of.__getitem__)
        if any(name not in vocabulary for name in names):
            return None  # a byte would be unknown
        symbols = Symbols(np.zeros(0, np.int32), _ids(vocabulary, names), -1, False)
        entries = {bytes(byte_of[c] for c in name): i for name, i in vocabulary.items() if byte_of.keys() >= set(name)}
        of_byte = symbols.bytes
    else:
        if model["unk_token"] not in (None, *vocabulary):
            return None
        points = np.full(0x110000, -1, np.int32)
        for name, id_ in vocabulary.items():
            if len(name) == 1:
                points[ord(name)] = id_
        fallback = _ids(vocabulary, byte_entries() if model["byte_fallback"] else [""] * 256)
        symbols = Symbols(points, fallback, vocabulary.get(model["unk_token"], -1), bool(model["fuse_unk"]))
        entries = {name.encode(): i for name, i in vocabulary.items()}
        of_byte = np.where(fallback >= 0, fallback, np.int32(symbols.unknown))
        of_byte = np.where(points[:256] >= 0, points[:256], of_byte)
    pairs = np.array([[vocabulary[a], vocabulary[b]] for a, b in model["merges"]], np.int64).reshape(-1, 2)
    ids = np.array([vocabulary[a + b] for a, b in model["merges"]], np.int64)
    whole_first = bool(model["ignore_merges"])
    trie = trie_of(entries if whole_first else {})
    kind = SYMBOLS if pattern == WHOLE and not len(pairs) and not whole_first else BPE
    unscored = Scores(np.zeros(0, np.float64), 0.0, -1)
    return Model(kind, pattern, digits, symbols, merges_table(pairs, ids), trie, unscored, whole_first, of_byte)


def _unigram(model: dict, pattern: int, digits: int) -> Model:
    vocabulary: list[list] = model["vocab"]
    entries = {name.encode(): i for i, (name, _) in enumerate(vocabulary)}  # the last of equal names counts
    of = np.array([score for _, score in vocabulary], np.float64)
    scores = Scores(of, float(of.min()) - UNKNOWN_PENALTY, model["unk_id"])
    ids = {name.decode(): i for name, i in entries.items()}
    fallback = _ids(ids, byte_entries() if model["byte_fallback"] else [""] * 256)
    symbols, trie = Symbols(np.zeros(0, np.int32), fallback, -1, False), trie_of(entries)
    of_byte, out = np.full(256, -1, np.int32), np.zeros(1, np.int32)
    for byte in range(128):
        best_cut(np.array([byte], np.uint8), 0, 1, trie, scores, fallback, new_path(1), out)
        of_byte[byte] = out[0]
    merges = merges_table(np.zeros((0, 2), np.int64), np.zeros(0, np.int64))
    return Model(UNIGRAM, pattern, digits, symbols, merges, trie, scores, False, of_byte)


def _ids(vocabulary: dict[str, int], names: list[str]) -> np.ndarray:
    """(names,) int32 ids, -1 where there is no such entry."""
    return np.array([vocabulary.get(name, -1) for name in names], np.int32)


def _cut(pre_tokenizer: dict | None) -> tuple[int, int, bool] | None:
    """Walk and digits of the pre-tokenizer, and whether it turns text into bytes; None where it is more than that."""
    steps = [] if pre_tokenizer is None else pre_tokenizer.get("pretokenizers", [pre_tokenizer])
    by_bytes = False
    match steps:
        case [*_, {"type": "ByteLevel", "add_prefix_space": False, "use_regex": bool(by_regex)}]:
            by_bytes = True
            split = {"type": "Split", "pattern": {"Regex": _GPT2}, "behavior": "Isolated", "invert": False}
            steps = [*steps[:-1], *([split] if by_regex else [])]
    match steps:
        case []:
            return WHOLE, 0, by_bytes
        case [{"type": "Split", "pattern": {"Regex": str(found)}, "behavior": "Isolated", "invert": False}]:
            return (*KNOWN[found], by_bytes) if found in KNOWN else None
        case [{"type": "Split", "pattern": {"String": "\u2581"}, "behavior": "MergedWithNext", "invert": False}]:
            return MARKED, 0, by_bytes
    return None


Room = namedtuple("Room", ["ids", "chain", "path"])
"""For one piece: ids, int32, and what `merge` and `best_cut` work in."""


@uncounted(cache=True, nogil=True)
def encode_texts(data, offsets, classes, model, cache, room, end_id, out, lengths):
    """Encode texts one after the other.

    Args:
        data, offsets: UTF-8 bytes, (bytes,) uint8, and where the texts begin in them, (texts + 1,) int64.
        room: `new_room(LONGEST)`.
        end_id: written after each text; -1: nothing is.
        out: room for an id a byte and text, and two more, int32.
        lengths: (texts,) int64, filled with each text's ids, `end_id` included.

    Returns:
        How many ids were written.
    """
    written = 0
    for text in range(len(offsets) - 1):
        first, i, end = written, offsets[text], offsets[text + 1]
        if model.kind == SYMBOLS:
            written = symbols_of(data, i, end, model.symbols, out, written)
            i = end
        while i < end:
            stop = piece_end(data, i, end, classes, model.pattern, model.digits)
            size = stop - i
            if size == 1 and model.of_byte[data[i]] >= 0:
                out[written] = model.of_byte[data[i]]
                written += 1
            elif size <= LONGEST:
                a, b = piece_key(data, i, size)
                at = find(cache, a, b, data, i, size)
                if cache.slots[at + 1] == 0:
                    count = _ids_of(data, i, stop, model, room)
                    keep(cache, at, a, b, data, i, size, room.ids, count)
                    for k in range(count):
                        out[written + k] = room.ids[k]
                    written += count
                else:
                    written = copy(cache, at, out, written)
            else:
                written = _write_long(data, i, stop, model, out, written)
            i = stop
        if end_id >= 0:
            out[written] = end_id
            written += 1
        lengths[text] = written - first
    return written


@uncounted()
def _ids_of(data, start, end, model, room):
    """The ids of a piece that is in no cache, into `room`; how many."""
    if model.kind == UNIGRAM:
        return best_cut(data, start, end, model.trie, model.scores, model.symbols.bytes, room.path, room.ids)
    if model.whole_first:
        entry = entry_of(model.trie, data, start, end)
        if entry >= 0:
            room.ids[0] = entry
            return 1
    count = symbols_of(data, start, end, model.symbols, room.ids, 0)
    return merge(room.ids, count, model.merges, room.chain)


@counted()
def _write_long(data, start, end, model, out, written):
    """A piece of more than LONGEST bytes; returns the new `written`."""
    room = new_room(end - start)
    count = _ids_of(data, start, end, model, room)
    for k in range(count):
        out[written + k] = room.ids[k]
    return written + count


@counted(cache=True)
def new_room(size):
    """For pieces of at most `size` bytes."""
    return Room(np.empty(size, np.int32), new_chain(size), new_path(size))
