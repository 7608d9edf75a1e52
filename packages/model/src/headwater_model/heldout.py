"""Held-out windows: loss and bits per byte of a whole set and of each source in it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

import headwater_model.cpu as cpu  # noqa: F401

import numpy as np
import torch
from megatron.core.datasets.indexed_dataset import IndexedDataset
from tokenizers import Tokenizer
from torch import Tensor

from . import token_files
from .tokens import Objective, Rows, cut, next_token

UNTOLD = "all"


class HeldOut:
    """Held-out documents as one stream, cut into windows without overlap; every token is predicted once.

    names: the sources, to which the batch entry "source" refers; ["all"] where they are not told apart.
    """

    def __init__(
        self,
        folder: Path,
        context: int,
        tokenizer: Tokenizer,
        end_of_text: int,
        limit: int | None,
        document_mask: bool = False,
        objective: Objective | None = None,
    ):
        """Read the first documents, `limit` tokens at most (at least one document), all if None.

        Args:
            folder: tokens artefact.
            document_mask: as in training, so that both see as much; see `tokens.next_token`.
            objective: what is learned from a window; `next_token` if None.
        """
        data = IndexedDataset(str(Path(folder) / "heldout"))
        ends = np.cumsum(data.sequence_lengths, dtype=np.int64)
        taken = len(ends) if limit is None else max(1, int(np.searchsorted(ends, limit, side="right")))
        documents = [data[i].astype(np.int64) for i in range(taken)]
        lengths = np.array([len(document) for document in documents])
        self.names, sources, sizes = _told(Path(folder), taken)
        if sizes is None:  # byte-level tokens decode to the very bytes that were encoded
            sizes = np.array([len(tokenizer.decode(document.tolist()).encode()) for document in documents])
        self.tokens, self.bytes = int(lengths.sum()), int(sizes.sum())
        self.tokens_of = _summed(sources, lengths, self.names)
        self.bytes_of = _summed(sources, sizes, self.names)
        padding = -self.tokens % context
        stream = np.concatenate([[end_of_text], *documents, np.zeros(padding, np.int64)])
        number = np.concatenate([[0], np.arange(taken).repeat(lengths), np.full(padding, taken)])
        source = np.concatenate([[0], sources.repeat(lengths), np.zeros(padding, np.int64)])
        windows = (torch.from_numpy(t).unfold(0, context + 1, context) for t in (stream, number, source))
        self._rows = Rows(*windows)
        counted = torch.arange(self.tokens + padding) < self.tokens
        self._mask = counted.view(-1, context).float()
        self._objective = objective or (lambda rows, first: next_token(rows, document_mask))

    def batches(self, micro: int, rank: int, ranks: int) -> list[dict[str, Tensor]]:
        """This data-parallel rank's windows; all ranks have as many micro-batches of the same shape."""
        size = len(self._mask)
        share = -(-size // (micro * ranks)) * micro
        picked = torch.arange(rank * share, (rank + 1) * share)
        real = picked < size
        picked = picked.clamp(max=size - 1)
        rows = Rows(self._rows.tokens[picked], self._rows.documents[picked], self._rows.sources[picked])
        samples = self._objective(rows, rank * share)
        return cut({**samples, "loss_mask": _counted(self._mask[picked] * real[:, None], samples)}, micro)

    def bits_per_byte(self, loss: float, source: str | None = None) -> float:
        """From mean nats a token, of the set or of one of its sources."""
        at = None if source is None else self.names.index(source)
        tokens, size = (self.tokens, self.bytes) if at is None else (self.tokens_of[at], self.bytes_of[at])
        return loss * tokens / size / math.log(2)

    def by_source(self, row: Mapping[str, float]) -> dict[str, dict[str, float]]:
        """What an evaluation with `source_loss.per_source_loss(names)` found.

        Args:
            row: "loss/NAME" of every source, mean nats a token.

        Returns:
            source -> loss, bits_per_byte, tokens, bytes.
        """
        return {
            name: {
                "loss": row[f"loss/{name}"],
                "bits_per_byte": self.bits_per_byte(row[f"loss/{name}"], name),
                "tokens": tokens,
                "bytes": size,
            }
            for name, tokens, size in zip(self.names, self.tokens_of, self.bytes_of, strict=True)
        }


def _counted(mask: Tensor, samples: Mapping[str, Tensor]) -> Tensor:
    """What counts of the samples made of windows, of which `mask`, [windows, context], says what is text.

    Samples of another shape have lost the windows' positions: of these only whole windows count.
    """
    own = samples.get("loss_mask")
    if own is None or own.shape == mask.shape:
        return mask if own is None else own * mask
    return own * mask.all(1)[:, None]


def _told(folder: Path, taken: int) -> tuple[list[str], np.ndarray, np.ndarray | None]:
    """What the table of documents says of the first `taken`: the sources' names, whose each is, bytes of each.

    Without a table: one source, and no bytes.
    """
    if not token_files.table_path(folder, "heldout").exists():
        return [UNTOLD], np.zeros(taken, np.int64), None
    whose = token_files.column_of_documents(folder, "heldout", "source")[:taken]
    names, sources = np.unique(whose.astype(str), return_inverse=True)
    return names.tolist(), sources, token_files.column_of_documents(folder, "heldout", "bytes")[:taken]


def _summed(sources: np.ndarray, values: np.ndarray, names: list[str]) -> list[int]:
    return np.bincount(sources, values, len(names)).astype(np.int64).tolist()
