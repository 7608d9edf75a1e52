"""Stage `compare`: tokenizers side by side on a corpus's held-out text, one after the other.

What does not depend on a tokenizer (the sample, parallel documents, words with morphemes) is read once. Each
tokenizer's figures are kept in the work folder when they are complete: a kill costs one of them at most.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from headwater_tokenizer import __version__, adopt
from headwater_tokenizer._contracts import manifest
from headwater_tokenizer._contracts.config import resolved
from headwater_tokenizer._contracts.errors import UserError
from headwater_tokenizer._contracts.manifest import canonical_json, write_atomic
from headwater_tokenizer._contracts.stage import Run
from headwater_tokenizer.compare.audit import audit
from headwater_tokenizer.compare.config import CompareConfig, JudgeConfig, ModelConfig
from headwater_tokenizer.compare.judge import judge
from headwater_tokenizer.compare.measures import Tally, summed, tally
from headwater_tokenizer.compare.morphemes import Words, agreement, read_words
from headwater_tokenizer.compare.parity import Parallel, premiums, read_parallel
from headwater_tokenizer.compare.probes import digits, indentation, white_space_share
from headwater_tokenizer.compare.shown import choose
from headwater_tokenizer.compare.spelling import WORDS, probe
from headwater_tokenizer.compare.subject import Subject
from headwater_tokenizer.compare.tables import as_csv, language_rows, rows, table
from headwater_tokenizer.corpus import read_split, shards
from headwater_tokenizer.encoder import Encoder
from headwater_tokenizer.sampling import Drawing, draw

INPUTS = ("corpus", "sources", "documents")
HEADLINES = ("bytes_per_token", "tokens_per_word", "renyi_efficiency")


@dataclass(frozen=True)
class Material:
    """What every tokenizer is measured on, beside the held-out text."""

    sample: Path
    """Parquet with a column text."""
    code: list[str] | None
    parallel: Parallel | None
    words: dict[str, Words] | None


def compare(run: Run) -> None:
    """Stage `compare`: corpus, tokenizers, maybe sources and documents -> comparison.json and .csv, languages.csv,
    page.html, metrics.json; speeds into `run.measured`.

    Raises:
        UserError: nothing to compare, or the config names what the inputs do not hold.
    """
    config: CompareConfig = run.config
    folders, stages = _tokenizers(run)
    material, sample = _material(run)
    tokenizers: dict[str, dict] = {}
    speeds: dict[str, dict] = {}
    for number, name in enumerate(sorted(folders), start=1):
        kept = run.work / f"figures-{number}.json"
        if not kept.exists():
            subject = Subject(name, folders[name])
            first = next((batch.texts for batch in read_split(run.inputs["corpus"], "heldout")), pa.array([]))
            subject.encoder.compare_engines(first.to_pylist())
            run.log(f"{name}: {subject.encoder.vocab_size} ids, engine {subject.encoder.engine}")
            figures = _figures(subject, stages[name], run.inputs["corpus"], material, config)
            write_atomic(kept, canonical_json({"figures": figures, "speeds": _speeds(subject, run)}))
        found = json.loads(kept.read_text())
        tokenizers[name], speeds[name] = found["figures"], found["speeds"]
    if config.judge:
        for name in judged(tokenizers, config.judge):
            tokenizers[name]["judge"] = judge(run, name, folders[name], config.judge)
    run.measured["speeds"] = speeds
    texts = choose(run.inputs["corpus"], config.page_documents, config.page_characters, config.seed)
    text = next(iter(tokenizers.values()))["heldout"]
    comparison = {
        "heldout": {key: text[key] for key in ("documents", "bytes", "words")},
        "sample": sample,
        "tokenizers": tokenizers,
        "texts": [text["id"] for text in texts],
    }
    write(run.out, comparison, texts, {name: Encoder(folders[name]) for name in sorted(folders)})
    for line in table(tokenizers, speeds):
        run.log(line)


def judged(tokenizers: dict[str, dict], config: JudgeConfig) -> list[str]:
    """Names of the tokenizers that models are trained with."""
    own = (name for name, t in tokenizers.items() if t["stage"] == "train" and t["lossless"])
    return list(config.tokenizers or own)


def write(out: Path, comparison: dict, texts: list[dict], encoders: dict) -> None:
    """Write the artefact's files.

    Args:
        texts: documents shown on the page, as `page.render` takes them.
        encoders: name -> Encoder, to colour them with.
    """
    from headwater_tokenizer.compare.page import render  # jinja2 is not needed for the figures

    tokenizers = comparison["tokenizers"]
    write_atomic(out / "comparison.json", canonical_json(comparison))
    write_atomic(out / "comparison.csv", as_csv(rows(tokenizers)))
    write_atomic(out / "languages.csv", as_csv(language_rows(tokenizers)))
    write_atomic(out / "page.html", render(comparison, texts, encoders))
    headlines = {
        name: {key: figures["heldout"][key] for key in HEADLINES}
        | ({"bits_per_byte": figures["judge"]["bits_per_byte"]} if figures["judge"] else {})
        for name, figures in tokenizers.items()
    }
    write_atomic(out / "metrics.json", canonical_json(headlines))


def _tokenizers(run: Run) -> tuple[dict[str, Path], dict[str, str]]:
    """Folder and stage of each tokenizer by name: the inputs, and the references, which are adopted here.

    Raises:
        UserError: there is none, a reference has the name of an input, there are no sources to adopt from, or a model
            is to judge a tokenizer that is not here.
    """
    folders = {name: path for name, path in run.inputs.items() if name not in INPUTS}
    stages = {name: run.manifests[name].stage for name in folders}
    for number, (name, config) in enumerate(sorted(run.config.references.items()), start=1):
        if name in (*INPUTS, *folders):
            raise UserError(f"references: {name} is the name of an input already; choose another one")
        if "sources" not in run.inputs:
            raise UserError(f"references: {name} is adopted from sources; give --in sources=DIR")
        folders[name], stages[name] = run.work / f"reference-{number}", "adopt"
        folders[name].mkdir(exist_ok=True)
        adopt.write(run.inputs["sources"], config, folders[name])
        made_of = {"sources": manifest.manifest_hash(run.inputs["sources"])}
        described = ("tokenizer", manifest.SCHEMAS["tokenizer"], "headwater-tokenizer", __version__, "adopt")
        manifest.write(folders[name], manifest.Manifest(*described, resolved(config), made_of))
    if not folders:
        raise UserError("no tokenizer to compare: give --in NAME=DIR for each, or name references in the config")
    if unmet := sorted(set(run.config.judge.tokenizers) - set(folders)) if run.config.judge else []:
        raise UserError(f"judge.tokenizers: there is no {unmet[0]} here, but {', '.join(sorted(folders))}")
    return folders, stages


def _material(run: Run) -> tuple[Material, dict]:
    """Read what does not depend on a tokenizer; with the sample's size."""
    config, inputs = run.config, run.inputs
    parallel = words = None
    if config.parity and "documents" in inputs:
        parallel = read_parallel(inputs["documents"], config.parity)
        run.log(f"{config.parity.source}: parallel documents in {len(parallel)} languages")
    if config.morphemes and "sources" in inputs:
        words = {
            language: read_words(inputs["sources"], source, config.morpheme_words, config.seed)
            for language, source in sorted(config.morphemes.items())
        }
        run.log(f"words with morphemes: {', '.join(f'{len(words[language])} {language}' for language in words)}")
    sample = {"documents": 0, "bytes": 0}
    path = run.work / "sample.parquet"
    with pq.ParquetWriter(path, pa.schema([("text", pa.large_string())]), compression="zstd") as file:
        for batch in draw(inputs["corpus"], config.sample_bytes, Drawing(config.seed)):
            sample["documents"] += len(batch.ids)
            sample["bytes"] += int(pc.sum(pc.binary_length(batch.texts)).as_py() or 0)
            file.write_table(pa.table({"text": batch.texts}))
    run.log(f"sample: {sample['documents']} documents, {sample['bytes'] / 1e6:.1f} MB")
    return Material(path, code_sources(inputs["corpus"], config.code_sources), parallel, words), sample


def code_sources(corpus: Path, named: tuple[str, ...] | None) -> list[str] | None:
    """Sources of the held-out text that are code: the named ones, or those of category misc; None for none.

    Raises:
        UserError: a named one is not there.
    """
    files = shards(corpus, "heldout")
    columns = [name for name in ("source", "category") if name in pq.read_schema(files[0]).names]
    known = pl.scan_parquet(files).select(columns).unique().collect()
    if named is None:
        found = known.filter(pl.col("category") == "misc")["source"] if "category" in columns else []
        return sorted(found) or None
    if unmet := sorted(set(named) - set(known["source"])):
        raise UserError(f"{corpus}: no held-out document of source {unmet[0]}, which code_sources names; it has "
                        f"{', '.join(sorted(set(known['source'])))}")  # fmt: skip
    return sorted(named)


def _figures(subject: Subject, stage: str, corpus: Path, material: Material, config: CompareConfig) -> dict:
    """One tokenizer's part of comparison.json.

    Raises:
        UserError: there is no held-out text.
    """
    totals, lost = tally(subject, read_split(corpus, "heldout"))
    size = subject.encoder.vocab_size
    by_source, by_language = summed(totals, 0, size), summed(totals, 1, size)
    whole = Tally(size)
    for counts in totals.values():
        whole.add(counts)
    if not whole.occurrences.any():
        raise UserError(f"{corpus / 'heldout'}: no text that {subject.name} has tokens for; make the corpus again")
    heldout = whole.figures(subject)
    facts = subject.folder / "metrics.json"
    base = config.parity.base if config.parity else ""
    return {
        "algorithm": json.loads(facts.read_text()).get("algorithm", "adopted") if facts.exists() else "adopted",
        "stage": stage,
        "vocabulary": size,
        "learned": len(subject.learned),
        "lossless": lost == 0,
        "heldout": heldout,
        "by_source": {name: counts.figures(subject) for name, counts in by_source.items()},
        "by_language": {name: counts.figures(subject) for name, counts in by_language.items()},
        "parity": premiums(subject, material.parallel, base) if material.parallel else None,
        "digits": digits(subject),
        "code": _code(subject, by_source, material.code) if material.code else None,
        "morphemes": {language: agreement(subject, words) for language, words in material.words.items()}
        if material.words
        else None,
        "embedding": embedding(size, heldout["bytes_per_token"], config.model) if config.model else None,
        "audit": audit(subject, _occurrences(subject, material.sample), config.under_trained_below),
        "spelling": probe(subject.encoder, WORDS),
        "judge": None,
    }


def _code(subject: Subject, by_source: dict[str, Tally], sources: list[str]) -> dict:
    whole = Tally(subject.encoder.vocab_size)
    for source in by_source.keys() & set(sources):
        whole.add(by_source[source])
    return {
        "bytes_per_token": whole.figures(subject)["bytes_per_token"],
        "white_space_share": white_space_share(subject, whole.occurrences),
        "indentation": indentation(subject),
    }


def embedding(vocabulary: int, bytes_per_token: float, model: ModelConfig) -> dict:
    """What the vocabulary costs the planned model.

    Returns:
        parameters: of the embedding, input and output; share_of_model: theirs of all, the body being 12 layers hidden^2
        (attention 4, feed-forward 8); output_flops_per_byte, body_flops_per_byte: of training, 6 a parameter and token
        (Kaplan et al. 2020, arXiv 2001.08361, section 2.1), over the bytes of text that a token stands for.
    """
    body, matrix = 12 * model.layers * model.hidden**2, vocabulary * model.hidden
    parameters = matrix * (1 if model.tied else 2)
    return {
        "parameters": parameters,
        "share_of_model": parameters / (parameters + body),
        "output_flops_per_byte": 6 * matrix / bytes_per_token,
        "body_flops_per_byte": 6 * body / bytes_per_token,
    }


def _occurrences(subject: Subject, sample: Path) -> np.ndarray:
    found = np.zeros(subject.encoder.vocab_size, np.int64)
    for batch in pq.ParquetFile(sample).iter_batches(512):
        ids, _ = subject.encoder.encode_column(batch.column(0))
        found += np.bincount(ids, minlength=len(found))
    return found


def _speeds(subject: Subject, run: Run) -> dict[str, float]:
    """MB of held-out text a CPU second, all threads counted: the best of three, after a first encoding."""
    columns: list[pa.LargeStringArray] = []
    size = 0
    for batch in read_split(run.inputs["corpus"], "heldout"):
        columns.append(batch.texts)
        size += int(pc.sum(pc.binary_length(batch.texts)).as_py() or 0)
        if size >= run.config.speed_bytes:
            break
    encoder = subject.encoder
    encoded = [encoder.encode_column(texts) for texts in columns]
    documents = [ids for ids, counts in encoded for ids in np.split(ids, np.cumsum(counts)[:-1])]

    def encode() -> None:
        for texts in columns:
            encoder.encode_column(texts)

    def decode() -> None:
        for ids in documents:
            encoder.decode(ids)

    return {"encode": size / 1e6 / _seconds(encode), "decode": size / 1e6 / _seconds(decode)}


def _seconds(work: Callable[[], None]) -> float:
    found = []
    for _ in range(3):
        started = time.process_time()
        work()
        found.append(time.process_time() - started)
    return max(min(found), 1e-9)
