"""The Scorer over headwater_model: a model folder in, log-likelihoods and text out.

Log-likelihoods share work: all continuations of a question, and all questions after the same examples, are one
prefix tree (`headwater_model.tree`), whose every token is computed once; the output layer runs where a continuation
stands. Texts are written in batches with a key-value cache that rows leave as they end.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ._contracts.errors import UserError
from ._contracts.sequences import truncate
from .lm import Decoding, Pair

ROWS = 64
"""Texts written at once, at most."""
CHAT = ("<|system|>", "<|user|>", "<|assistant|>", "<|end|>")


class NativeScorer:
    """A model of headwater_model with its tokenizer; see `lm.Scorer` and `generations.ChatScorer`.

    Args:
        loaded: what `headwater_model.pretrained.load` returns.
        batch_tokens: tokens of a forward pass; a longer sequence is one alone.
    """

    def __init__(self, loaded, batch_tokens: int = 4096):  # noqa: ANN001  (headwater_model is optional)
        from headwater_model import forward, generation, tree

        self._generate, self._trees, self._tree_scores = generation.generate, tree.trees, forward.tree_scores
        self.model, self.tokenizer, self.batch_tokens = loaded.model.eval(), loaded.tokenizer, batch_tokens
        self._loaded = loaded
        self._guides: list[Any] = []
        self.context, self._folder = loaded.config.context, loaded.folder
        self.tokenizer.encode_special_tokens = True  # a document that spells <|end|> holds seven letters, no turn's end
        self.end_of_document = loaded.end_of_text
        self._chat = [self.tokenizer.token_to_id(token) for token in CHAT]
        self.end_of_turn = self.end_of_document if self._chat[-1] is None else self._chat[-1]

    def steer(self, **how: Any) -> None:
        """Steer what `generate` and `write` write from now on, by `headwater_model.guidance.guides`' arguments."""
        from headwater_model import guidance

        self._guides = guidance.guides(self._loaded, dtype=next(self.model.parameters()).dtype, **how)

    def encode(self, text: str) -> list[int]:
        """Ids of plain text."""
        return self.tokenizer.encode(text, add_special_tokens=False).ids

    def encode_chat(self, question: str, system: str = "", room: int | None = None) -> list[int]:
        """Ids of a system message and one user turn, each left out where empty, and the beginning of the answer.

        Args:
            room: ids at most; the question loses its beginning, but for its last id.

        Raises:
            UserError: the tokenizer lacks a special token of the chat format.
        """
        if None in self._chat:
            token = CHAT[self._chat.index(None)]
            raise UserError(
                f"{self._folder}: its tokenizer has no {token}; export with a tokenizer of this lineage, "
                "or ask no questions (samples.questions=[])"
            )
        of_system, user, assistant, end = self._chat
        before = [of_system, *self.encode(system), end] if system else []
        asked = self.encode(question)
        if not asked:
            return [*before, assistant]
        if room is not None:
            asked = truncate(asked, max(1, room - len(before) - 3), side="left")
        return [*before, user, *asked, end, assistant]

    def decode(self, ids: list[int]) -> str:
        """Text of ids, special tokens left out."""
        return self.tokenizer.decode(ids, skip_special_tokens=True)

    def score(self, pairs: list[Pair]) -> list[tuple[float, bool]]:
        """Log-likelihood (nats) and greedy flag of each continuation, in as few tokens as shared beginnings allow."""
        found = [(0.0, True)] * len(pairs)
        for i, nats, likeliest in self._by_token(pairs):
            found[i] = float(nats.double().sum()), bool(likeliest.all())
        return found

    def token_logprobs(self, rows: list[list[int]]) -> list[np.ndarray]:
        """Log-probability (nats) of each token of each row as the beginning of a document, float32 [tokens].

        Args:
            rows: ids, none empty, none longer than the context.
        """
        found = [np.empty(0, np.float32)] * len(rows)
        for i, nats, _ in self._by_token([([self.end_of_document], row) for row in rows]):
            found[i] = nats.float().numpy()
        return found

    def _by_token(self, pairs: list[Pair]) -> Iterator[tuple[int, Tensor, Tensor]]:
        """Number of a pair, and its continuation's log-probabilities (nats) and greedy flags, a token each."""
        sequences = [[*context, *continuation][:-1] for context, continuation in pairs]
        for tree, paths in self._trees(sequences, self.batch_tokens):
            spans = {i: path[len(pairs[i][0]) - 1 :] for i, path in paths.items()}
            places = torch.tensor([place for span in spans.values() for place in span])
            labels = torch.tensor([label for i in spans for label in pairs[i][1]])
            nats, greedy = self._tree_scores(self.model, tree, places, labels)
            sizes = [len(span) for span in spans.values()]
            yield from zip(spans, nats.split(sizes), greedy.split(sizes), strict=True)

    def generate(self, prompts: list[list[int]], max_new_tokens: int, stop: list[int]) -> list[list[int]]:
        """Greedy continuations without the id that stopped them."""
        written = self._generate(
            self.model, prompts, max_new_tokens, temperature=0.0, stop_ids=stop, guides=self._guides
        )
        return [[i for i in one.tokens if i not in stop] for one in written]

    def write(self, prompts: list[list[int]], how: Decoding, seeds: list[int]) -> list[str]:
        """Texts, in batches of prompts of like length."""
        texts = [""] * len(prompts)
        order = sorted(range(len(prompts)), key=lambda i: (-len(prompts[i]), prompts[i], seeds[i]))
        while order:
            width = len(prompts[order[0]]) + how.max_new_tokens
            size = max(1, min(ROWS, 8 * self.batch_tokens // width))
            batch, order = order[:size], order[size:]
            written = self._generate(
                self.model,
                [prompts[i] for i in batch],
                how.max_new_tokens,
                how.temperature,
                how.top_k,
                how.top_p,
                [self.end_of_document, self.end_of_turn],
                stop=how.until,
                tokenizer=self.tokenizer,
                seeds=[seeds[i] for i in batch],
                guides=self._guides,
            )
            for i, one in zip(batch, written, strict=True):
                texts[i] = one.text if how.until else self.decode(one.tokens)
        return texts


def load(
    folder: Path, dtype: str = "float32", threads: int = 1, batch_tokens: int = 4096, tokenizer: Path | None = None
) -> NativeScorer:
    """Load a model folder, or a checkpoint with the tokenizer that its training tokens came from, into this process.

    Among several ranks (torchrun's environment) each one holds the whole model.

    Args:
        dtype: float32 or bfloat16, of the weights in memory.
        threads: torch's threads on a CPU.

    Raises:
        UserError: headwater-model is not installed, or the folder is no whole model with a tokenizer.
    """
    torch.set_num_threads(threads)
    try:
        from headwater_model import pretrained, runtime
    except ModuleNotFoundError as e:
        if e.name != "headwater_model":
            raise
        raise UserError("evaluate needs the package headwater-model; install it beside this one") from None
    from headwater_model.config import ParallelConfig

    from .parallel import world_size

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Megatron says that Apex is missing: it is, on a CPU
        runtime.initialize(ParallelConfig(data=world_size()))
        kind = getattr(torch, dtype)
        if (folder / "run.json").is_file():
            if tokenizer is None:
                raise UserError(
                    f"{folder}: a checkpoint has no tokenizer; name the folder of its tokenizer (--tokenizer)"
                )
            from headwater_model import export

            loaded = export.load_checkpoint(folder, tokenizer, kind)
        else:
            loaded = pretrained.load(folder, head="lm", dtype=kind)
        return NativeScorer(loaded, batch_tokens)
