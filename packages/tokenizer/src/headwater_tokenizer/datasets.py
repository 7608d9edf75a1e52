"""Token datasets: look into one, join two, take a part; all of it on the token files, without encoding again."""

from __future__ import annotations

import argparse
import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from headwater_tokenizer._contracts import manifest
from headwater_tokenizer._contracts.errors import UserError
from headwater_tokenizer._contracts.manifest import write_atomic
from headwater_tokenizer._contracts.stage import Run
from headwater_tokenizer.corpus import SPLITS
from headwater_tokenizer.encoder import Encoder
from headwater_tokenizer.measure import Counts
from headwater_tokenizer.megatron_format import read_index, write_index

COPY = 1 << 22
"""Ids copied at a time."""


def documents(folder: Path, split: str) -> tuple[np.ndarray, np.ndarray]:
    """A split's ids, end to end and read from disk as they are used, and where each document begins in them.

    Returns:
        (tokens,) uint16 or int32; (documents + 1,) int64.

    Raises:
        UserError: the files are missing, or the ids are not as many as the index says.
    """
    try:
        lengths, dtype = read_index(folder / f"{split}.idx")
        size = (folder / f"{split}.bin").stat().st_size
    except (OSError, ValueError) as e:
        raise UserError(f"{folder}: no readable token files of {split} ({e}); encode the corpus again") from None
    starts = np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])
    if size != starts[-1] * dtype.itemsize:
        raise UserError(
            f"{folder / f'{split}.bin'}: {size} bytes, but its index says {int(starts[-1])} ids of {dtype.itemsize}; "
            "encode the corpus again"
        )
    if not size:
        return np.zeros(0, dtype), starts
    return np.memmap(folder / f"{split}.bin", dtype, mode="r"), starts


def check_tokenizer(tokens: Path, tokenizer: Path) -> None:
    """Refuse a tokenizer that a token dataset was not made with.

    Raises:
        UserError: the manifests do not agree.
    """
    made_with = manifest.read(tokens, ("tokens",)).inputs.get("tokenizer")
    if made_with is not None and made_with != manifest.manifest_hash(tokenizer):
        raise UserError(
            f"{tokenizer}: not the tokenizer that {tokens} was made with (manifest {made_with[:12]}); name that one"
        )


def merge(run: Run) -> None:
    """Stage `merge`: the documents of `first`, then those of `second`, split by split.

    Raises:
        UserError: the datasets were made with two tokenizers.
    """
    folders = [run.inputs["first"], run.inputs["second"]]
    for folder in folders:
        check_tokenizer(folder, run.inputs["tokenizer"])
    facts = [json.loads((folder / "metrics.json").read_text()) for folder in folders]
    metrics = {key: facts[0][key] for key in ("vocabulary", "end_of_document_id", "dtype")}
    for split in SPLITS:
        parts = [documents(folder, split) for folder in folders]
        with open(run.out / f"{split}.bin", "wb") as f:
            for ids, _ in parts:
                for at in range(0, len(ids), COPY):
                    f.write(ids[at : at + COPY].data)
        lengths = np.concatenate([np.diff(starts) for _, starts in parts])
        write_index(run.out / f"{split}.idx", lengths.astype(np.int32), parts[0][0].dtype)
        metrics[split] = _sum([fact[split] for fact in facts])
        run.log(f"{split}: {len(lengths)} documents, {metrics[split]['tokens']} tokens")
    write_atomic(run.out / "rejects.jsonl", b"".join((folder / "rejects.jsonl").read_bytes() for folder in folders))
    run.write_metrics(metrics)


def _sum(figures: list[dict]) -> dict:
    sources: dict[str, Counts] = {}
    for part in figures:
        for name, counts in part["by_source"].items():
            sources.setdefault(name, Counts()).add(_counts(counts))
    total = Counts()
    for counts in sources.values():
        total.add(counts)
    return total.figures() | {
        "rejected": sum(part["rejected"] for part in figures),
        "longest_document_tokens": max(part["longest_document_tokens"] for part in figures),
        "by_source": {name: sources[name].figures() for name in sorted(sources)},
    }


def _counts(figures: dict) -> Counts:
    return Counts(**{name: figures[name] for name in ("documents", "bytes", "words", "tokens")})


def subset(run: Run) -> None:
    """Stage `subset`: a random part of the train split's documents in their order, and all held-out ones.

    Raises:
        UserError: no document is left.
    """
    folder, config = run.inputs["tokens"], run.config
    check_tokenizer(folder, run.inputs["tokenizer"])
    encoder = Encoder(run.inputs["tokenizer"])
    facts = json.loads((folder / "metrics.json").read_text())
    metrics = {key: facts[key] for key in ("vocabulary", "end_of_document_id", "dtype")} | {"heldout": facts["heldout"]}
    for split in SPLITS:
        ids, starts = documents(folder, split)
        rows = np.arange(len(starts) - 1)
        if split == "train":
            rows = drawn(np.diff(starts), config.tokens, config.seed)
            if not len(rows):
                raise UserError(
                    f"{folder}: its shortest drawn document has more than {config.tokens} tokens; raise tokens"
                )
        counts = Counts()
        with open(run.out / f"{split}.bin", "wb") as f:
            for row in rows.tolist():
                document = ids[starts[row] : starts[row + 1]]
                f.write(document.tobytes())
                if split == "train":
                    text = encoder.decode(document[document != facts["end_of_document_id"]])
                    counts.add(Counts(1, len(text.encode()), len(text.split()), len(document)))
        lengths = np.diff(starts)[rows]
        write_index(run.out / f"{split}.idx", lengths.astype(np.int32), ids.dtype)
        if split == "train":
            longest = int(lengths.max())
            by_source = {"all": counts.figures()}  # which source a document came from is not in the token files
            metrics[split] = counts.figures() | {
                "rejected": 0, "longest_document_tokens": longest, "by_source": by_source,
            }  # fmt: skip
            run.log(f"train: {len(rows)} of {len(starts) - 1} documents, {counts.tokens} tokens")
    write_atomic(run.out / "rejects.jsonl", "")
    run.write_metrics(metrics)


def drawn(lengths: np.ndarray, tokens: int, seed: int) -> np.ndarray:
    """Rows, ascending, of documents drawn at random until the next would pass so many tokens, (rows,) int64."""
    keys = [hashlib.blake2b(f"{seed}\0{row}".encode(), digest_size=8).digest() for row in range(len(lengths))]
    order = np.array(sorted(range(len(lengths)), key=keys.__getitem__), np.int64)
    taken = int(np.searchsorted(np.cumsum(lengths[order]), tokens, side="right"))
    return np.sort(order[:taken])


def peek(args: argparse.Namespace) -> None:
    """Print documents of a token dataset.

    Raises:
        UserError: no such document, or another tokenizer.
    """
    check_tokenizer(args.tokens, args.tokenizer)
    ids, starts = documents(args.tokens, args.split)
    last = len(starts) - 2
    if not 0 <= args.document <= last:
        raise UserError(f"{args.tokens}: no document {args.document} in {args.split}; it has 0 to {last}")
    for line in _shown(ids, starts, Encoder(args.tokenizer), args):
        print(line)


def _shown(ids: np.ndarray, starts: np.ndarray, encoder: Encoder, args: argparse.Namespace) -> Iterator[str]:
    for row in range(args.document, min(args.document + args.count, len(starts) - 1)):
        document = ids[starts[row] : starts[row + 1]]
        yield f"== {args.split} document {row}: {len(document)} tokens"
        part = document[: args.tokens_shown]
        yield "|".join(encoder.decode(part[i : i + 1]) for i in range(len(part))) if args.cut else encoder.decode(part)
        if len(part) < len(document):
            yield f"... {len(document) - len(part)} more"
