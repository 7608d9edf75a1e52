"""Token datasets (Megatron .bin/.idx): training batches as a pure function of seed and step, held-out windows."""

from __future__ import annotations

from pathlib import Path

import headwater_model.cpu as cpu  # noqa: F401

import numpy as np
import torch
import torch.distributed as dist
from megatron.core.datasets.gpt_dataset import GPTDataset, GPTDatasetConfig
from megatron.core.datasets.indexed_dataset import IndexedDataset
from megatron.core.datasets.utils import Split
from tokenizers import Tokenizer
from torch import Tensor

from ._contracts.errors import UserError


class TrainingData:
    """Megatron's GPTDataset: documents shuffled, joined, cut into windows of context + 1 tokens, shuffled."""

    def __init__(self, folder: Path, context: int, sequences: int, seed: int, end_of_text: int, cache: Path):
        """Build or read the index; collective, rank 0 builds.

        Args:
            folder: tokens artefact.
            context: positions a sequence.
            sequences: how many will be drawn in all; documents are repeated as often as that takes.
            seed: of both shuffles.
            end_of_text: id that ends a document.
            cache: folder for the index, e.g. in the run's work folder.
        """
        special = _SpecialIds(end_of_text)
        config = GPTDatasetConfig(
            random_seed=seed,
            sequence_length=context,
            path_to_cache=str(cache),
            tokenizer=special,  # type: ignore[arg-type]
            reset_position_ids=False,
            reset_attention_mask=False,
            eod_mask_loss=False,
            create_attention_mask=False,
        )
        tokens = IndexedDataset(str(Path(folder) / "train"))
        if int(tokens.sequence_lengths.sum()) <= context:
            raise UserError(f"{folder}: fewer training tokens than one context of {context}; shorten plan.context")
        documents = np.arange(len(tokens), dtype=np.int32)

        def index() -> GPTDataset:
            return GPTDataset(tokens, str(folder), documents, sequences, Split.train, config)

        if dist.get_rank() == 0:
            self._data = index()
        dist.barrier()
        if dist.get_rank() != 0:
            self._data = index()
        self.sequences = sequences

    def batch(self, first: int, size: int, micro: int, rank: int, ranks: int) -> list[dict[str, Tensor]]:
        """This data-parallel rank's micro-batches of one step.

        Args:
            first: place of the step's first sequence in the run's order, from 0.
            size: sequences of the step, over all data-parallel ranks.
            micro: sequences a micro-batch.

        Returns:
            dicts of "tokens" and "labels", int64 [micro, context].
        """
        mine = first + rank * (size // ranks)
        rows = [self._data[i % self.sequences] for i in range(mine, mine + size // ranks)]
        return [
            {name: torch.stack([row[name] for row in rows[i : i + micro]]) for name in ("tokens", "labels")}
            for i in range(0, len(rows), micro)
        ]


class HeldOut:
    """Held-out documents as one stream, cut into windows without overlap; every token is predicted once."""

    def __init__(self, folder: Path, context: int, tokenizer: Tokenizer, end_of_text: int, limit: int | None):
        """Read the first documents, `limit` tokens at most (at least one document), all if None."""
        data = IndexedDataset(str(Path(folder) / "heldout"))
        ends = np.cumsum(data.sequence_lengths)
        taken = len(ends) if limit is None else max(1, int(np.searchsorted(ends, limit, side="right")))
        documents = [data[i].astype(np.int64) for i in range(taken)]
        # Byte-level tokens decode to the very bytes that were encoded.
        self.bytes = sum(len(tokenizer.decode(d.tolist()).encode()) for d in documents)
        stream = np.concatenate([[end_of_text], *documents])
        self.tokens = len(stream) - 1
        padded = np.zeros(-(-self.tokens // context) * context + 1, dtype=np.int64)
        padded[: len(stream)] = stream
        self._inputs = torch.from_numpy(padded[:-1]).view(-1, context)
        self._labels = torch.from_numpy(padded[1:]).view(-1, context)
        counted = torch.arange(len(padded) - 1) < self.tokens
        self._mask = counted.view(-1, context).float()

    def batches(self, micro: int, rank: int, ranks: int) -> list[dict[str, Tensor]]:
        """This data-parallel rank's windows; all ranks have as many micro-batches of the same shape."""
        share = -(-len(self._inputs) // (micro * ranks)) * micro
        picked = torch.arange(rank * share, (rank + 1) * share)
        real = picked < len(self._inputs)
        picked = picked.clamp(max=len(self._inputs) - 1)
        mask = self._mask[picked] * real[:, None]
        whole = {"tokens": self._inputs[picked], "labels": self._labels[picked], "loss_mask": mask}
        return [{name: t[i : i + micro] for name, t in whole.items()} for i in range(0, share, micro)]

    def bits_per_byte(self, loss: float) -> float:
        """From mean nats a token."""
        return loss * self.tokens / self.bytes / float(np.log(2))


class _SpecialIds:
    """As much of a tokenizer as Megatron's dataset asks for."""

    def __init__(self, end_of_text: int):
        self.eod = end_of_text
        self.pad = -1  # windows are full; no id is padding
        self.vocab_size = None
        self.unique_identifiers = {"end_of_text": end_of_text}
        self.special_tokens_dict: dict[str, int] = {}
