"""What is read in which share: weights by source, over one tokens artefact or several, and what that repeats."""

from __future__ import annotations

import difflib
import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from . import token_files
from ._contracts.errors import UserError
from ._contracts.manifest import manifest_hash
from .facts import read_facts


@dataclass(frozen=True)
class Dataset:
    """One tokens artefact among the inputs."""

    name: str
    """Of the input."""
    folder: Path
    mark: str
    """sha256 of its manifest: which bytes they are, wherever they lie."""
    tokens: int
    """For training."""
    sources: dict[str, int]
    """Training tokens of each source; empty where they are not told apart."""

    @property
    def has_table(self) -> bool:
        """Whether it says of each document whose it is."""
        return token_files.table_path(self.folder, "train").exists()


@dataclass(frozen=True)
class Part:
    """What is shuffled, weighed and counted as one: a source, or all of a dataset."""

    name: str
    """As it is called in logs and metrics."""
    dataset: Dataset
    source: str | None
    """None: all of the dataset."""
    share: float
    """Of the tokens; the shares of all parts sum to 1."""
    names: dict[str, str]
    """Its sources, and what each is called in logs and metrics; empty where they are not told apart."""

    @property
    def tokens(self) -> int:
        """At hand."""
        return self.dataset.tokens if self.source is None else self.dataset.sources[self.source]

    def windows(self, context: int) -> int:
        """Windows of `context` + 1 tokens in one epoch, each beginning with the last token of the one before."""
        return (self.tokens - 1) // context


def datasets(inputs: Mapping[str, Path]) -> list[Dataset]:
    """The tokens artefacts, by name, so that nothing depends on the order in which they were given.

    Raises:
        UserError: one has no manifest, no counts, or an empty split.
    """
    found = []
    for name, folder in sorted(inputs.items()):
        facts = read_facts(folder)
        found.append(Dataset(name, Path(folder), manifest_hash(folder), facts.train_tokens, facts.sources))
    return found


def parts(of: list[Dataset], weights: Mapping[str, float] | None, context: int) -> list[Part]:
    """Weights resolved to what is read, in the order of the names.

    Args:
        weights: by SOURCE, INPUT or INPUT/SOURCE, in any unit; None: all datasets, in proportion to their tokens.
        context: positions a sequence.

    Raises:
        UserError: a name is unknown or means two things, a source is weighed twice, its documents cannot be found, or a
            part is shorter than one window.
    """
    if weights is None:
        total = sum(dataset.tokens for dataset in of)
        found = [_part(of, dataset, None, dataset.tokens / total) for dataset in of]
    else:
        total_weight = math.fsum(weights.values())  # in any order the same
        meant = {name: _meant(of, name) for name in weights}
        found = [_part(of, *meant[name], weight / total_weight) for name, weight in weights.items() if weight]
    _refuse_twice(found)
    for part in found:
        _refuse_unreadable(part, context)
    return sorted(found, key=lambda part: part.name)


def source_names(of: list[Part]) -> list[str]:
    """Every source that is read, as it is called in metrics; a part that does not tell them apart is one."""
    return sorted({name for part in of for name in part.names.values() or [part.name]})


def left_out(of: list[Dataset], read: list[Part]) -> list[str]:
    """What is at hand and not read."""
    whole = {part.dataset.name for part in read if part.source is None}
    single = {(part.dataset.name, part.source) for part in read}
    names = []
    for dataset in of:
        if dataset.name in whole:
            continue
        if any(part.dataset.name == dataset.name for part in read):
            names += [_called(of, dataset, s) for s in sorted(dataset.sources) if (dataset.name, s) not in single]
        else:
            names.append(dataset.name)
    return names


def _meant(of: list[Dataset], name: str) -> tuple[Dataset, str | None]:
    found: list[tuple[Dataset, str | None]] = [(dataset, None) for dataset in of if dataset.name == name]
    found += [(dataset, name) for dataset in of if name in dataset.sources]
    found += [(dataset, s) for dataset in of for s in dataset.sources if f"{dataset.name}/{s}" == name]
    if len(found) == 1:
        return found[0]
    if found:
        ways = [dataset.name if source is None else f"{dataset.name}/{source}" for dataset, source in found]
        raise UserError(f"data.weights.{name} means {' and '.join(ways)}; write INPUT/SOURCE, or name the input anew")
    known = sorted({*(dataset.name for dataset in of), *(s for dataset in of for s in dataset.sources)})
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.0)[0]
    raise UserError(f"data.weights.{name}: no such source or input; did you mean {near}? There are {_some(known)}")


def _some(names: list[str], most: int = 20) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def _part(of: list[Dataset], dataset: Dataset, source: str | None, share: float) -> Part:
    whole = dataset.sources if dataset.has_table else ()
    names = {s: _called(of, dataset, s) for s in ([source] if source is not None else sorted(whole))}
    return Part(_called(of, dataset, source), dataset, source, share, names)


def _called(of: list[Dataset], dataset: Dataset, source: str | None) -> str:
    if source is None:
        return dataset.name
    same = {other.name for other in of if source in other.sources or source == other.name}
    return source if same == {dataset.name} else f"{dataset.name}/{source}"


def _refuse_twice(found: list[Part]) -> None:
    counts = Counter((part.dataset.name, part.source) for part in found)
    whole = {part.dataset.name for part in found if part.source is None}
    for part in found:
        if counts[part.dataset.name, part.source] > 1 or (part.source is not None and part.dataset.name in whole):
            raise UserError(
                f"data.weights: {part.source or part.dataset.name} of {part.dataset.name} is weighed twice; "
                f"weigh {part.dataset.name} as a whole or its sources one by one"
            )


def _refuse_unreadable(part: Part, context: int) -> None:
    folder = part.dataset.folder
    lost = part.source is not None and not part.dataset.has_table
    if lost and part.source not in token_files.source_files(folder, "train"):
        raise UserError(
            f"data.weights.{part.source}: {folder} does not say which documents are its (no files of its own, no "
            f"documents/train.parquet); encode the corpus again, or weigh {part.dataset.name} as a whole"
        )
    if part.windows(context) < 1:
        raise UserError(
            f"{folder}: {part.tokens} training tokens of {part.name}, fewer than one context of {context} and the "
            "token after it; leave it out of data.weights or shorten plan.context"
        )
