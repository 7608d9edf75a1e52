"""Training batches as a pure function of the seed and the place in the run's order.

Megatron's GPTDataset shuffles the documents of a part, joins them, cuts them into windows of context + 1 tokens and
shuffles these; its BlendedDataset takes windows of several parts in turn, so that after any number of them each part
has its share. A part is read epoch after epoch, each epoch a GPTDataset with a seed of its own: one dataset over all
epochs at once would shuffle differently for every number of epochs planned, and would read some documents twice before
others once. So what stands at a place depends on the data, the weights, the context and the seed alone, never on how
many steps are planned, on the layout, or on where a run was interrupted.
"""

from __future__ import annotations

import hashlib
import mmap
import os
import shutil
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import headwater_model.cpu as cpu  # noqa: F401

import numpy as np
import torch
import torch.distributed as dist
from megatron.core.datasets.blended_dataset import BlendedDataset
from megatron.core.datasets.gpt_dataset import GPTDataset, GPTDatasetConfig
from megatron.core.datasets.indexed_dataset import IndexedDataset
from megatron.core.datasets.utils import Split
from torch import Tensor

from . import blend, token_files
from ._contracts.manifest import canonical_json
from .blend import Part
from .training_config import DataConfig


@dataclass(frozen=True)
class Rows:
    """Windows of text, each int64 [windows, context + 1]."""

    tokens: Tensor
    documents: Tensor
    """Numbers the documents of each window in order; equal within one."""
    sources: Tensor
    """Place of each token's source in the data's `names`."""


Objective = Callable[[Rows, int], dict[str, Tensor]]
"""Turns windows into a batch's entries, each [windows, ...]; told the place of the first of them, which seeds what it
draws."""


def next_token(rows: Rows, document_mask: bool = False) -> dict[str, Tensor]:
    """Next-token prediction, every position counted.

    A position belongs to the document of its label. So <|endoftext|> is read as the start of the document after it,
    whose first token is predicted from it, and from nothing else under a document mask; no label is lost at a joint.

    Returns:
        int64 [windows, context]: "tokens", "labels" and "source" (of the label); with `document_mask` "attention_mask"
        (the segments that `GPT.forward` takes) and "position_ids" (from 0 in each).
    """
    found = {
        "tokens": rows.tokens[:, :-1].contiguous(),
        "labels": rows.tokens[:, 1:].contiguous(),
        "source": rows.sources[:, 1:].contiguous(),
    }
    if document_mask:
        segments = rows.documents[:, 1:].contiguous()
        found |= {"attention_mask": segments, "position_ids": positions(segments)}
    return found


def positions(segments: Tensor) -> Tensor:
    """Positions counted from the start of each segment: int64 [batch, positions] of such segments."""
    places = torch.arange(segments.size(1)).expand_as(segments)
    starts = torch.ones_like(segments, dtype=torch.bool)
    starts[:, 1:] = segments[:, 1:] != segments[:, :-1]
    return places - (places * starts).cummax(1).values


def cut(samples: Mapping[str, Tensor], micro: int) -> list[dict[str, Tensor]]:
    """A batch's entries as micro-batches of `micro` rows, in order."""
    size = len(samples["tokens"])
    return [{name: t[i : i + micro] for name, t in samples.items()} for i in range(0, size, micro)]


class TrainingData:
    """Windows of one tokens artefact or several, in the run's order.

    parts: what is weighed and counted, `names`: the sources, to which the batch entry "source" refers.
    """

    def __init__(
        self,
        inputs: Mapping[str, Path],
        config: DataConfig,
        context: int,
        sequences: int,
        seed: int,
        end_of_text: int,
        cache: Path,
        objective: Objective | None = None,
    ):
        """Build or open the index; collective, rank 0 builds. What was built stays valid however the run ends.

        Args:
            inputs: name -> tokens artefact.
            context: positions a sequence.
            sequences: how many will be drawn at most; beyond them the order starts again.
            seed: of every shuffle.
            end_of_text: id that ends a document.
            cache: folder for the index, e.g. in the run's work folder; of each epoch 12 bytes a window and 4 a
                document, besides 2 a document and, of a blend, 10 a sequence. Ids and index are mapped, not read.
            objective: what is learned from a window; `next_token` if None.

        Raises:
            UserError: weights that name what is not there, or a part shorter than one window.
        """
        every = blend.datasets(inputs)
        self.context, self.sequences, self._seed, self._end_of_text = context, sequences, seed, end_of_text
        self.parts = blend.parts(every, config.weights, context)
        self.names = blend.source_names(self.parts)
        self._left_out = blend.left_out(every, self.parts)
        self._objective = objective or (lambda rows, first: next_token(rows, config.document_mask))
        index = cache / self._key()
        if dist.get_rank() == 0 and not index.exists():
            # Megatron takes any index whose files are there, also one of which a kill left half.
            making = index.with_name(f".{index.name}.making")
            shutil.rmtree(making, ignore_errors=True)
            making.mkdir(parents=True)
            self._write_sources(making)
            self._open(making)
            os.rename(making, index)
        dist.barrier()
        self._data = self._open(index)

    def batch(self, first: int, size: int, micro: int, rank: int, ranks: int) -> list[dict[str, Tensor]]:
        """This data-parallel rank's micro-batches of one step.

        Args:
            first: place of the step's first sequence in the run's order, from 0.
            size: sequences of the step, over all data-parallel ranks.
            micro: sequences a micro-batch.

        Returns:
            dicts of what the objective makes, [micro, ...]; see `next_token`.
        """
        mine = first + rank * (size // ranks)
        return cut(self._objective(self.rows(mine, size // ranks), mine), micro)

    def rows(self, first: int, count: int) -> Rows:
        """The windows at `count` places from `first` on."""
        table = np.empty((3, count, self.context + 1), np.int64)
        for i in range(count):
            row = self._data[(first + i) % self.sequences]
            table[0, i], table[1, i], table[2, i] = row["tokens"], row["documents"], row["sources"]
        return Rows(*torch.from_numpy(table))

    def counts(self, samples: int) -> dict[str, dict[str, float]]:
        """What has been read of each part after so many windows of the run's order.

        Returns:
            part -> tokens: read; share: of all tokens read; epochs: how often the part has been read; tokens_repeated,
            documents_repeated: read again, in part or whole. A window's first token, which is the last of the window
            before, is not counted.
        """
        rounds, rest = divmod(samples, self.sequences)
        first, second = (self._drawn(min(max(0, n), self.sequences)) for n in (samples, samples - self.sequences))
        drawn = rounds * self._drawn(self.sequences) + self._drawn(rest)
        found = {}
        for part, epochs, *reads, count in zip(self.parts, self._epochs, first, second, drawn, strict=True):
            found[part.name] = {
                "tokens": int(count) * self.context,
                "share": float(count) / max(samples, 1),
                "epochs": float(count) / epochs.size,
                "tokens_repeated": int(count - min(reads[0], epochs.size)) * self.context,
                "documents_repeated": epochs.documents_repeated(reads),
            }
        return found

    def report(self, samples: int) -> list[str]:
        """What the log should say before so many windows are read: shares, repetition, and what is left out."""
        lines = []
        for name, read in self.counts(samples).items():
            share = f" ({read['share']:.1%} of the run)" if len(self.parts) > 1 else ""
            times = f"{name} will be read {read['epochs']:.2f} times{share}"
            repeated = f": {read['tokens_repeated']:,} tokens of {read['documents_repeated']:,} documents again"
            lines.append(times + (repeated if read["tokens_repeated"] else ""))
        return lines + ([f"left out by data.weights: {', '.join(self._left_out)}"] if self._left_out else [])

    def _drawn(self, samples: int) -> np.ndarray:
        """Windows of each part among the first `samples` places, int64 [parts]."""
        if len(self.parts) == 1:
            return np.array([samples])
        return np.bincount(self._data.dataset_index[:samples], minlength=len(self.parts))

    def _key(self) -> str:
        """Of all that the index depends on, machine paths left out."""
        told = {
            "parts": [[p.name, p.source, p.share, p.dataset.mark] for p in self.parts],
            "order": [self.context, self.sequences, self._seed, self._end_of_text],
        }
        return hashlib.sha256(canonical_json(told).encode()).hexdigest()[:16]

    def _write_sources(self, folder: Path) -> None:
        """Of each dataset that is read by document: whose each document is, to be mapped by every rank."""
        for part in self.parts:
            path = folder / _sources_file(part)
            if part.names and part.dataset.has_table and not path.exists():
                numbers = token_files.source_of_documents(part.dataset.folder, "train", sorted(part.dataset.sources))
                np.save(path, numbers, allow_pickle=False)

    def _open(self, folder: Path) -> Any:
        self._epochs = [self._read(part, folder) for part in self.parts]
        if len(self._epochs) == 1:
            return self._epochs[0]
        shares = [part.share for part in self.parts]
        return BlendedDataset(self._epochs, shares, self.sequences, self._config(0, folder))  # type: ignore[arg-type]

    def _read(self, part: Part, folder: Path) -> _Epochs:
        own = token_files.source_files(part.dataset.folder, "train").get(part.source or "")
        tokens = _mapped(own or part.dataset.folder / "train")
        documents = np.arange(len(tokens), dtype=np.int32)
        whose, known = None, sorted(part.dataset.sources)
        if part.names and not own:
            whose = np.load(folder / _sources_file(part), mmap_mode="r")
            if part.source is not None:
                documents = np.flatnonzero(whose == known.index(part.source)).astype(np.int32)
        called = [part.names.get(source) for source in known] if whose is not None else [part.name]
        sources = np.array([self.names.index(name) if name in self.names else -1 for name in called])
        drawn = min(self.sequences, int(part.share * self.sequences) + 2)  # the blend is never more than 1 ahead
        named = f"{part.dataset.mark} {part.name}"
        epochs = range(-(-drawn // part.windows(self.context)))
        return _Epochs([_Windows(tokens, named, documents, self._config(e, folder), sources, whose) for e in epochs])

    def _config(self, epoch: int, folder: Path) -> GPTDatasetConfig:
        return GPTDatasetConfig(
            random_seed=epoch_seed(self._seed, epoch),
            sequence_length=self.context,
            path_to_cache=str(folder),
            tokenizer=_SpecialIds(self._end_of_text),  # type: ignore[arg-type]
            reset_position_ids=False,
            reset_attention_mask=False,
            eod_mask_loss=False,
            create_attention_mask=False,
        )


def epoch_seed(seed: int, epoch: int) -> int:
    """Seed of an epoch's shuffle, below 2^32 as numpy's RandomState wants it; the first epoch has the run's own."""
    if epoch == 0:
        return seed % 2**32
    return int.from_bytes(hashlib.sha256(f"{seed} epoch {epoch}".encode()).digest()[:4], "big")


def _mapped(prefix: Path) -> IndexedDataset:
    """Token files of which only what is asked for is read.

    Windows lie at random places. The kernel's read-ahead would fetch up to some MB around each few KB: of a dataset of
    100 GB, 640 windows took 4.4 s of system time with it and 0.02 s without.
    """
    found = IndexedDataset(str(prefix))
    found.bin_reader = _AtRandom(prefix.with_name(f"{prefix.name}.bin"))
    return found


class _AtRandom:
    """Megatron's reader of a mapped .bin, told that reads are not in order."""

    def __init__(self, path: Path):
        with open(path, "rb") as file:
            self._ids = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        self._ids.madvise(mmap.MADV_RANDOM)

    def read(self, dtype: type[np.number], count: int, offset: int) -> np.ndarray:
        return np.frombuffer(self._ids, dtype, count, offset)


def _sources_file(part: Part) -> str:
    return f"sources-{part.dataset.mark[:16]}.npy"


class _Windows(GPTDataset):
    """One epoch of a part: Megatron's order and cut, and of each token its document and source."""

    def __init__(
        self,
        tokens: IndexedDataset,
        name: str,
        documents: np.ndarray,
        config: GPTDatasetConfig,
        sources: np.ndarray,
        whose: np.ndarray | None,
    ):
        """
        Args:
            name: stands for the documents in the index's file names, which Megatron makes without looking at them.
            documents: int32, those of `tokens` that belong to the part.
            sources: numbers of the sources.
            whose: place in `sources` of each document of `tokens`; None: of all the first.
        """
        super().__init__(tokens, name, documents, None, Split.train, config)
        self._sources, self._whose = sources, whose

    def __getitem__(self, index: Any) -> dict[str, Any]:
        text, documents = self._query_document_sample_shuffle_indices(index)
        lengths = self.dataset.sequence_lengths[documents]
        lengths[0] -= self.sample_index[self.shuffle_index[index]][1]
        lengths[-1] += len(text) - lengths.sum()
        sources = self._sources[:1] if self._whose is None else self._sources[self._whose[documents]].repeat(lengths)
        return {"tokens": text, "documents": np.arange(len(documents)).repeat(lengths), "sources": sources}

    def touched(self, windows: int) -> np.ndarray:
        """Documents of which the first so many windows hold something: bool [documents of the dataset]."""
        taken, places = self.shuffle_index[:windows], len(self.document_index)
        opened = np.bincount(self.sample_index[taken, 0], minlength=places)
        closed = np.bincount(self.sample_index[taken + 1, 0], minlength=places)
        inside = np.cumsum(opened) - np.cumsum(closed) + closed > 0
        found = np.zeros(len(self.dataset), bool)
        found[self.document_index[inside]] = True
        return found


class _Epochs:
    """A part, epoch after epoch: what BlendedDataset asks of a dataset."""

    index_split = Split.train

    def __init__(self, epochs: list[_Windows]):
        self.epochs = epochs
        self.size = len(epochs[0])
        self.unique_identifiers = OrderedDict(epochs[0].unique_identifiers, epochs=len(epochs))

    def __len__(self) -> int:
        return self.size * len(self.epochs)

    def __getitem__(self, index: int) -> dict[str, Any]:
        epoch, place = divmod(int(index), self.size)
        return self.epochs[epoch][place]

    def documents_repeated(self, reads: Sequence[int]) -> int:
        """Documents of which something has been read in two epochs or more.

        Args:
            reads: windows of each time that the part was read from its beginning.
        """
        seen = np.zeros(len(self.epochs[0].dataset), np.int8)
        for windows in map(int, reads):
            for epoch, dataset in enumerate(self.epochs[:2]):
                if windows > epoch * self.size:
                    seen += dataset.touched(min(windows - epoch * self.size, self.size))
        return int((seen > 1).sum())


class _SpecialIds:
    """As much of a tokenizer as Megatron's dataset asks for."""

    def __init__(self, end_of_text: int):
        self.eod = end_of_text
        self.pad = -1  # windows are full; no id is padding
        self.vocab_size = None
        self.unique_identifiers = {"end_of_text": end_of_text}
        self.special_tokens_dict: dict[str, int] = {}
