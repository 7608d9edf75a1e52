"""What benchmarks/tokenizer.py measures, each in a process of its own: `python tokenizer_work.py FUNCTION ARGUMENTS`.

Every encoder does the same: documents of a Parquet shard to a file of ids, each followed by an end-of-document id.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

ROWS = 512
LINE = 1 << 14  # characters of a sentence for sentencepiece at most, as headwater-tokenizer cuts them


# ---- training: text in, tokenizer out


def learn(shard: str, folder: str, algorithm: str, entries: str) -> dict:
    """Train the tokenizer that several engines then use; its folder."""
    Path(folder).mkdir()
    _learn(_columns(shard), algorithm, int(entries)).save(str(Path(folder) / "tokenizer.json"))
    return {}


def train_ours(shard: str, algorithm: str, entries: str) -> dict:
    """As headwater-tokenizer train does."""
    import pyarrow as pa

    words = " ".join(f"{a}{b}{c}" for a in "aeiou" for b in "bcdfglmnprst" for c in "aeinorstu")
    _learn([pa.array([words] * 9, pa.large_string())], algorithm, 340)  # warm: compiled, loaded
    start = time.process_time()
    tokenizer = _learn(_columns(shard), algorithm, int(entries))
    spent = time.process_time() - start
    return {"cpu_s": spent, "merges": _digest(json.loads(tokenizer.to_str())["model"].get("merges", []))}


def train_huggingface(shard: str, algorithm: str, learned: str, pattern: str) -> dict:
    """tokenizers' trainer with the settings that TrainConfig stands for."""
    from tokenizers import Regex, Tokenizer, models, pre_tokenizers, trainers

    split = pre_tokenizers.Split(Regex(pattern), "isolated")
    trainer: Any
    if algorithm == "bpe":
        tokenizer = Tokenizer(models.BPE())
        as_bytes = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split, as_bytes])
        trainer = trainers.BpeTrainer(
            vocab_size=int(learned), min_frequency=2, max_token_length=32, show_progress=False,
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), special_tokens=[],
        )  # fmt: skip
    else:
        tokenizer = Tokenizer(models.Unigram())
        tokenizer.pre_tokenizer = split
        trainer = trainers.UnigramTrainer(
            vocab_size=int(learned) - 256, max_piece_length=16, unk_token="<unk>", special_tokens=["<unk>"],
            show_progress=False,
        )  # fmt: skip
    start = time.process_time()
    tokenizer.train_from_iterator(_lists(shard), trainer)
    spent = time.process_time() - start
    return {"cpu_s": spent, "merges": _digest(json.loads(tokenizer.to_str())["model"].get("merges", []))}


def train_rustbpe(shard: str, algorithm: str, learned: str, pattern: str) -> dict:
    """nanochat's trainer: no limit on a token's length, no least frequency, other merges among equals."""
    import rustbpe

    start = time.process_time()
    texts = (text for batch in _lists(shard) for text in batch)
    rustbpe.Tokenizer().train_from_iterator(texts, int(learned), pattern=pattern)
    return {"cpu_s": time.process_time() - start}


def train_sentencepiece(shard: str, algorithm: str, learned: str, model: str) -> dict:
    """sentencepiece's trainer on lines, text as it is: nothing normalised, collapsed or prefixed; one thread."""
    import sentencepiece

    def lines():
        for batch in _lists(shard):
            for text in batch:
                for line in text.splitlines():
                    yield from (line[at : at + LINE] for at in range(0, len(line), LINE))

    start = time.process_time()
    with open(model, "wb") as file:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=lines(), model_writer=file, model_type=algorithm, vocab_size=int(learned),
            num_threads=1, byte_fallback=True, character_coverage=0.9995, max_sentence_length=8 * LINE,
            max_sentencepiece_length=16, normalization_rule_name="identity", remove_extra_whitespaces=False,
            add_dummy_prefix=False, allow_whitespace_only_pieces=True, minloglevel=2,
        )  # fmt: skip
    return {"cpu_s": time.process_time() - start}


def _learn(columns, algorithm: str, entries: int):
    from headwater_tokenizer.algorithms import learn
    from headwater_tokenizer.config import TrainConfig

    return learn(columns, TrainConfig(algorithm=algorithm, vocab_size=entries))


def _digest(merges: list) -> str:
    pairs = [merge if isinstance(merge, list) else merge.split(" ") for merge in merges]
    return hashlib.sha256(json.dumps(pairs).encode()).hexdigest()


def _columns(shard: str):
    import pyarrow as pa

    for rows in pq.ParquetFile(shard).iter_batches(ROWS, columns=["text"]):
        yield rows.column(0).cast(pa.large_string())


def _lists(shard: str):
    for rows in pq.ParquetFile(shard).iter_batches(ROWS, columns=["text"]):
        yield rows.column(0).to_pylist()


# ---- encoding: an encoder is a function of a column and of what takes ids and lengths


def ours(shard: str, folder: str) -> dict:
    """headwater-tokenizer's loops over the shard's columns."""
    return _run(shard, _ours(folder))


def huggingface(shard: str, folder: str, threads: str = "1") -> dict:
    """tokenizers' fastest batch call."""
    os.environ["RAYON_NUM_THREADS"] = threads  # read when its pool is made
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(Path(folder) / "tokenizer.json"))
    tokenizer.encode_special_tokens = True

    def encode(rows, write) -> None:
        found = tokenizer.encode_batch_fast(rows.to_pylist(), add_special_tokens=False)
        parts = [np.array([*one.ids, 0], np.int32) for one in found]
        write(np.concatenate(parts), [len(part) for part in parts])

    return _run(shard, encode)


def tiktoken(shard: str, folder: str, threads: str = "1") -> dict:
    """tiktoken with the same merges: ranks of bytes, the same pattern."""
    import tiktoken

    content = json.loads((Path(folder) / "tokenizer.json").read_text())
    byte_of = _bytes_of_characters()
    ranks = {bytes(byte_of[c] for c in token): number for token, number in content["model"]["vocab"].items()}
    pattern = content["pre_tokenizer"]["pretokenizers"][0]["pattern"]["Regex"]
    encoding = tiktoken.Encoding("same", pat_str=pattern, mergeable_ranks=ranks, special_tokens={})

    def encode(rows, write) -> None:
        if threads == "1":
            parts = [np.append(encoding.encode_to_numpy(t, disallowed_special=()), 0) for t in rows.to_pylist()]
        else:
            found = encoding.encode_ordinary_batch(rows.to_pylist(), num_threads=int(threads))
            parts = [np.array([*ids, 0], np.int32) for ids in found]
        write(np.concatenate(parts), [len(part) for part in parts])

    return _run(shard, encode)


def sentencepiece(shard: str, model: str, threads: str = "1") -> dict:
    """sentencepiece's batch call with a model of its own."""
    from sentencepiece import SentencePieceProcessor

    processor = SentencePieceProcessor(model_file=model)

    def encode(rows, write) -> None:
        found = processor.encode(rows.to_pylist(), num_threads=int(threads))
        parts = [np.array([*ids, 0], np.int32) for ids in found]
        write(np.concatenate(parts), [len(part) for part in parts])

    return _run(shard, encode)


def ours_parallel(shard: str, folder: str, processes: str) -> dict:
    """Processes that share the row groups, as headwater-tokenizer encode does, once they are up."""
    import multiprocessing

    context = multiprocessing.get_context("spawn")
    ready = context.Barrier(int(processes) + 1)
    with context.Pool(int(processes), _start, (folder, shard, ready)) as pool:
        ready.wait()
        start = time.monotonic()
        written = sum(pool.imap_unordered(_encode_group, range(pq.ParquetFile(shard).num_row_groups)))
        spent = time.monotonic() - start
    return {"wall_s": spent, "ids": written}


_worker: tuple[Any, pq.ParquetFile, Any]
"""Of a process of `ours_parallel`: encoder, shard, its own output."""


def _start(folder: str, shard: str, ready) -> None:
    global _worker
    _worker = (_ours(folder), pq.ParquetFile(shard), tempfile.TemporaryFile())  # noqa: SIM115
    _worker[0](next(_worker[1].iter_batches(20, columns=["text"])).column(0), lambda ids, lengths: None)
    ready.wait()


def _encode_group(group: int) -> int:
    encode, file, out = _worker
    written = 0

    def write(ids, lengths) -> None:
        nonlocal written
        out.write(ids.astype("<u2", copy=False).tobytes())
        written += len(ids)

    for rows in file.iter_batches(ROWS, row_groups=[group], columns=["text"]):
        encode(rows.column(0), write)
    return written


def _ours(folder: str):
    import pyarrow as pa

    from headwater_tokenizer.encoder import Encoder

    encoder = Encoder(Path(folder))
    assert encoder.engine == "compiled"

    def encode(rows, write) -> None:
        ids, lengths = encoder.encode_column(rows.cast(pa.large_string()), 0)
        write(ids, lengths)

    return encode


def _bytes_of_characters() -> dict[str, int]:
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(b): b for b in printable} | {chr(0x100 + i): b for i, b in enumerate(others)}


def _run(shard: str, encode) -> dict:
    file = pq.ParquetFile(shard)
    encode(next(file.iter_batches(20, columns=["text"])).column(0), lambda ids, lengths: None)  # warm: compiled, loaded
    digest = hashlib.sha256()
    with tempfile.TemporaryFile() as out:
        written = 0

        def write(ids, lengths) -> None:
            nonlocal written
            data = ids.astype("<u2", copy=False).tobytes()
            out.write(data)
            written += len(ids)
            if os.environ.get("COMPARE"):
                digest.update(data)

        start, wall = time.process_time(), time.monotonic()
        for rows in pq.ParquetFile(shard).iter_batches(ROWS, columns=["text"]):
            encode(rows.column(0), write)
        out.flush()
        spent, wall = time.process_time() - start, time.monotonic() - wall
    return {"cpu_s": spent, "wall_s": wall, "ids": written, "digest": digest.hexdigest()}


if __name__ == "__main__":
    print(json.dumps(globals()[sys.argv[1]](*sys.argv[2:])))
