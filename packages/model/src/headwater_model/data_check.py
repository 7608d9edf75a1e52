"""Refuse data that cannot train, before a rank is started and in one line that says what to change."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from . import blend, token_files
from ._contracts import manifest
from ._contracts.errors import UserError
from .facts import read_facts
from .pretrained import end_of_text, read_tokenizer
from .training_config import DataConfig


def check(inputs: Mapping[str, Path], config: DataConfig, tokenizer: Path, vocabulary: int, context: int) -> None:
    """Look at every tokens artefact: counts, tokenizer, index and ids; then at what the weights name.

    Each id is read once, at the speed of the disk.

    Args:
        inputs: name -> tokens artefact.
        tokenizer: tokenizer artefact, or an export with the tokenizer's files.
        vocabulary: ids of the model.
        context: positions a sequence.

    Raises:
        UserError: an empty split, another tokenizer, files that do not fit each other, ids that the model has not, or a
            source that is unknown, weighed twice or too short.
    """
    for folder in map(Path, inputs.values()):
        _refuse_other_tokenizer(folder, tokenizer, vocabulary)
        prefixes = [folder / "train", folder / "heldout"]
        if config.weights is not None:
            prefixes += token_files.source_files(folder, "train").values()
        for prefix in prefixes:
            index = token_files.read_index(prefix)
            if not len(index.lengths):
                raise UserError(f"{prefix}.bin: no document in it; raise the split's share in the corpus mix")
            if prefix.name in ("train", "heldout"):
                token_files.refuse_other_table(folder, prefix.name, index)
            token_files.refuse_ids_beyond(prefix, index, vocabulary)
        _refuse_other_counts(folder)
    blend.parts(blend.datasets(inputs), config.weights, context)


def _refuse_other_counts(folder: Path) -> None:
    """Compare the counts, from which shares and epochs are reckoned, with the files."""
    facts, names = read_facts(folder), sorted(read_facts(folder).sources)
    counted = [("train", facts.train_tokens, _tokens(folder / "train"))]
    if names and token_files.table_path(folder, "train").exists():
        whose = token_files.source_of_documents(folder, "train", names)
        tokens = token_files.column_of_documents(folder, "train", "tokens")
        sums = np.bincount(whose, tokens, len(names)).astype(np.int64)
        counted += [(name, facts.sources[name], int(held)) for name, held in zip(names, sums, strict=True)]
    own = token_files.source_files(folder, "train")
    counted += [(name, facts.sources.get(name, 0), _tokens(prefix)) for name, prefix in own.items()]
    for name, said, held in counted:
        if said != held:
            raise UserError(
                f"{folder}: {said} tokens of {name} by metrics.json, {held} by the files; encode the corpus again"
            )


def _tokens(prefix: Path) -> int:
    return int(token_files.read_index(prefix).lengths.sum(dtype=np.int64))


def _refuse_other_tokenizer(folder: Path, tokenizer: Path, vocabulary: int) -> None:
    facts = read_facts(folder)
    made_with = manifest.read(folder).inputs.get("tokenizer")
    own = manifest.manifest_hash(tokenizer)
    if made_with and made_with != own and manifest.read(tokenizer).kind == "tokenizer":
        raise UserError(
            f"{tokenizer}: not the tokenizer that {folder} was made with (manifest {made_with[:12]}); "
            "name that one, or encode the corpus again"
        )
    loaded = read_tokenizer(tokenizer)
    ids, end = loaded.get_vocab_size(), end_of_text(loaded, tokenizer)
    if not facts.vocabulary <= ids <= vocabulary:
        raise UserError(
            f"{folder}: {facts.vocabulary} ids, but the tokenizer has {ids} and the model {vocabulary}: they were not "
            "made from one another; run encode and plan again"
        )
    if facts.end_of_document not in (None, end):
        raise UserError(
            f"{folder}: documents end in the id {facts.end_of_document}, but {tokenizer} has {end} for <|endoftext|>; "
            "encode the corpus again with it"
        )
