"""What benchmarks/tokenizer.py measures, each in a process of its own: `python tokenizer_work.py FUNCTION ARGUMENTS`.

Every engine does the same: documents of a Parquet shard to a file of ids, each followed by an end-of-document id.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

ROWS = 512
PATTERN = (  # of headwater-tokenizer's default split
    r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,2}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def learn(shard: str, folder: str, entries: str) -> dict:
    """Train the tokenizer that all engines then use; its folder."""
    import pyarrow as pa

    from headwater_tokenizer.algorithms import learn
    from headwater_tokenizer.config import TrainConfig

    texts = pq.read_table(shard, columns=["text"])["text"].cast(pa.large_string()).combine_chunks()
    Path(folder).mkdir()
    learn([texts], TrainConfig(vocab_size=int(entries))).save(str(Path(folder) / "tokenizer.json"))
    return {}


def train_ours(shard: str, entries: str) -> dict:
    """Text in, tokenizer out, as headwater-tokenizer train does."""
    import pyarrow as pa

    from headwater_tokenizer.algorithms import learn
    from headwater_tokenizer.config import TrainConfig

    config = TrainConfig(vocab_size=int(entries))
    learn(
        [pa.array(["the weir of the river " * 9] * 9, pa.large_string())], config.model_copy(update={"vocab_size": 290})
    )

    def batches():
        for rows in pq.ParquetFile(shard).iter_batches(ROWS, columns=["text"]):
            yield rows.column(0).cast(pa.large_string())

    start = time.process_time()
    tokenizer = learn(batches(), config)
    spent = time.process_time() - start
    return {"cpu_s": spent, "merges": _digest(json.loads(tokenizer.to_str())["model"]["merges"])}


def train_huggingface(shard: str, entries: str) -> dict:
    """tokenizers' BpeTrainer with the settings that TrainConfig stands for."""
    from tokenizers import Regex, Tokenizer, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    split = pre_tokenizers.Split(Regex(PATTERN), "isolated")
    as_bytes = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split, as_bytes])
    trainer = trainers.BpeTrainer(
        vocab_size=int(entries) - 6 - 16, min_frequency=2, max_token_length=32, show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), special_tokens=[],
    )  # fmt: skip

    def batches():
        for rows in pq.ParquetFile(shard).iter_batches(ROWS, columns=["text"]):
            yield rows.column(0).to_pylist()

    start = time.process_time()
    tokenizer.train_from_iterator(batches(), trainer)
    spent = time.process_time() - start
    return {"cpu_s": spent, "merges": _digest(json.loads(tokenizer.to_str())["model"]["merges"])}


def train_rustbpe(shard: str, entries: str) -> dict:
    """nanochat's trainer: no limit on a token's length, no least frequency, other merges among equals."""
    import rustbpe

    def texts():
        for rows in pq.ParquetFile(shard).iter_batches(ROWS, columns=["text"]):
            yield from rows.column(0).to_pylist()

    start = time.process_time()
    rustbpe.Tokenizer().train_from_iterator(texts(), int(entries) - 6 - 16, pattern=PATTERN)
    return {"cpu_s": time.process_time() - start}


def _digest(merges: list) -> str:
    pairs = [merge if isinstance(merge, list) else merge.split(" ") for merge in merges]
    return hashlib.sha256(json.dumps(pairs).encode()).hexdigest()


def ours(shard: str, folder: str) -> dict:
    """headwater-tokenizer's loops over the shard's columns."""
    import pyarrow as pa

    from headwater_tokenizer.encoder import Encoder

    encoder = Encoder(Path(folder))
    assert encoder.engine == "compiled"

    def encode(rows, write) -> None:
        ids, lengths = encoder.encode_column(rows.cast(pa.large_string()), 0)
        write(ids, lengths)

    return _run(shard, encode)


def huggingface(shard: str, folder: str) -> dict:
    """tokenizers' fastest batch call."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(Path(folder) / "tokenizer.json"))
    tokenizer.encode_special_tokens = True

    def encode(rows, write) -> None:
        found = tokenizer.encode_batch_fast(rows.to_pylist(), add_special_tokens=False)
        parts = [np.array([*one.ids, 0], np.int32) for one in found]
        write(np.concatenate(parts), [len(part) for part in parts])

    return _run(shard, encode)


def tiktoken(shard: str, folder: str) -> dict:
    """tiktoken with the same merges: ranks of bytes, the same pattern."""
    import tiktoken

    content = json.loads((Path(folder) / "tokenizer.json").read_text())
    byte_of = _bytes_of_characters()
    ranks = {bytes(byte_of[c] for c in token): number for token, number in content["model"]["vocab"].items()}
    pattern = content["pre_tokenizer"]["pretokenizers"][0]["pattern"]["Regex"]
    encoding = tiktoken.Encoding("same", pat_str=pattern, mergeable_ranks=ranks, special_tokens={})

    def encode(rows, write) -> None:
        parts = [np.append(encoding.encode_to_numpy(t, disallowed_special=()), 0) for t in rows.to_pylist()]
        write(np.concatenate(parts), [len(part) for part in parts])

    return _run(shard, encode)


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

        start = time.process_time()
        for rows in pq.ParquetFile(shard).iter_batches(ROWS, columns=["text"]):
            encode(rows.column(0), write)
        out.flush()
        spent = time.process_time() - start
    return {"cpu_s": spent, "ids": written, "digest": digest.hexdigest()}


if __name__ == "__main__":
    print(json.dumps(globals()[sys.argv[1]](*sys.argv[2:])))
