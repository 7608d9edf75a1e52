"""The tasks and forms that the package carries, and those that a config adds."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path

from .._contracts.config import Config, parse, read_yaml
from .._contracts.errors import UsageError
from .config import Task, TasksConfig

_HERE = Path(__file__).parent


class OptionsForm(Config):
    """How options are listed below a question."""

    head: str
    item: str

    def lines(self, options: Sequence[str]) -> str:
        """The whole list."""
        of = enumerate(options)
        items = [self.item.format(option=o, letter=chr(ord("A") + i), number=i + 1) for i, o in of]
        return "\n".join([self.head, *items])


class ExemplarForm(Config):
    """How solved examples stand before a question."""

    shown: str
    joint: str
    asked: str


class ReasoningForm(Config):
    """How a chain of thought is asked for and given."""

    asked: str
    answer: str


class Forms(Config):
    """What is put around phrasings."""

    options: tuple[OptionsForm, ...]
    exemplars: tuple[ExemplarForm, ...]
    reasoning: tuple[ReasoningForm, ...]


@cache
def forms() -> Forms:
    """forms.yaml."""
    return parse(Forms, read_yaml(_HERE / "forms.yaml"), "forms")


@cache
def builtin() -> Mapping[str, Task]:
    """tasks.yaml."""
    return {name: parse(Task, task, f"tasks.{name}") for name, task in read_yaml(_HERE / "tasks.yaml").items()}


def tasks_of(config: TasksConfig) -> dict[str, Task]:
    """The tasks that take part, by name, in order of name.

    Raises:
        UsageError: a task that nobody declares, or a held-out cluster that no task is in.
    """
    known = {**builtin(), **config.catalogue}
    for name in config.tasks:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1, cutoff=0.0)
            raise UsageError(f"instructions.tasks: no task {name}; did you mean {near[0]}?")
    chosen = {name: known[name] for name in sorted(set(config.tasks))}
    clusters = sorted({task.cluster for task in chosen.values()})
    for cluster in config.heldout_clusters:
        if cluster not in clusters:
            raise UsageError(
                f"instructions.heldout_clusters: no task of cluster {cluster} takes part; there are "
                f"{', '.join(clusters) or 'no tasks at all'}"
            )
    return chosen
