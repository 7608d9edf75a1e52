"""The work that benchmarks/data.py times, ours and the peers': `data_work.py FUNCTION ARGUMENTS` in its own process.

Each function warms up (imports, compiled code, models) on a few documents, then times the rest: one line of JSON with
CPU seconds and what came out. Each imports what it needs itself, so the file runs in a peer's environment too.
"""

from __future__ import annotations

import functools
import json
import resource
import sys
import tempfile
from pathlib import Path


def cpu_seconds() -> float:
    spent = 0.0
    for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN):
        usage = resource.getrusage(who)
        spent += usage.ru_utime + usage.ru_stime
    return spent


def timed(work, *arguments) -> dict:
    before = cpu_seconds()
    found = work(*arguments)
    return {"cpu_s": cpu_seconds() - before, **found}


def texts_of(path: str, limit: str = "0"):
    import polars as pl

    return pl.read_parquet(path, n_rows=int(limit) or None)["text"]


# ---- the filter chain of FineWeb: Gopher repetition, Gopher quality, C4, FineWeb's own ---------------------------


def own_chain(path: str, limit: str) -> dict:
    import polars as pl

    from headwater_data.config import published_rules
    from headwater_data.quality.heuristics import SIGNALS, measure
    from headwater_data.quality.rules import verdicts

    rules = {n: r for n, r in published_rules().items() if r.signal in SIGNALS}

    def work(texts) -> dict:
        frame = measure(texts).with_columns(category=pl.lit("internet"), source=pl.lit("web"), language=pl.lit("en"))
        rule, _ = verdicts(frame, rules)
        return {"documents": len(texts), "kept": int(rule["rule"].null_count())}

    texts = texts_of(path, limit)
    work(texts[:20])
    return timed(work, texts)


def datatrove_chain(path: str, limit: str) -> dict:
    from datatrove.data import Document
    from datatrove.pipeline.filters import (
        C4QualityFilter,
        FineWebQualityFilter,
        GopherQualityFilter,
        GopherRepetitionFilter,
    )

    chain = [
        GopherRepetitionFilter(), GopherQualityFilter(), C4QualityFilter(filter_no_terminal_punct=False),
        FineWebQualityFilter(),
    ]  # fmt: skip

    def work(texts) -> dict:
        kept = 0
        for i, text in enumerate(texts):
            document = Document(text=text, id=str(i))
            kept += all(f.filter(document) is True for f in chain)
        return {"documents": len(texts), "kept": kept}

    texts = texts_of(path, limit).to_list()
    work(texts[:20])
    return timed(work, texts)


def datatrove_one(path: str, limit: str, name: str) -> dict:
    """One of datatrove's filters alone."""
    import datatrove.pipeline.filters as filters
    from datatrove.data import Document

    options = {"filter_no_terminal_punct": False} if name == "C4QualityFilter" else {}
    only = getattr(filters, name)(**options)

    def work(texts) -> dict:
        return {"documents": len(texts), "kept": sum(only.filter(Document(text=t, id="")) is True for t in texts)}

    texts = texts_of(path, limit).to_list()
    work(texts[:20])
    return timed(work, texts)


def dolma_tagger(path: str, limit: str, name: str) -> dict:
    """One of dolma's taggers."""
    import dolma.taggers  # noqa: F401  registers them
    from dolma.core.data_types import Document
    from dolma.core.registry import TaggerRegistry

    tagger = TaggerRegistry.get(name)()

    def work(texts) -> dict:
        return {"documents": len(texts), "spans": sum(len(tagger.predict(Document("b", "", t)).spans) for t in texts)}

    texts = texts_of(path, limit).to_list()
    work(texts[:20])
    return timed(work, texts)


# ---- private data --------------------------------------------------------------------------------------------------


def own_privacy(path: str, limit: str, kinds: str) -> dict:
    """find_private for some kinds (comma between them) or `all`."""
    from headwater_data.clean.privacy import find_private
    from headwater_data.config.clean import PRIVATE, Steps

    wanted = PRIVATE if kinds == "all" else kinds.split(",")
    steps = Steps(**{kind: kind in wanted for kind in PRIVATE})

    def work(texts) -> dict:
        return {"documents": len(texts), "spans": sum(len(find_private(t, steps, "US")) for t in texts)}

    texts = texts_of(path, limit).to_list()
    work(texts[:20])
    return timed(work, texts)


# ---- MinHash signatures over word 5-grams ------------------------------------------------------------------------


def own_minhash(path: str, limit: str, permutations: str) -> dict:
    """Words, shingles, signatures, band keys."""
    from headwater_data.dedup.minhash import band_keys, shingles, signatures
    from headwater_data.words import word_stream

    def work(texts) -> dict:
        hashes, starts = shingles(word_stream(texts), 5)
        keys = band_keys(signatures(hashes, starts, int(permutations), 1), int(permutations) // 8, 8)
        return {"documents": len(keys)}

    texts = texts_of(path, limit)
    work(texts[:20])
    return timed(work, texts)


def own_minhash_stage(path: str, limit: str) -> dict:
    """The dedup stage's first pass, 14 bands of 8: from a block of Parquet to a block of signatures on disk."""
    import polars as pl

    from headwater_data.config import DedupConfig
    from headwater_data.dedup.sign import NumberedBlock, sign_block
    from headwater_data.documents import blocks, write_part

    with tempfile.TemporaryDirectory() as folder:
        documents = pl.read_parquet(path, n_rows=int(limit) or None)
        write_part(Path(folder) / "in" / "part-00000.parquet", documents)
        write_part(Path(folder) / "few" / "part-00000.parquet", documents[:20])

        def work(where: str) -> dict:
            for block in blocks(Path(folder) / where):
                numbered = NumberedBlock(block, block.number, 0, block.rows(), False)
                sign_block(Path(folder) / "out" / where, DedupConfig(), numbered)
            return {"documents": len(documents)}

        work("few")
        return timed(work, "in")


def datatrove_minhash_stage(path: str, limit: str) -> dict:
    """datatrove's signature stage, 14 x 8, its defaults."""
    from datatrove.data import Document
    from datatrove.pipeline.dedup.minhash import MinhashDedupSignature

    def work(texts) -> dict:
        with tempfile.TemporaryDirectory() as folder:
            stage = MinhashDedupSignature(folder)
            stage.run((Document(text=t, id=str(i)) for i, t in enumerate(texts)), 0, 1)
        return {"documents": len(texts)}

    texts = texts_of(path, limit).to_list()
    work(texts[:20])
    return timed(work, texts)


def shingled(text: str) -> list[str]:
    import re

    words = re.findall(r"\w+", text.lower())
    return [" ".join(words[i : i + 5]) for i in range(len(words) - 4)]


def rensa_minhash(path: str, limit: str, permutations: str) -> dict:
    from rensa import RMinHash

    def work(texts) -> dict:
        for text in texts:
            signature = RMinHash(num_perm=int(permutations), seed=1)
            signature.update(shingled(text))
            signature.digest()
        return {"documents": len(texts)}

    texts = texts_of(path, limit).to_list()
    work(texts[:20])
    return timed(work, texts)


def datasketch_minhash(path: str, limit: str, permutations: str) -> dict:
    from datasketch import MinHash

    def work(texts) -> dict:
        for text in texts:
            signature = MinHash(num_perm=int(permutations), seed=1)
            signature.update_batch([s.encode() for s in shingled(text)])
        return {"documents": len(texts)}

    texts = texts_of(path, limit).to_list()
    work(texts[:20])
    return timed(work, texts)


# ---- web archives ------------------------------------------------------------------------------------------------


def own_warc(path: str) -> dict:
    """WARC to filtered Parquet: extraction, signals (no language weights), rules."""
    import polars as pl

    from headwater_data.config import ExtractConfig, SignalsConfig, published_rules
    from headwater_data.documents import blocks, write_part
    from headwater_data.ingest.extract import Shard, extract_shard
    from headwater_data.ingest.readers import Slice
    from headwater_data.quality.heuristics import SIGNALS
    from headwater_data.quality.rules import verdicts
    from headwater_data.quality.signals import measure_block

    rules = {n: r for n, r in published_rules().items() if r.signal in SIGNALS}
    folder = Path(path).parent
    source = json.loads((folder / "source.json").read_text())

    def work(stop: int) -> dict:
        with tempfile.TemporaryDirectory() as out:
            pages, measured, kept = Path(out) / "pages", Path(out) / "measured", 0
            extract_shard(pages, Shard(0, Slice(folder, source, 0, stop, ExtractConfig(workers=1))))
            for block in blocks(pages):
                measure_block(measured, None, None, None, SignalsConfig(workers=1), block)
            for block in blocks(measured):
                documents = block.read()
                keep = documents.filter(verdicts(documents, rules)[0]["rule"].is_null())
                write_part(Path(out) / "kept" / f"part-{block.number:05d}.parquet", keep.select(pl.all()))
                kept += len(keep)
        return {"documents": stop, "kept": kept}

    work(20)
    return timed(work, source["records"])


def datatrove_warc(path: str) -> dict:
    """The same with datatrove: its WARC reader, Trafilatura step, the four filters, Parquet writer."""
    import polars as pl
    from datatrove.executor import LocalPipelineExecutor
    from datatrove.pipeline.extractors import Trafilatura
    from datatrove.pipeline.filters import (
        C4QualityFilter,
        FineWebQualityFilter,
        GopherQualityFilter,
        GopherRepetitionFilter,
    )
    from datatrove.pipeline.readers import WarcReader
    from datatrove.pipeline.writers import ParquetWriter

    def work(limit: int) -> dict:
        with tempfile.TemporaryDirectory() as out:
            steps = [
                WarcReader(str(Path(path).parent), glob_pattern=Path(path).name, limit=limit),
                Trafilatura(favour_precision=True), GopherRepetitionFilter(), GopherQualityFilter(),
                C4QualityFilter(filter_no_terminal_punct=False), FineWebQualityFilter(), ParquetWriter(f"{out}/kept"),
            ]  # fmt: skip
            LocalPipelineExecutor(steps, tasks=1, logging_dir=f"{out}/logs").run()
            return {"kept": sum(len(pl.read_parquet(p)) for p in Path(out).glob("kept/*.parquet"))}

    work(5)
    documents = json.loads((Path(path).parent / "source.json").read_text())["records"]
    return {**timed(work, -1), "documents": documents}


def fastwarc_iterate(path: str) -> dict:
    from fastwarc.warc import ArchiveIterator, WarcRecordType

    def work() -> dict:
        with open(path, "rb") as f:
            size = [len(r.reader.read()) for r in ArchiveIterator(f, record_types=WarcRecordType.response)]
        return {"documents": len(size), "bytes": sum(size)}

    return timed(work)


def warcio_iterate(path: str) -> dict:
    from warcio.archiveiterator import ArchiveIterator

    def work() -> dict:
        with open(path, "rb") as f:
            size = [len(r.content_stream().read()) for r in ArchiveIterator(f) if r.rec_type == "response"]
        return {"documents": len(size), "bytes": sum(size)}

    return timed(work)


# ---- language, floors --------------------------------------------------------------------------------------------


def own_language(path: str, limit: str, weights: str, characters: str) -> dict:
    from headwater_data.quality.language import LanguageIdentifier

    identify = LanguageIdentifier(Path(weights))

    def work(texts) -> dict:
        labels = [identify(text, int(characters))[0] for text in texts]
        return {"documents": len(texts), "english": labels.count("en")}

    texts = texts_of(path, limit).to_list()
    work(texts[:20])
    return timed(work, texts)


def floor_split(path: str, limit: str) -> dict:
    texts = texts_of(path, limit).to_list()
    return timed(lambda: {"documents": len(texts), "words": sum(len(t.split()) for t in texts)})


def floor_regex(path: str, limit: str) -> dict:
    import re

    texts = texts_of(path, limit).to_list()
    find = functools.partial(re.findall, r"\w+")
    return timed(lambda: {"documents": len(texts), "words": sum(len(find(t)) for t in texts)})


if __name__ == "__main__":
    print(json.dumps(globals()[sys.argv[1]](*sys.argv[2:])))
