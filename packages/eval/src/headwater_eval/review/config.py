"""Parameters of the review stages."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import yaml
from pydantic import Field, field_validator, model_validator

from .._contracts.config import Config
from .._contracts.manifest import sha256_file

FINE = "none"
"""The class of an answer that has no failure."""
OUTCOMES = ("right", "wrong", "ungraded")


@cache
def default_classes() -> dict[str, str]:
    """Class -> its definition, in the order in which they are tried."""
    return yaml.safe_load(Path(__file__).with_name("classes.yaml").read_text("utf-8"))


def extended(more: dict[str, str | None]) -> dict[str, str]:
    """The default classes with a project's own after them; null takes one away."""
    return {name: told for name, told in {**default_classes(), **more}.items() if told is not None}


class ReviewExportConfig(Config):
    """Which answers people see, and how many people see each."""

    items: int = Field(
        200, ge=2, description="answers to draw, over all models and tasks; more where two a stratum are more"
    )
    tasks: list[str] | None = Field(
        None, description="tasks to draw from; null: all but choices of which none is right, such as pairs of sentences"
    )
    weights: dict[str, float] = Field(
        {"right": 1.0, "wrong": 3.0, "ungraded": 2.0},
        description="how much likelier an answer of each outcome is drawn; shares are put right again at import",
    )
    by_confidence: bool = Field(
        True, description="draw apart above and below the median log-probability margin of a model and task"
    )
    by_category: bool = Field(False, description="draw apart by the items' category too")
    reviewers: list[str] = Field(["reviewer-1", "reviewer-2"], min_length=1, description="who reviews; any names")
    overlap: float = Field(0.3, ge=0, le=1, description="share of the answers that several reviewers get")
    several: int = Field(2, ge=2, description="reviewers of such an answer, at most all")
    show_gold: bool = Field(True, description="show the expected answer; without it, no one can find a wrong one")
    classes: dict[str, str | None] = Field(
        {}, description="failure classes beside the default ones: name and definition; null takes a default one away"
    )
    seed: int = Field(1234, ge=0, description="draws answers, orders and assignments")

    @field_validator("weights")
    @classmethod
    def _outcomes(cls, weights: dict[str, float]) -> dict[str, float]:
        unknown = [name for name in weights if name not in OUTCOMES]
        if unknown:
            raise ValueError(f"unknown outcome {unknown[0]}; known are {', '.join(OUTCOMES)}")
        if any(weight <= 0 for weight in weights.values()):
            raise ValueError("weights are positive, or the shares could not speak for all answers")
        return {name: 1.0 for name in OUTCOMES} | weights

    @field_validator("reviewers")
    @classmethod
    def _reviewers(cls, reviewers: list[str]) -> list[str]:
        if len(set(reviewers)) < len(reviewers):
            raise ValueError("each reviewer is named once")
        if bad := [name for name in reviewers if not name or name.startswith(".") or "/" in name or "\0" in name]:
            raise ValueError(f"{bad[0]!r} cannot be the name of a folder")
        return reviewers

    @field_validator("classes")
    @classmethod
    def _classes(cls, classes: dict[str, str | None]) -> dict[str, str | None]:
        if classes.get(FINE, "") is None:
            raise ValueError(f"{FINE} stays: an answer without a failure needs it")
        if bad := [name for name in classes if name != name.strip() or not name]:
            raise ValueError(f"{bad[0]!r}: a class has a name, without blanks around it")
        return classes


class ReviewImportConfig(Config):
    """What came back."""

    files: list[str] = Field(
        [], exclude=True, description="Label Studio's JSON exports, and JSON or CSV files of the page and the table"
    )
    contents: dict[str, str] = Field({}, description="set from `files`: name and sha256 of each")
    classes: dict[str, str] = Field(
        {}, description="classes that reviewers made up while at it: name and definition, so that they count"
    )
    examples: int = Field(3, ge=0, description="examples shown of a class and task")
    example_characters: int = Field(400, ge=20, description="characters shown of an example's prompt and answer")
    resamples: int = Field(2000, ge=100, description="bootstrap resamples of items for the interval of alpha")
    seed: int = Field(1234, ge=0, description="of those")

    @model_validator(mode="before")
    @classmethod
    def _read(cls, values: Any) -> Any:
        files = values.get("files") or []
        for name in files:
            if not Path(name).is_file():
                raise ValueError(f"files: {name}: no such file")
        if len({Path(name).name for name in files}) < len(files):
            raise ValueError("files: two files of one name; rename one, so that rejects can tell them apart")
        return {**values, "contents": {Path(name).name: sha256_file(Path(name)) for name in sorted(files)}}
