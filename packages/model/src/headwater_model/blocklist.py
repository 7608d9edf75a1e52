"""Words and phrases that are never written, wherever tokens begin and end in them.

The ids that would complete a phrase are masked before each choice, as in the word filtering of Gehman et al. 2020
(arXiv:2009.11462); a phrase may span tokens, and a token may hold more than the phrase. An automaton reads characters:
its state is how far each phrase has come. For a state the set of masked ids is found once, in the tree of all tokens'
bytes, of which only the branches are visited whose states differ from those of the beginning of a text.

A word counts as whole where no letter, digit or underscore stands beside it. A text may end after any token, so a
phrase is refused at its last letter: "classic" may be written with "class" blocked where one token holds both "class"
and a letter more, but not as "class" and "ic".
"""

from __future__ import annotations

import codecs
import functools
import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

import torch
from tokenizers import Tokenizer
from torch import Tensor

from ._contracts.errors import UserError

SPACE = " "
"""Any white space, as much as there is."""
HIT = -1
"""The state of a text that holds a phrase."""


def read(path: Path) -> list[str]:
    """The phrases of a file, one a line; empty lines count nothing.

    Raises:
        UserError: no such file, not UTF-8, or nothing in it.
    """
    try:
        phrases = [line.strip() for line in Path(path).read_text("utf-8").splitlines() if line.strip()]
    except OSError as e:
        raise UserError(f"{path}: {e.strerror}; a blocklist is a text file with one word or phrase a line") from None
    except UnicodeDecodeError:
        raise UserError(f"{path}: not UTF-8; a blocklist is a text file with one word or phrase a line") from None
    if not phrases:
        raise UserError(f"{path}: no word in it; write one word or phrase a line")
    return phrases


class Phrases:
    """An automaton over characters that knows when a phrase has been written.

    Args:
        phrases: white space in them stands for any; what else they hold is taken as it is.
        ignore_case: letters match whatever their case, one by one (not ss for ß).
        whole_words: a phrase that begins or ends with a letter, a digit or an underscore has no other such beside it.

    A state is an int; `HIT` is that of a text that holds a phrase. `START` is the beginning of a text.
    """

    START = 0

    def __init__(self, phrases: Iterable[str], ignore_case: bool = True, whole_words: bool = True):
        """Raises UserError where a phrase is empty."""
        self._ignore_case, self._whole = ignore_case, whole_words
        self._children: list[dict[str, int]] = [{}]  # node 0: no phrase has begun
        self._reached: list[str] = [""]  # by which element a node is reached
        self._ends: list[bool] = [False]
        self._spent: dict[int, int] = {}
        for phrase in phrases:
            elements = re.sub(r"\s+", SPACE, phrase.strip())
            if not elements:
                raise UserError("a blocked phrase is empty; leave it out, or give some text")
            node = 0
            for element in map(self._fold, elements):
                if element not in self._children[node]:
                    self._children[node][element] = self._node(element)
                node = self._children[node][element]
            self._ends[node] = True
        self._states: list[tuple[frozenset[int], bool]] = [(frozenset(), False)]
        self._numbers = {self._states[0]: 0}
        self._steps: dict[tuple[int, str], tuple[int, bool]] = {}

    def step(self, state: int, character: str) -> int:
        """The state after one more character."""
        if state == HIT:
            return HIT
        after, hit = self._next(state, character)
        return HIT if hit else after

    def follow(self, state: int, character: str) -> int:
        """The state after one more character of a text that may hold phrases."""
        return self._next(state, character)[0]

    def complete(self, state: int) -> bool:
        """Whether a text that ends in this state holds a phrase."""
        return state == HIT or any(self._ends[node] for node in self._states[state][0])

    def resume(self, state: int) -> int:
        """A state at which another text goes on: what is complete counts for it no more, and it begins a word."""
        active, _ = self._states[state]
        return self._number(frozenset(self._spend(node) for node in active), False)

    def _next(self, state: int, character: str) -> tuple[int, bool]:
        """The state after one more character, and whether a phrase has been completed with it."""
        key = state, character
        if key not in self._steps:
            self._steps[key] = self._find(*self._states[state], character)
        return self._steps[key]

    def _find(self, active: frozenset[int], after_word: bool, character: str) -> tuple[int, bool]:
        space, word = character.isspace(), _in_word(character)
        element = SPACE if space else self._fold(character)
        found = {self._children[node][element] for node in active if element in self._children[node]}
        if space:
            found |= {node for node in active if self._reached[node] == SPACE}
        begun = self._children[0].get(element)
        if begun is not None and not (self._whole and after_word and word):
            found.add(begun)
        before = not word and any(self._ends[node] for node in active)  # a whole word, now that it goes on no more
        now = any(self._ends[node] and not (self._whole and _in_word(self._reached[node])) for node in found)
        return self._number(frozenset(found), word), before or now

    def _number(self, active: frozenset[int], after_word: bool) -> int:
        state = active, after_word
        if state not in self._numbers:
            self._numbers[state] = len(self._states)
            self._states.append(state)
        return self._numbers[state]

    def _node(self, element: str) -> int:
        self._children.append({})
        self._reached.append(element)
        self._ends.append(False)
        return len(self._ends) - 1

    def _spend(self, node: int) -> int:
        """The node, or where a phrase ends there one beside it from which only longer phrases go on."""
        if not self._ends[node]:
            return node
        if node not in self._spent:
            self._spent[node] = self._node(self._reached[node])
            self._children[self._spent[node]] = self._children[node]
        return self._spent[node]

    def _fold(self, character: str) -> str:
        if not self._ignore_case:
            return character
        return next((f for f in (character.casefold(), character.lower()) if len(f) == 1), character)


def _in_word(character: str) -> bool:
    return character.isalnum() or character == "_"


class Blocklist:
    """A guide (`generation.Guide`) under which no text ever holds one of the phrases.

    What the prompt begins is not completed either. Characters that span tokens are read as a decoder reads them: bytes
    that are no UTF-8 are one U+FFFD, and of an unfinished character nothing is known yet. Special tokens have no text.

    Args:
        phrases, ignore_case, whole_words: see `Phrases`.
        tokenizer: that of the model; a byte-level one, or one with ▁ for blanks and <0x0A> for bytes.

    Raises:
        UserError: an empty phrase, or a tokenizer of another kind.
    """

    def __init__(
        self, phrases: Iterable[str], tokenizer: Tokenizer, ignore_case: bool = True, whole_words: bool = True
    ):
        self._phrases = Phrases(phrases, ignore_case, whole_words)
        self._bytes = token_bytes(tokenizer)
        written = sorted((text, i) for i, text in enumerate(self._bytes) if text)
        self._order = torch.tensor([i for _, i in written], dtype=torch.long)
        self._tree = _Tree([text for text, _ in written])
        self._base = self._of_tree()
        self._special = {i for i, text in enumerate(self._bytes) if not text}
        self._masked: dict[tuple[int, bytes], Tensor] = {}

    def start(self, prompts: list[list[int]], new: int) -> BlockedRows:
        """For a batch of prompts."""
        return BlockedRows(self, [self._after(prompt) for prompt in prompts])

    def masked(self, state: tuple[int, bytes]) -> Tensor:
        """Which ids would complete a phrase: bool [ids of the tokenizer].

        Args:
            state: of the automaton, and the bytes of an unfinished character.

        Raises:
            UserError: all of them would.
        """
        if state not in self._masked:
            here = self._base[1].clone()
            self._visit(0, *state, here)
            mask = torch.zeros(len(self._bytes), dtype=torch.bool)
            mask[self._order] = here
            if mask.all():
                raise UserError("the blocklist leaves no token to write; take out its shortest words")
            self._masked[state] = mask
        return self._masked[state]

    def advance(self, state: tuple[int, bytes], token: int) -> tuple[int, bytes]:
        """The state after one more id."""
        number, pending = state
        for byte in self._text(token):
            number, pending = self._byte(number, pending, byte)
        return number, pending

    def _after(self, prompt: list[int]) -> tuple[int, bytes]:
        number, pending = self._phrases.START, b""
        for token in prompt:
            if token in self._special:
                number, pending = self._phrases.START, b""
            for byte in self._text(token):
                text, pending = _read(pending, byte)
                for character in text:
                    number = self._phrases.follow(number, character)
        return self._phrases.resume(number), b""

    def _byte(self, number: int, pending: bytes, byte: int) -> tuple[int, bytes]:
        text, pending = _read(pending, byte)
        for character in text:
            number = self._phrases.step(number, character)
        return number, pending

    def _text(self, token: int) -> bytes:
        return self._bytes[token] if token < len(self._bytes) else b""

    def _of_tree(self) -> tuple[list[tuple[int, bytes]], Tensor]:
        """From the beginning of a text: the state at each node of the tree, and which tokens complete a phrase."""
        states = [(HIT, b"")] * len(self._tree.children)
        states[0] = self._phrases.START, b""
        masked = torch.ones(len(self._order), dtype=torch.bool)
        todo = [0]
        while todo:
            node = todo.pop()
            first, last = self._tree.own[node]
            masked[first:last] = self._phrases.complete(states[node][0])
            for byte, child in self._tree.children[node].items():
                states[child] = self._byte(*states[node], byte)
                if states[child][0] != HIT:
                    todo.append(child)
        return states, masked

    def _visit(self, node: int, number: int, pending: bytes, masked: Tensor) -> None:
        """Correct `masked` (in the tree's order) below a node which is reached in another state than from START."""
        for byte, child in self._tree.children[node].items():
            state = self._byte(number, pending, byte)
            if state == self._base[0][child]:
                continue
            if state[0] == HIT:
                first, last = self._tree.below[child]
                masked[first:last] = True
                continue
            first, last = self._tree.own[child]
            masked[first:last] = self._phrases.complete(state[0])
            self._visit(child, *state, masked)


class BlockedRows:
    """A blocklist at work on the rows of a batch (`generation.RowGuide`)."""

    def __init__(self, blocklist: Blocklist, states: list[tuple[int, bytes]]):
        self._blocklist, self._states = blocklist, states

    def logits(self, logits: Tensor) -> Tensor:
        """Without the ids that would complete a phrase."""
        masks = torch.stack([self._blocklist.masked(state) for state in self._states])
        logits = logits.clone()
        logits[:, : masks.size(1)].masked_fill_(masks[:, : logits.size(1)], -torch.inf)
        return logits

    def add(self, ids: Tensor) -> None:
        """The ids that were chosen, int64 [batch]."""
        chosen = zip(self._states, ids.tolist(), strict=True)
        self._states = [self._blocklist.advance(state, token) for state, token in chosen]

    def keep(self, rows: list[int]) -> None:
        """Go on with these rows alone."""
        self._states = [self._states[row] for row in rows]


@functools.lru_cache(maxsize=65_536)
def _read(pending: bytes, byte: int) -> tuple[str, bytes]:
    """The characters that one more byte completes, and the bytes of a character that it leaves unfinished."""
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    return decoder.decode(pending + bytes([byte])), decoder.getstate()[0]


class _Tree:
    """The tree of some sorted byte strings: for each node, which strings end there and which begin there."""

    def __init__(self, texts: list[bytes]):
        self.children: list[dict[int, int]] = [{}]
        self.own = [(0, 0)]
        self.below = [(0, len(texts))]
        for at, text in enumerate(texts):
            node = 0
            for byte in text:
                if byte not in self.children[node]:
                    self.children[node][byte] = len(self.children)
                    self.children.append({})
                    self.own.append((at, at))
                    self.below.append((at, at))
                node = self.children[node][byte]
                self.below[node] = self.below[node][0], at + 1
            self.own[node] = (self.own[node][0] if self.own[node][1] > self.own[node][0] else at), at + 1


def token_bytes(tokenizer: Tokenizer) -> list[bytes]:
    """What each id adds to a text, as bytes of UTF-8; nothing for special tokens.

    Raises:
        UserError: a tokenizer whose tokens are no pieces of text.
    """
    whole = json.loads(tokenizer.to_str())
    kinds = set(_kinds(whole["decoder"] or {}))
    if "ByteLevel" not in kinds and not kinds & {"Metaspace", "ByteFallback"}:
        raise UserError(
            "a blocklist needs a tokenizer of byte-level tokens, or of pieces with ▁ for blanks; this one's decoder is "
            f"{' and '.join(sorted(kinds)) or 'none'}"
        )
    special = {token["id"] for token in whole["added_tokens"] if token["special"]}
    found = [b""] * tokenizer.get_vocab_size()
    for token, i in tokenizer.get_vocab().items():
        if i not in special and i < len(found):
            found[i] = _byte_level(token) if "ByteLevel" in kinds else _piece(token)
    return found


def _kinds(decoder: dict) -> Iterator[str]:
    if decoder.get("type") == "Sequence":
        for part in decoder["decoders"]:
            yield from _kinds(part)
    elif decoder:
        yield decoder["type"]


def _piece(token: str) -> bytes:
    if match := re.fullmatch("<0x([0-9A-F]{2})>", token):
        return bytes([int(match[1], 16)])
    return token.replace("▁", " ").encode()


def _byte_level(token: str) -> bytes:
    """The bytes that GPT-2's printable alphabet stands for; a token of other characters is itself."""
    try:
        return bytes(_ALPHABET[character] for character in token)
    except KeyError:
        return token.encode()


def _alphabet() -> dict[str, int]:
    """GPT-2's `bytes_to_unicode`, the other way round."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(256 + i): byte for i, byte in enumerate(others)}


_ALPHABET = _alphabet()
