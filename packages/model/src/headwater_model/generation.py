"""Sampling with a key-value cache: batched for PPO and evaluation, one by one for a terminal.

Prompts are padded on the left, so that all rows write their next token at the same place of Megatron's
static cache. Rotary positions and linear biases are relative: a row's shift changes nothing but rounding. Learned and
sinusoidal ones follow from the mask. A prefix language model reads the prompt in both directions.

Tensor and pipeline ranks are all called with the same prompts and seeds. The logits come to all of them (`relay`), so
each chooses the same ids, and guides and stop strings work as on one rank.
"""

from __future__ import annotations

import contextlib
from collections.abc import Generator, Iterable, Iterator, Sequence
from random import Random
from typing import NamedTuple, Protocol

import headwater_model.cpu as cpu

import torch
from megatron.core.inference.contexts import StaticInferenceContext
from tokenizers import Tokenizer
from tokenizers.decoders import DecodeStream
from torch import Tensor

from . import decode_step, relay
from ._contracts.errors import UserError
from .gpt import GPT


class Generated(NamedTuple):
    """What the model wrote after one prompt."""

    tokens: list[int]
    """New ids, the stop id included where one was reached."""
    logprobs: list[float]
    """Log-probability of each under the distribution at temperature 1, after guides, before top-k and top-p."""
    text: str = ""
    """With stop strings: what was written before the first of them. Empty without."""


def generate(
    model: GPT,
    prompts: Sequence[Sequence[int]],
    max_new_tokens: int,
    temperature: float = 1.0,
    top_k: int = 0,
    top_p: float = 1.0,
    stop_ids: Sequence[int] = (),
    seed: int = 0,
    stop: Sequence[str] = (),
    tokenizer: Tokenizer | None = None,
    seeds: Sequence[int] | None = None,
    guides: Sequence[Guide] = (),
) -> list[Generated]:
    """Continue every prompt until a stop id, a stop string or `max_new_tokens`.

    Args:
        prompts: ids; none empty. A prompt longer than the context leaves room for is cut on the left.
        temperature: 0 chooses the likeliest id.
        top_k: keep the k likeliest ids; 0 keeps all.
        top_p: keep the likeliest ids that together reach this probability.
        seed: of this call's own generator. A row's sample depends on the batch that it is in; at
            temperature 0 it does not, but for rounding, and rows that have ended cost nothing more.
        seeds: one a prompt, in place of `seed`: each row draws from a generator of its own, so its sample does not
            depend on the batch either, but for rounding.
        stop: strings that end a row, wherever tokens begin and end in them; they need `tokenizer`.
        guides: change the logits before the temperature, one after the other.

    Returns:
        one `Generated` a prompt, in order.

    Raises:
        UserError: an empty prompt, an empty stop string, or more new tokens than the context holds.
        ValueError: stop strings without a tokenizer.
    """
    if stop and tokenizer is None:
        raise ValueError("stop strings are looked for in text: give the tokenizer, too")
    texts = [_Text(tokenizer, stop) for _ in prompts] if stop and tokenizer else []
    shown = ["" for _ in prompts]
    rows: list[list[int]] = [[] for _ in prompts]
    probabilities: list[list[float]] = [[] for _ in prompts]
    stops = set(stop_ids)
    done = [False] * len(prompts)
    alive = list(range(len(prompts)))
    steps = _steps(model, prompts, max_new_tokens, temperature, top_k, top_p, seed, seeds, guides)
    keep: list[int] | None = None
    while not all(done):
        try:
            ids, scores = steps.send(keep)
        except StopIteration:
            break
        for row, token, score in zip(alive, ids, scores, strict=True):
            if not done[row]:
                rows[row].append(token)
                probabilities[row].append(score)
                done[row] = token in stops
                if texts:
                    shown[row] += texts[row].add(token)
                    done[row] |= texts[row].ended
        keep = [at for at, row in enumerate(alive) if not done[row]]
        if 2 * len(keep) > len(alive) or (temperature > 0 and seeds is None):  # the others' draws must stay theirs
            keep = None
        elif keep:
            alive = [alive[at] for at in keep]
    steps.close()
    shown = [text + more.rest() for text, more in zip(shown, texts, strict=True)] if texts else shown
    return [Generated(*row) for row in zip(rows, probabilities, shown, strict=True)]


def stream(
    model: GPT,
    prompt: Sequence[int],
    max_new_tokens: int,
    temperature: float = 1.0,
    top_k: int = 0,
    top_p: float = 1.0,
    stop_ids: Sequence[int] = (),
    seed: int = 0,
    guides: Sequence[Guide] = (),
) -> Iterator[int]:
    """Like `generate` for one prompt, id by id; the stop id is the last."""
    for ids, _ in _steps(model, [prompt], max_new_tokens, temperature, top_k, top_p, seed, guides=guides):
        yield ids[0]
        if ids[0] in stop_ids:
            return


def decode(tokenizer: Tokenizer, ids: Iterable[int], stop: Sequence[str] = ()) -> Iterator[str]:
    """Text as soon as its bytes are complete: a character that spans tokens comes whole, special tokens not at all.

    Bytes that never become a character, which small models do write, come as U+FFFD, at the latest at the end. Of
    what may be the beginning of a stop string nothing comes before it is clear that it is none; at the first whole stop
    string the text ends before it, and no more ids are taken.

    Raises:
        UserError: an empty stop string.
    """
    text = _Text(tokenizer, stop)
    for token in ids:
        piece = text.add(token)
        if piece:
            yield piece
        if text.ended:
            return
    rest = text.rest()
    if rest:
        yield rest


class StopStrings:
    """The first of several strings in a text that comes in pieces; where the pieces are cut changes nothing."""

    def __init__(self, strings: Sequence[str]):
        """Raises UserError where one is empty."""
        if not all(strings):
            raise UserError("a stop string is empty; leave it out, or give some text")
        self.strings = list(strings)
        self.found = False
        self._held = ""

    def add(self, piece: str) -> str:
        """What of the text so far may be shown now: all before a stop string, and nothing that may yet become one."""
        self._held += piece
        ends = [(at + len(s), at) for s in self.strings if (at := self._held.find(s)) >= 0]
        if ends:  # of those that overlap the one that ends first
            self.found = True
            return self._show(min(ends)[1], forget=True)
        longest = max(map(len, self.strings), default=1) - 1
        for at in range(max(0, len(self._held) - longest), len(self._held)):
            if any(s.startswith(self._held[at:]) for s in self.strings):
                return self._show(at)
        return self._show(len(self._held))

    def rest(self) -> str:
        """What was held back, once no more comes."""
        return self._show(len(self._held))

    def _show(self, end: int, forget: bool = False) -> str:
        shown, self._held = self._held[:end], "" if forget else self._held[end:]
        return shown


class _Text:
    """Ids to text, up to a stop string."""

    def __init__(self, tokenizer: Tokenizer, stop: Sequence[str]):
        self._tokenizer, self._stop = tokenizer, StopStrings(stop)
        self._stream = DecodeStream(skip_special_tokens=True)
        self._seen: list[int] = []
        self._decoded = 0

    @property
    def ended(self) -> bool:
        """Whether a stop string has come."""
        return self._stop.found

    def add(self, token: int) -> str:
        self._seen.append(token)
        piece = self._stream.step(self._tokenizer, token) or ""
        self._decoded += len(piece)
        return self._stop.add(piece)

    def rest(self) -> str:
        if self.ended:
            return ""
        piece = self._tokenizer.decode(self._seen, skip_special_tokens=True)[self._decoded :]
        shown = self._stop.add(piece)
        return shown if self.ended else shown + self._stop.rest()


def sample(logits: Tensor, temperature: float, top_k: int, top_p: float, generator: torch.Generator) -> Tensor:
    """Draw one id a row.

    Args:
        logits: float32 [batch, vocabulary].
        temperature, top_k, top_p: as in `generate` (top-p: Holtzman et al., arXiv:1904.09751).

    Returns:
        int64 [batch].
    """
    if temperature == 0:
        return logits.argmax(-1)
    return torch.multinomial(_cut(logits, temperature, top_k, top_p), 1, generator=generator).squeeze(-1)


def sample_at(logits: Tensor, temperature: float, top_k: int, top_p: float, quantiles: Tensor) -> Tensor:
    """Like `sample`, with a number of one's own for each row, uniform in [0, 1): where the ids' probabilities, summed
    in their order, pass it.

    Args:
        quantiles: float64 [batch].
    """
    if temperature == 0:
        return logits.argmax(-1)
    sums = _cut(logits, temperature, top_k, top_p).double().cumsum(-1)
    # Rounding may leave the whole a little below or above 1: the quantile is one of the whole.
    return torch.searchsorted(sums, (quantiles[:, None] * sums[:, -1:]), right=True).squeeze(-1)


def _cut(logits: Tensor, temperature: float, top_k: int, top_p: float) -> Tensor:
    """Probabilities of the ids that may be drawn, 0 elsewhere; with top-p their sum is below 1."""
    logits = logits / temperature
    if 0 < top_k < logits.size(-1):
        least = logits.topk(top_k).values[:, -1:]
        logits = logits.masked_fill(logits < least, -torch.inf)
    probabilities = logits.softmax(-1)
    return probabilities.masked_fill(~nucleus(logits, top_p), 0.0) if top_p < 1 else probabilities


def nucleus(logits: Tensor, top_p: float) -> Tensor:
    """Which ids are the likeliest that together reach `top_p`: bool [batch, vocabulary]."""
    if top_p >= 1:
        return torch.ones_like(logits, dtype=torch.bool)
    ordered, order = logits.softmax(-1).sort(descending=True)
    before = ordered.cumsum(-1) - ordered  # the first id that reaches top_p stays in
    return torch.zeros_like(order, dtype=torch.bool).scatter(-1, order, before < top_p)


class Guide(Protocol):
    """What bends the choice of the next id; `headwater_model.guidance` has some."""

    def start(self, prompts: list[list[int]], new: int) -> RowGuide:
        """For a batch of prompts that are continued by `new` ids at most."""


class RowGuide(Protocol):
    """A guide at work on the rows of one batch."""

    def logits(self, logits: Tensor) -> Tensor:
        """The logits to choose each row's next id by, float32 [batch, vocabulary], from those of the model or of the
        guide before; at least one of each row stays finite."""

    def add(self, ids: Tensor) -> None:
        """The ids that were chosen, int64 [batch]."""

    def keep(self, rows: list[int]) -> None:
        """Go on with these rows alone, by their place in the batch."""


class Cached:
    """A batch of prompts in a model's key-value cache, and what the model says comes next."""

    def __init__(self, model: GPT, prompts: Sequence[Sequence[int]], new: int):
        """
        Args:
            prompts: ids, none empty; cut on the left to what `new` ids leave of the context.

        Raises:
            UserError: an empty prompt, or more new ids than the context holds.
        """
        context = model.max_sequence_length
        if any(len(p) == 0 for p in prompts):
            raise UserError("a prompt is empty; begin with at least one id, such as <|endoftext|>")
        if new >= context:
            raise UserError(f"{new} new tokens do not fit a context of {context}; ask for {context - 1} at most")
        self.prompts = [list(p[-(context - new) :]) for p in prompts]
        width = max(map(len, self.prompts))
        self._model = model
        self._feed = torch.tensor([[0] * (width - len(p)) + p for p in self.prompts], device=cpu.DEVICE)
        lengths = torch.tensor([len(p) for p in self.prompts], device=cpu.DEVICE)
        self._hidden = torch.arange(width + new, device=cpu.DEVICE) < (width - lengths)[:, None]  # [batch, positions]
        self._prefix = width if model.kind == "prefix" else 0
        self._ragged = bool(self._hidden.any())
        self._at = 0
        self._cache = StaticInferenceContext(len(prompts), width + new)
        self._fast: decode_step.Decoder | None = None

    def logits(self) -> Tensor:
        """After all ids so far: float32 [batch, vocabulary], on the CPU. Once after the prompts and each `add`."""
        feed = self._feed
        if self._fast is None and self._at > 0 and decode_step.fits(self._model):
            self._fast = decode_step.Decoder(self._model, self._cache, self._hidden)
        if self._fast is not None:
            return self._fast.step(feed[:, 0])
        bare = not self._ragged and self._at >= self._prefix
        mask = None if bare else _mask(self._hidden, self._at, feed.size(1), self._prefix)
        with cpu.on_device() if feed.size(1) > 1 else contextlib.nullcontext():  # a prompt's products are large
            answer = [((len(feed), 1, self._model.vocab_size), self._model.config.params_dtype)]
            out = relay.forward(self._model, feed, None, mask, inference_context=self._cache, answer=answer)
        self._at += feed.size(1)
        self._cache.sequence_len_offset = self._at
        self._cache.enable_decode_mode()
        return out[:, -1].float().cpu()

    def add(self, ids: Tensor) -> None:
        """One more id a row, int64 [batch]."""
        self._feed = ids[:, None].to(cpu.DEVICE)

    def keep(self, rows: list[int]) -> None:
        """Go on with these rows alone, by their place in the batch."""
        self._feed, self._hidden = self._feed[rows], self._hidden[rows]
        for layer, pair in self._cache.key_value_memory_dict.items():
            self._cache.key_value_memory_dict[layer] = tuple(stored[:, rows] for stored in pair)
        if self._fast is not None:
            self._fast = decode_step.Decoder(self._model, self._cache, self._hidden, self._fast.packed)


@torch.no_grad()
def _steps(
    model: GPT,
    prompts: Sequence[Sequence[int]],
    new: int,
    temperature: float,
    top_k: int,
    top_p: float,
    seed: int,
    seeds: Sequence[int] | None = None,
    guides: Sequence[Guide] = (),
) -> Generator[tuple[list[int], list[float]], list[int] | None, None]:
    """Yield the next id of every row and its log-probability, `new` times.

    Send the rows to go on with (by their place among the last answer's), or nothing: all of them.
    """
    if not prompts or new < 1:
        return
    # Draws are made on the CPU: the same seed gives the same text on every device.
    generator = torch.Generator().manual_seed(seed)
    own = None if seeds is None else [Random(number) for number in seeds]
    training = model.training
    model.eval()
    try:
        cached = Cached(model, prompts, new)
        guiding = [guide.start(cached.prompts, new) for guide in guides]
        for _ in range(new):
            logits = cached.logits()
            for guide in guiding:
                logits = guide.logits(logits)
            if own is None:
                ids = sample(logits, temperature, top_k, top_p, generator)
            else:
                quantiles = torch.tensor([draws.random() for draws in own], dtype=torch.float64)
                ids = sample_at(logits, temperature, top_k, top_p, quantiles)
            cached.add(ids)
            for guide in guiding:
                guide.add(ids)
            keep = yield ids.tolist(), logits.log_softmax(-1).gather(-1, ids[:, None]).squeeze(-1).tolist()
            if keep is not None:
                own = None if own is None else [own[row] for row in keep]
                cached.keep(keep)
                for guide in guiding:
                    guide.keep(keep)
    finally:
        model.train(training)


def _mask(hidden: Tensor, start: int, size: int, prefix: int) -> Tensor:
    """bool [batch, 1, size, start + size], True where masked: no later key after the prefix, no padding but oneself."""
    keys = torch.arange(start + size, device=hidden.device)
    queries = torch.arange(start, start + size, device=hidden.device)
    later = (keys[None, :] > queries[:, None]) & (keys >= prefix)
    other = keys[None, :] != queries[:, None]
    return (later[None] | hidden[:, None, : start + size] & other[None])[:, None]
