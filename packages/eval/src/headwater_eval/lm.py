"""A language model as lm-eval sees one, around anything that scores token ids and continues them."""

from __future__ import annotations

import functools
import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from ._contracts.errors import UserError
from ._contracts.sequences import truncate
from .engine import TemplateLM, get_rolling_token_windows, make_disjoint_window

Pair = tuple[list[int], list[int]]
"""Context ids (at least one) and continuation ids."""


@dataclass(frozen=True)
class Decoding:
    """How text is written; `decoding` reads it from lm-eval's generation arguments."""

    max_new_tokens: int
    until: tuple[str, ...] = ()
    """Strings that end a text, and are no part of it."""
    temperature: float = 0.0
    """0: the likeliest id each time."""
    top_k: int = 0
    """0: all ids."""
    top_p: float = 1.0


class Scorer(Protocol):
    """What evaluation needs of a model and its tokenizer."""

    context: int
    """Longest input in tokens."""
    end_of_document: int
    """Id of <|endoftext|>, which stands before the first and after the last token of a document."""

    def encode(self, text: str) -> list[int]:
        """Ids of plain text; a special token's name in it is plain text too."""

    def decode(self, ids: list[int]) -> str:
        """Text of ids, special tokens left out."""

    def score(self, pairs: list[Pair]) -> list[tuple[float, bool]]:
        """Sum of log-probabilities (nats) of each continuation after its context, and whether each of its ids is the
        likeliest one. Neither part is empty; context and continuation less its last id fit the model's context."""

    def generate(self, prompts: list[list[int]], max_new_tokens: int, stop: list[int]) -> list[list[int]]:
        """Greedy continuations, each ended by (and without) the first id of `stop`."""

    def write(self, prompts: list[list[int]], how: Decoding, seeds: list[int]) -> list[str]:
        """Continuations as text, ended by <|endoftext|>, <|end|> or a stop string, without it; a sample depends on its
        own seed alone. Prompt and new tokens fit the context."""


class HeadwaterLM(TemplateLM):
    """A Scorer behind lm-eval's interface.

    Args:
        overlap: share of the context window that later windows of a long text see again.
        max_gen_toks: tokens to write where a task does not say.

    A text longer than the context window is scored in windows, each token once. `loglikelihood_rolling` also
    counts the end of the document.
    """

    shares_beginnings = True
    """Requests with equal beginnings are cheapest together."""

    def __init__(self, scorer: Scorer, overlap: float = 0.5, max_gen_toks: int = 256):
        super().__init__()
        self.scorer, self.max_gen_toks = scorer, max_gen_toks
        self.seen_again = max(1, int(scorer.context * overlap))
        self._encoded = functools.lru_cache(maxsize=64)(scorer.encode)  # all choices ask for their question

    @property
    def eot_token_id(self) -> int:
        """The id that stands for an empty context."""
        return self.scorer.end_of_document

    @property
    def max_length(self) -> int:
        """Longest input in tokens."""
        return self.scorer.context

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **_: object) -> list[int]:
        """Ids of plain text."""
        return list(self._encoded(string))

    def loglikelihood(self, requests: list, disable_tqdm: bool = True) -> list[tuple[float, bool]]:
        """Log-probability (nats) of each continuation, and whether greedy decoding would write it."""
        return super().loglikelihood(requests, disable_tqdm=True)

    def _loglikelihood_tokens(self, requests: list, **_: object) -> list[tuple[float, bool]]:
        return self.score([(context, continuation) for _, context, continuation in requests])

    def loglikelihood_rolling(self, requests: list, disable_tqdm: bool = True) -> list[float]:
        """Log-probability (nats) of each whole document and its end."""
        end = self.eot_token_id
        pairs = [([end], [*self.tok_encode(request.args[0]), end]) for request in requests]
        return [total for total, _ in self.score(pairs)]

    def generate_until(self, requests: list, disable_tqdm: bool = True) -> list[str]:
        """What the model writes after each prompt, cut before the first stop string.

        A request that comes again is another sample: its seed is a hash of the request and of how often it came
        before. A prompt that leaves no room for `max_gen_toks` new tokens is cut on the left; where they alone fill
        the context, prompt and text get half of it each.
        """
        seen: Counter[str] = Counter()
        groups: dict[Decoding, list[tuple[int, list[int], int]]] = {}
        for i, request in enumerate(requests):
            prompt, options = request.args
            how = decoding(options, self.max_gen_toks)
            if how.max_new_tokens >= self.scorer.context:
                how = Decoding(**{**vars(how), "max_new_tokens": self.scorer.context // 2})
            name = json.dumps([prompt, options], sort_keys=True)
            seed = int(hashlib.sha256(f"{seen[name]} {name}".encode()).hexdigest()[:16], 16)
            seen[name] += 1
            ids = self.prompt_ids(prompt, self.scorer.context - how.max_new_tokens)
            groups.setdefault(how, []).append((i, ids, seed))
        texts = [""] * len(requests)
        for how, members in groups.items():
            written = self.scorer.write([ids for _, ids, _ in members], how, [seed for _, _, seed in members])
            for (i, _, _), text in zip(members, written, strict=True):
                texts[i] = text
        return texts

    def prompt_ids(self, prompt: str, room: int) -> list[int]:
        """What a text is written after: the prompt's last `room` ids, at least one."""
        return truncate(self.tok_encode(prompt), room, side="left") or [self.eot_token_id]

    def score(self, pairs: list[Pair]) -> list[tuple[float, bool]]:
        """Sum of log-probabilities (nats) and greedy flag of each continuation after its context."""
        windows, owner = [], []
        for i, pair in enumerate(pairs):
            for window in self._windows(pair):
                windows.append(window)
                owner.append(i)
        totals, greedy = [0.0] * len(pairs), [True] * len(pairs)
        for i, (total, likeliest) in zip(owner, self.scorer.score(windows), strict=True):
            totals[i] += total
            greedy[i] &= likeliest
        return list(zip(totals, greedy, strict=True))

    def _windows(self, pair: Pair) -> Iterator[Pair]:
        context, continuation = pair
        if not continuation:
            return
        if len(continuation) <= self.scorer.context:
            keep = self.scorer.context + 1 - len(continuation)  # the model never reads the last token
            yield truncate(context, keep, side="left"), continuation
        else:
            rolling = get_rolling_token_windows(continuation, context[-1], self.scorer.context, self.seen_again)
            yield from map(make_disjoint_window, rolling)


def decoding(options: Mapping[str, Any], max_gen_toks: int) -> Decoding:
    """lm-eval's generation arguments, as its `hf` model reads them: greedy unless `do_sample` or a temperature says
    otherwise; `until` one string or several.

    Args:
        max_gen_toks: where they do not say.

    Raises:
        UserError: a value out of its range.
    """
    limits = ("max_gen_toks", "max_new_tokens", "max_tokens", "max_completion_tokens")
    room = next((options[name] for name in limits if options.get(name) is not None), max_gen_toks)
    until = options.get("until") or []
    sampled = options.get("do_sample")
    temperature = float(options.get("temperature") or 0.0)
    if sampled is False:
        temperature = 0.0
    elif sampled and options.get("temperature") is None:
        temperature = 1.0
    top_k, top_p = int(options.get("top_k") or 0), float(options.get("top_p") or 1.0)
    if int(room) < 1 or temperature < 0 or top_k < 0 or not 0 < top_p <= 1:
        raise UserError(
            f"generation with max_gen_toks {room}, temperature {temperature}, top_k {top_k}, top_p {top_p}: one of "
            "them is out of its range; correct the task"
        )
    strings = [until] if isinstance(until, str) else until
    return Decoding(int(room), tuple(s for s in strings if s), temperature, top_k, top_p)
