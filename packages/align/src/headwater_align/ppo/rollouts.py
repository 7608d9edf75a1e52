"""Rollouts: answers sampled from the policy, and what models say of their tokens.

Every per-token tensor is [B, T - 1] and aligned to the token it speaks of less one: column t holds the probability of
token t + 1, and the value of the state in which it was chosen. `mask` marks the columns of sampled tokens.

Data ranks each do their share of the rows, and all get the whole; everything here is collective.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from .. import ranks, sampling
from .._contracts.manifest import write_atomic
from ..batching import pad
from ..chat_format import ChatFormat
from ..engine import GPT, forward, runtime, torch
from ..reward_model import RewardModel


@dataclass(frozen=True)
class Episodes:
    """Prompts with their sampled answers."""

    prompts: list[list[int]]
    answers: list[list[int]]
    """Sampled ids; the last is a stop id unless the answer was cut."""
    finished: list[bool]
    names: list[str] = field(default_factory=list)
    """Ids of the prompts' records, for messages."""

    @property
    def rows(self) -> list[list[int]]:
        """Prompt and answer together."""
        return [p + a for p, a in zip(self.prompts, self.answers, strict=True)]

    @property
    def mask(self) -> Tensor:
        """bool [B, T - 1]: columns whose token was sampled."""
        masks = [[False] * (len(p) - 1) + [True] * len(a) for p, a in zip(self.prompts, self.answers, strict=True)]
        return pad(masks, False)

    @property
    def lengths(self) -> list[int]:
        """Sampled tokens of each answer."""
        return [len(a) for a in self.answers]


def sample(model: GPT, prompts: list[list[int]], chat: ChatFormat, tokens: int, seed: int, size: int) -> Episodes:
    """One answer a prompt, at temperature 1, without top-k or top-p: the KL is that of the policy as it is.

    Args:
        tokens: longest answer; one without an end by then is cut and not `finished`.
        seed: of all draws.
        size: rows that a rank samples at once; rows of like length go together.
    """
    mine = ranks.share(sorted(range(len(prompts)), key=lambda row: len(prompts[row])))
    seeds = [sampling.draw_seed(seed, row) for row in mine]
    own = sampling.sample(model, [prompts[row] for row in mine], chat, tokens, seeds, size)
    found = {row: answer for part in ranks.gather(dict(zip(mine, own, strict=True))) for row, answer in part.items()}
    answers = [found[row] for row in range(len(prompts))]
    return Episodes(prompts, answers, [answer[-1] in chat.stops for answer in answers])


def micro_batches(rows: Sequence[int], lengths: Sequence[int], size: int) -> list[list[int]]:
    """This data rank's share of some rows, in parts of at most `size` rows of like length."""
    order = ranks.share(sorted(rows, key=lambda row: (lengths[row], row)))
    return [order[start : start + size] for start in range(0, len(order), size)]


def padded(rows: Sequence[Sequence[int]], filler: int) -> Tensor:
    """int64 [rows, W], with W - 1, the positions whose next token is known, a multiple of 8 and of what the layout cuts
    positions into."""
    tokens = pad(rows, filler)
    multiple = math.lcm(8, runtime.layout().position_parts)
    return torch.nn.functional.pad(tokens, (0, (1 - tokens.size(1)) % multiple), value=filler)


@torch.no_grad()
def logprobs(model: GPT, episodes: Episodes, filler: int, parts: Iterable[list[int]]) -> Tensor:
    """Log-probability of each sampled token under `model`, float32 [B, T - 1], 0 elsewhere, by the very forward pass
    that training uses.

    Args:
        parts: this rank's rows, of `micro_batches`.
    """
    mask = episodes.mask

    def of(part: list[int], tokens: Tensor) -> Tensor:
        wanted = torch.zeros(len(part), tokens.size(1) - 1, dtype=torch.bool)
        here = mask[part, : wanted.size(1)]
        wanted[:, : here.size(1)] = here
        return forward.token_logprobs(model, tokens, wanted=wanted)

    return _collected(episodes, filler, parts, of)


@torch.no_grad()
def state_values(model: GPT, episodes: Episodes, filler: int, parts: Iterable[list[int]]) -> Tensor:
    """The scalar head before each token, float32 [B, T - 1]; arguments as in `logprobs`."""
    return _collected(episodes, filler, parts, lambda part, tokens: forward.values(model, tokens[:, :-1]))


def rewards(model: RewardModel, rows: Sequence[Sequence[int]], filler: int, size: int) -> Tensor:
    """Rewards of whole conversations, float32 [rows]."""
    mine = ranks.share(range(len(rows)))
    own = model([rows[row] for row in mine], filler, size) if mine else torch.empty(0)
    out = torch.empty(len(rows))
    for numbers, found in ranks.gather((mine, own)):
        out[numbers] = found
    return out


def _collected(
    episodes: Episodes, filler: int, parts: Iterable[list[int]], of: Callable[[list[int], Tensor], Tensor]
) -> Tensor:
    rows = episodes.rows
    out = torch.zeros(len(rows), max(map(len, rows)) - 1)
    mine = []
    for part in parts:
        found = of(part, padded([rows[r] for r in part], filler)).cpu()[:, : out.size(1)]
        mine.append((part, found))
    for part, found in [pair for rank in ranks.gather(mine) for pair in rank]:
        out[part, : found.size(1)] = found
    return out


def write_answers(path: Path, episodes: Episodes) -> None:
    """Keep the answers, so that a run that is killed before it has learnt from them does not sample them again."""
    tensors = {
        "tokens": torch.tensor([token for answer in episodes.answers for token in answer]),
        "lengths": torch.tensor(episodes.lengths),
        "prompt_lengths": torch.tensor([len(prompt) for prompt in episodes.prompts]),
        "finished": torch.tensor(episodes.finished),
    }
    write_atomic(path, save(tensors))


def read_answers(path: Path, prompts: list[list[int]]) -> Episodes | None:
    """What `write_answers` left for these prompts; None where there is nothing that can be used."""
    try:
        kept = load_file(path)
        lengths = kept["lengths"].tolist()
        if kept["prompt_lengths"].tolist() != [len(prompt) for prompt in prompts]:
            return None
        answers = [part.tolist() for part in kept["tokens"].split(lengths)]
        return Episodes(prompts, answers, kept["finished"].tolist())
    except (OSError, SafetensorError, KeyError, RuntimeError):
        return None
