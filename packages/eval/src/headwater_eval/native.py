"""The Scorer over headwater_model: an export folder in, log-likelihoods and greedy text out."""

from __future__ import annotations

import warnings
from pathlib import Path

import torch
from torch import Tensor

from ._contracts.errors import UserError


class NativeScorer:
    """A model of headwater_model with its tokenizer; see `lm.Scorer` and `generations.ChatScorer`.

    Args:
        loaded: what `headwater_model.pretrained.load` returns.

    Raises:
        UserError: the tokenizer lacks a special token of the chat format.
    """

    def __init__(self, loaded):  # noqa: ANN001  (headwater_model is optional)
        from headwater_model import generation, loss

        self._generate, self._linear_scores = generation.generate, loss.linear_scores
        self.model, self.tokenizer = loaded.model.eval(), loaded.tokenizer
        self.context = loaded.config.context
        self.tokenizer.encode_special_tokens = True  # a document that spells <|end|> holds seven letters, no turn's end
        ids = {
            token: self.tokenizer.token_to_id(token)
            for token in ("<|endoftext|>", "<|user|>", "<|assistant|>", "<|end|>")
        }
        absent = [token for token, number in ids.items() if number is None]
        if absent:
            raise UserError(
                f"{loaded.folder}: its tokenizer has no {absent[0]}; export with a tokenizer of this lineage"
            )
        self.end_of_document, self._user, self._assistant, self.end_of_turn = ids.values()

    def encode(self, text: str) -> list[int]:
        """Ids of plain text."""
        return self.tokenizer.encode(text, add_special_tokens=False).ids

    def encode_chat(self, question: str) -> list[int]:
        """Ids of one user turn and the beginning of the answer."""
        return [self._user, *self.encode(question), self.end_of_turn, self._assistant]

    def decode(self, ids: list[int]) -> str:
        """Text of ids, special tokens left out."""
        return self.tokenizer.decode(ids, skip_special_tokens=True)

    @torch.no_grad()
    def scores(self, tokens: Tensor, rows: Tensor, positions: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Log-likelihoods of labels and greedy flags; the output layer runs at these positions only."""
        shared = self.model.share_embeddings_and_output_weights
        weight = self.model.shared_embedding_or_output_weight() if shared else self.model.output_layer.weight
        tokens = tokens.to(weight.device)
        self.model.post_process = False  # it then hands its hidden states on, as a pipeline's inner rank does
        try:
            hidden = self.model(tokens)  # [positions, batch, width]
        finally:
            self.model.post_process = True
        nats, greedy = self._linear_scores(hidden[positions, rows], weight, labels.to(weight.device))
        return nats.cpu(), greedy.cpu()

    def generate(self, prompts: list[list[int]], max_new_tokens: int, stop: list[int]) -> list[list[int]]:
        """Greedy continuations without the id that stopped them."""
        written = self._generate(self.model, prompts, max_new_tokens, temperature=0.0, stop_ids=stop)
        return [[i for i in one.tokens if i not in stop] for one in written]

    def sample(
        self, prompts: list[list[int]], max_new_tokens: int, stop: list[int], temperature: float, top_k: int, seed: int
    ) -> list[list[int]]:
        """Like `generate`, but drawn at random: the same for the same prompts and seed."""
        written = self._generate(self.model, prompts, max_new_tokens, temperature, top_k, stop_ids=stop, seed=seed)
        return [[i for i in one.tokens if i not in stop] for one in written]


def load(folder: Path, dtype: str = "float32", threads: int = 1) -> NativeScorer:
    """Load an export folder into this process.

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
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Megatron says that Apex is missing: it is, on a CPU
        runtime.initialize()
        return NativeScorer(pretrained.load(folder, dtype=getattr(torch, dtype)))
