"""A language model as lm-eval sees one: log-likelihoods of token sequences, batched by length.

Rows that ask the model for the same input are computed once: the answer letters after one question are one row,
not five. The output layer runs only where a continuation stands.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

import numpy as np
import torch

from ._contracts.sequences import pad, truncate
from .engine import TemplateLM, get_rolling_token_windows, make_disjoint_window

Pair = tuple[list[int], list[int]]
"""Context ids (at least one) and continuation ids."""


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

    def scores(
        self, tokens: torch.Tensor, rows: torch.Tensor, positions: torch.Tensor, labels: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """How likely each label is right after the given position of the given row.

        Args:
            tokens: int64 [B, T], padded on the right, T <= context.
            rows, positions, labels: int64 [N].

        Returns:
            float32 [N], nats; bool [N], whether the label is the likeliest id.
        """

    def generate(self, prompts: list[list[int]], max_new_tokens: int, stop: list[int]) -> list[list[int]]:
        """Greedy continuations, each ended by (and without) the first id of `stop`."""


class HeadwaterLM(TemplateLM):
    """A Scorer behind lm-eval's interface.

    Args:
        batch_tokens: tokens of a forward pass, padding included (at least one row).
        overlap: share of the context window that later windows of a long text see again.

    A text longer than the context window is scored in windows, each token once. `loglikelihood_rolling` also
    counts the end-of-document token: a compressor pays for where a document ends, and so does the token dataset.
    """

    def __init__(self, scorer: Scorer, batch_tokens: int = 4096, overlap: float = 0.5):
        super().__init__()
        self.scorer, self.batch_tokens = scorer, batch_tokens
        self.seen_again = max(1, int(scorer.context * overlap))

    @property
    def eot_token_id(self) -> int:
        """The id that stands for an empty context."""
        return self.scorer.end_of_document

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **_: object) -> list[int]:
        """Ids of plain text."""
        return self.scorer.encode(string)

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
        """Greedy completions, cut before the first stop string."""
        texts = []
        for request in requests:
            prompt, options = request.args
            until = options.get("until") or []
            stops: list[str] = [until] if isinstance(until, str) else until
            room = min(options.get("max_gen_toks", 256), self.scorer.context - 1)
            ids = truncate(self.tok_encode(prompt), self.scorer.context - room, side="left") or [self.eot_token_id]
            text = self.scorer.decode(self.scorer.generate([ids], room, [self.eot_token_id])[0])
            texts.append(min((text.split(stop)[0] for stop in stops if stop), key=len, default=text))
        return texts

    def score(self, pairs: list[Pair]) -> list[tuple[float, bool]]:
        """Sum of log-probabilities (nats) and greedy flag of each continuation after its context."""
        windows, owner = [], []
        for i, pair in enumerate(pairs):
            for window in self._windows(pair):
                windows.append(window)
                owner.append(i)
        totals, greedy = np.zeros(len(pairs)), np.ones(len(pairs), bool)
        for rows in self._batches(windows):
            for index, total, is_greedy in self._score_batch(windows, rows):
                totals[owner[index]] += total
                greedy[owner[index]] &= is_greedy
        return [(float(total), bool(flag)) for total, flag in zip(totals, greedy, strict=True)]

    def _windows(self, pair: Pair) -> Iterator[Pair]:
        context, continuation = pair
        if len(continuation) <= self.scorer.context:
            keep = self.scorer.context + 1 - len(continuation)  # the model never reads the last token
            yield truncate(context, keep, side="left"), continuation
        else:
            rolling = get_rolling_token_windows(continuation, context[-1], self.scorer.context, self.seen_again)
            yield from map(make_disjoint_window, rolling)

    def _batches(self, windows: list[Pair]) -> Iterator[list[tuple[tuple[int, ...], list[int]]]]:
        """Distinct inputs with the windows that need them, longest first, batch_tokens at a time."""
        rows: dict[tuple[int, ...], list[int]] = {}
        for i, (context, continuation) in enumerate(windows):
            rows.setdefault(tuple([*context, *continuation][:-1]), []).append(i)
        batch: list[tuple[tuple[int, ...], list[int]]] = []
        for row in sorted(rows.items(), key=lambda row: (-len(row[0]), row[0])):
            if batch and (len(batch) + 1) * len(batch[0][0]) > self.batch_tokens:
                yield batch
                batch = []
            batch.append(row)
        if batch:
            yield batch

    def _score_batch(
        self, windows: list[Pair], rows: list[tuple[tuple[int, ...], list[int]]]
    ) -> Iterator[tuple[int, float, bool]]:
        tokens = torch.from_numpy(pad([ids for ids, _ in rows], 0)[0])
        at_rows: list[int] = []
        positions: list[int] = []
        labels: list[int] = []
        for r, (ids, members) in enumerate(rows):
            for i in members:
                continuation = windows[i][1]
                at_rows += [r] * len(continuation)
                positions += range(len(ids) - len(continuation), len(ids))
                labels += continuation
        nats, greedy = self.scorer.scores(tokens, *(torch.tensor(x) for x in (at_rows, positions, labels)))
        start = 0
        for _, members in rows:
            for i in members:
                part = slice(start, start + len(windows[i][1]))
                yield i, float(nats[part].double().sum()), bool(greedy[part].all())
                start = part.stop
