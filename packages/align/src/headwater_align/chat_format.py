"""How a conversation becomes token ids: the one place that knows, for training, sampling and talking alike.

    <|user|>{content}<|end|><|assistant|>{content}<|end|>        (system likewise; no white space added)

Ids and loss mask are made together, so they cannot disagree. The words of a message are encoded as ordinary text:
a `<|end|>` that somebody typed does not end the turn.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from tokenizers import Tokenizer

from ._contracts.errors import UserError
from ._contracts.sequences import truncate
from .conversation import Message


@dataclass(frozen=True)
class Rendered:
    """A conversation in ids."""

    ids: list[int]
    supervised: list[bool]
    """Same length: True for what the assistant has to say, its <|end|> included."""

    def cut(self, length: int) -> Rendered:
        """The first `length` tokens."""
        return Rendered(truncate(self.ids, length), truncate(self.supervised, length))


class ChatFormat:
    """The chat rendering of one tokenizer."""

    def __init__(self, tokenizer: Tokenizer):
        """Raises UserError where the tokenizer lacks a token of the format."""
        self.tokenizer = tokenizer
        self.end = self._special("<|end|>")
        self.pad = self._special("<|pad|>")
        self.end_of_text = self._special("<|endoftext|>")
        self.roles = {role: self._special(f"<|{role}|>") for role in ("system", "user", "assistant")}

    def _special(self, token: str) -> int:
        found = self.tokenizer.token_to_id(token)
        if found is None:
            raise UserError(f"the tokenizer has no {token}, which the chat format needs; train it with that token")
        return found

    @property
    def stops(self) -> list[int]:
        """Ids at which an answer is over."""
        return [self.end, self.end_of_text]

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids of plain texts; special tokens that are spelled out in them stay ordinary text."""
        before = self.tokenizer.encode_special_tokens
        self.tokenizer.encode_special_tokens = True
        try:
            return [e.ids for e in self.tokenizer.encode_batch(list(texts), add_special_tokens=False)]
        finally:
            self.tokenizer.encode_special_tokens = before

    def render(self, conversations: Sequence[Sequence[Message]]) -> list[Rendered]:
        """Ids and mask of whole conversations."""
        encoded = iter(self.encode([m["content"] for messages in conversations for m in messages]))
        made = []
        for messages in conversations:
            ids: list[int] = []
            supervised: list[bool] = []
            for message in messages:
                turn = [*next(encoded), self.end]
                ids += [self.roles[message["role"]], *turn]
                supervised += [False] + [message["role"] == "assistant"] * len(turn)
            made.append(Rendered(ids, supervised))
        return made

    def prompts(self, conversations: Sequence[Sequence[Message]]) -> list[list[int]]:
        """Ids of conversations that wait for the assistant's answer: they end in <|assistant|>."""
        return [r.ids + [self.roles["assistant"]] for r in self.render(conversations)]

    def messages(self, ids: Sequence[int]) -> list[Message]:
        """The turns that a rendering holds; the <|assistant|> at a prompt's end is none."""
        roles = {token: role for role, token in self.roles.items()}
        starts = [place for place, token in enumerate(ids) if token in roles]
        turns = [(roles[ids[start]], ids[start + 1 : end]) for start, end in pairwise([*starts, len(ids)])]
        return [{"role": role, "content": self.text(said)} for role, said in turns if said]

    def text(self, ids: Sequence[int]) -> str:
        """What an answer's ids say, special tokens left out."""
        return self.tokenizer.decode(list(ids), skip_special_tokens=True)
