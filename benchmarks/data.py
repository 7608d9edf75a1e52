"""headwater-data beside its peers: documents a CPU second on one core, same documents, alternating runs.

Input: the English documents and the web pages that scale tiny collects (`make` first, or name a folder of artefacts in
HEADWATER_ARTEFACTS). Peers run in environments of their own (benchmarks/peers.py); each process warms up before its
clock starts. A slow peer takes the first 1,000 of the 10,000 shuffled documents that ours takes: rates are compared.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import polars as pl

from benchmarks.frame import Row, higher_is_better
from benchmarks.peers import ROOT, alternate

MODULE = "data_work"
FILTERS = ("GopherQualityFilter", "GopherRepetitionFilter", "C4QualityFilter", "FineWebQualityFilter")


def artefacts() -> Path:
    """The artefacts of a finished lineage.

    Raises:
        FileNotFoundError: there are none.
    """
    folder = Path(os.environ.get("HEADWATER_ARTEFACTS") or ROOT / "artefacts")
    if not (folder / "extracted" / "manifest.json").exists():
        raise FileNotFoundError(f"{folder}/extracted: run make first, or name a folder with HEADWATER_ARTEFACTS")
    return folder


def english(folder: Path) -> pl.DataFrame:
    """The documents declared English, in an order that mixes the sources."""
    documents = pl.read_parquet(folder / "extracted" / "part-*.parquet").filter(pl.col("lang") == "en")
    return documents.sort("id").sample(fraction=1.0, shuffle=True, seed=1)


def run(quick: bool) -> list[Row]:
    """Every row of the table; quick: few documents, once."""
    folder = artefacts()
    many, few, repetitions = ("300", "50", 1) if quick else ("10000", "1000", 3)
    with tempfile.TemporaryDirectory() as scratch:
        documents = english(folder).head(int(many))
        path = Path(scratch) / "documents.parquet"
        documents.write_parquet(path)
        sizes = documents["text"].str.len_bytes()
        per_document = {n: float(sizes.head(int(n)).mean()) / 1e6 for n in (many, few)}  # type: ignore[arg-type]

        def beside(work, own, peer, target, ours_of=many, theirs_of=few) -> Row:
            a, b = alternate(("own", MODULE, *own), (peer[0], MODULE, *peer[1]), repetitions)
            return _row(work, a, b, peer, target, repetitions, per_document.get(ours_of), per_document.get(theirs_of))

        rows = [
            beside("FineWeb's filter chain: Gopher, C4, FineWeb", ("own_chain", path, many),
                   ("datatrove", ("datatrove_chain", path, few), "datatrove 0.10.1"), 30.0),
            *(beside(f"the same chain, beside {name} alone", ("own_chain", path, many),
                     ("datatrove", ("datatrove_one", path, few, name), "datatrove 0.10.1"), None) for name in FILTERS),
            *(beside(f"the same chain, beside {name} alone", ("own_chain", path, many),
                     ("dolma", ("dolma_tagger", path, few, name), "dolma 1.2.1"), None)
              for name in ("gopher_v1", "c4_v2")),
            beside("private data: e-mail, phone, IP", ("own_privacy", path, many, "email,phone,ip"),
                   ("dolma", ("dolma_tagger", path, few, "pii_regex_with_counts_fast_v2"), "dolma 1.2.1"), None),
            beside("private data: all seven kinds", ("own_privacy", path, many, "all"),
                   ("dolma", ("dolma_tagger", path, few, "pii_regex_with_counts_fast_v2"), "dolma 1.2.1"), None),
            beside("MinHash signature stage, 14 x 8, word 5-grams", ("own_minhash_stage", path, many),
                   ("datatrove", ("datatrove_minhash_stage", path, few), "datatrove 0.10.1"), 25.0),
            beside("MinHash 128 with shingling", ("own_minhash", path, many, "128"),
                   ("datatrove", ("rensa_minhash", path, many, "128"), "rensa 0.5.0"), 1.0, theirs_of=many),
            beside("MinHash 128 with shingling", ("own_minhash", path, many, "128"),
                   ("datatrove", ("datasketch_minhash", path, few, "128"), "datasketch 2.0.0"), None),
            beside("words of a text", ("own_minhash", path, many, "8"),
                   ("own", ("floor_regex", path, many), "re.findall(\\w+)"), None, theirs_of=many),
            beside("FineWeb's filter chain, beside a floor", ("own_chain", path, many),
                   ("own", ("floor_split", path, many), "str.split"), None, theirs_of=many),
        ]  # fmt: skip
        weights = folder / "sources" / "lid" / "lid.176.ftz"
        if weights.exists():
            rows.append(beside("language, first 1,000 characters", ("own_language", path, few, weights, "1000"),
                               ("own", ("own_language", path, few, weights, "10000000"), "lid.176 on the whole text"),
                               None, ours_of=few))  # fmt: skip
        pages = folder / "sources" / "python-docs" / "pages.warc.gz"
        if pages.exists() and not quick:
            once = "once"
            a, b = alternate(("own", MODULE, "own_warc", pages), ("datatrove", MODULE, "datatrove_warc", pages), 1)
            rows.append(_row("WARC to filtered Parquet", a, b, ("", "", "datatrove 0.10.1"), 10.0, once))
            a, b = alternate(
                ("own", MODULE, "fastwarc_iterate", pages), ("datatrove", MODULE, "warcio_iterate", pages), 3
            )
            rows.append(_row("WARC iteration (FastWARC)", a, b, ("", "", "warcio 1.8.1"), None, 3))
    return rows


def _row(work, ours, theirs, peer, target, repetitions, own_size=None, peer_size=None) -> Row:
    rate, peer_rate = ours["documents"] / ours["cpu_s"], theirs["documents"] / theirs["cpu_s"]
    megabytes = ""
    if own_size and peer_size:
        megabytes = f"; {rate * own_size:.1f} against {peer_rate * peer_size:.2f} MB/s"
    name, _, version = peer[2].partition(" ")
    counts = f"{ours['documents']} documents ours, {theirs['documents']} theirs"
    how = f"{counts}, median of {repetitions}, one core{megabytes}"
    return higher_is_better(work, "documents/CPU s", rate, name, version, peer_rate, target, how)
