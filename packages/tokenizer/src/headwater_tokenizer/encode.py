"""Corpus to token dataset: every row group is encoded once, then all are joined in order.

A finished one stays in the work folder as NAME.bin, NAME.parquet (a row a document) and NAME.json (what was set
aside); after a kill only unfinished ones are encoded again. They are joined in the corpus's order, so where and by
how many workers they were encoded does not show in the result.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from headwater_tokenizer._contracts.errors import UserError
from headwater_tokenizer._contracts.fanout import fan_out
from headwater_tokenizer._contracts.manifest import canonical_json, fsync, manifest_hash, write_atomic
from headwater_tokenizer._contracts.stage import Run
from headwater_tokenizer.classes import class_table
from headwater_tokenizer.config import EncodeConfig
from headwater_tokenizer.corpus import SPLITS, Batch, RowGroup, row_groups, workers_for
from headwater_tokenizer.encoder import Encoder, buffers
from headwater_tokenizer.pieces import count_words
from headwater_tokenizer.special import END_OF_DOCUMENT
from headwater_tokenizer.token_files import DOCUMENTS, Part, SplitWriter


def encode(run: Run) -> None:
    """Stage `encode`: corpus, tokenizer -> .bin/.idx, documents/, tokens.json, rejects.jsonl, metrics.json."""
    config: EncodeConfig = run.config
    corpus, tokenizer = run.inputs["corpus"].resolve(), run.inputs["tokenizer"].resolve()  # as other machines see them
    encoder = Encoder(tokenizer)
    end = encoder.id_of(END_OF_DOCUMENT)
    found = [group for split in SPLITS for group in row_groups(corpus, split)]
    if not encoder.compare_engines(_first_texts(found)):
        run.log("the compiled loops do not know this tokenizer: encoding with tokenizers, some 20 times slower")
    run.log(f"{len(found)} row groups, {encoder.vocab_size} ids as {encoder.dtype.name}")

    work = (run.work / "groups").resolve()
    work.mkdir(exist_ok=True)
    if not config.workers:
        config = config.model_copy(update={"workers": workers_for(found)})
    loaded = _Loaded(tokenizer, manifest_hash(tokenizer), encoder.engine)
    fan_out(run, "encode", partial(encode_group, tokenizer=loaded, end=end, work=work), found, config)

    facts = {"vocabulary": encoder.vocab_size, "end_of_document_id": end, "dtype": encoder.dtype.name}
    parts = {split: _parts([g for g in found if g.split == split], work, encoder.dtype) for split in SPLITS}
    write_dataset(run, corpus, facts, parts, config.per_source)


def write_dataset(
    run: Run,
    origin: Path,
    facts: dict,
    parts: dict[str, Iterator[Part]],
    per_source: bool = False,
) -> None:
    """Write a whole token dataset into `run.out`.

    Args:
        origin: what the documents come from, for messages.
        facts: `vocabulary`, `end_of_document_id` and `dtype`.
        parts: split -> its parts in order.

    Raises:
        UserError: a split has no document.
    """
    metrics, detail = dict(facts), dict(facts)
    rejects: list[dict] = []
    for split, of_split in parts.items():
        before = len(rejects)
        with SplitWriter(run.out, split, np.dtype(facts["dtype"]), per_source) as writer:
            for ids, documents, rejected in of_split:
                writer.write(ids, documents)
                rejects += rejected
            metrics[split], detail[split] = writer.finish(len(rejects) - before)
        if not metrics[split]["documents"]:
            raise UserError(f"{origin / split}: no usable document in it; make it again")
        run.log(f"{split}: {metrics[split]['documents']} documents, {metrics[split]['tokens']} tokens, "
                f"{metrics[split]['bytes_per_token']:.3f} bytes a token")  # fmt: skip
    lines = (json.dumps(reject, sort_keys=True, ensure_ascii=False) + "\n" for reject in rejects)
    write_atomic(run.out / "rejects.jsonl", "".join(lines))
    write_atomic(run.out / "tokens.json", canonical_json(detail))
    run.write_metrics(metrics)


@dataclass(frozen=True)
class _Loaded:
    """Which encoder a worker needs."""

    folder: Path
    mark: str
    """Of the tokenizer's manifest: a process that lives long must not take a changed folder for the one it knows."""
    engine: str


def encode_group(group: RowGroup, tokenizer: _Loaded, end: int, work: Path) -> None:
    """Encode one row group into the work folder; what an interrupted attempt left is written over."""
    encoder = _encoder(tokenizer)
    rejects: list[dict] = []
    binary, table = work / f"{group.name}.bin", work / f"{group.name}.parquet"
    with open(binary, "wb") as f, pq.ParquetWriter(table, DOCUMENTS, compression="zstd") as rows:
        for batch in group.read():
            ids, counts = encoder.encode_column(batch.texts, end)
            f.write(ids.astype(encoder.dtype.newbyteorder("<"), copy=False).data)
            rows.write_table(_table(batch, counts))
            rejects += [{"split": group.split, "shard": group.file.name, **reject} for reject in batch.rejects]
    for path in (binary, table):
        fsync(path)
    write_atomic(work / f"{group.name}.json", canonical_json(rejects))


@lru_cache(1)  # a worker encodes many shards
def _encoder(tokenizer: _Loaded) -> Encoder:
    return Encoder(tokenizer.folder, tokenizer.engine)


def _table(batch: Batch, tokens: np.ndarray) -> pa.Table:
    data, offsets = buffers(batch.texts)
    words = count_words(data, offsets, class_table())
    columns = [batch.ids, batch.sources, batch.langs, np.diff(offsets), words, tokens]
    return pa.table(dict(zip(DOCUMENTS.names, columns, strict=True)), schema=DOCUMENTS)


def _parts(of_split: Sequence[RowGroup], work: Path, dtype: np.dtype) -> Iterator[Part]:
    for group in of_split:
        ids = np.fromfile(work / f"{group.name}.bin", dtype.newbyteorder("<"))
        rejects = json.loads((work / f"{group.name}.json").read_text())
        yield ids, pq.read_table(work / f"{group.name}.parquet"), rejects


def _first_texts(found: Sequence[RowGroup]) -> list[str]:
    """Of the first batch, to compare the two engines on."""
    for group in found:
        for batch in group.read():
            return batch.texts.to_pylist()
    return []
