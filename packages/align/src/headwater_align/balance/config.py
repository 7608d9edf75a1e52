"""Parameters of the stage `balance`."""

from __future__ import annotations

from pathlib import Path
from string import Formatter
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from .._contracts.config import Config, read_yaml
from .._contracts.counterfactual import TermSet, gender, read
from .._contracts.errors import UserError

BUILT_IN = Path(__file__).with_name("templates.yaml")


class Template(Config):
    """A question and an answer with gaps: {a_slot}, {slot} and the words of a group."""

    prompt: str = Field(description="what the user says")
    answer: str = Field(description="what the assistant says; at least one word of the group in prompt or answer")

    @property
    def gaps(self) -> set[str]:
        """Names of the gaps of both; ValueError where a brace is left open."""
        texts = (self.prompt, self.answer)
        return {gap for text in texts for _, gap, _, _ in Formatter().parse(text) if gap is not None}


class TemplateFile(Config):
    """Templates, what their slot may hold, and the words of each group."""

    groups: dict[str, dict[str, str]] = Field(min_length=2, description="group -> gap -> word")
    slot: str = Field("occupation", description="name of the gap that values fill")
    values: dict[str, str | None] = Field(
        description="value -> the group that it is commonly taken for, null: none; counter leaves that group out"
    )
    templates: tuple[Template, ...] = Field(min_length=1, description="question and answer with gaps")

    @model_validator(mode="after")
    def _whole(self) -> TemplateFile:
        gaps = [set(words) for words in self.groups.values()]
        if any(words != gaps[0] for words in gaps):
            raise ValueError("every group needs a word for the same gaps")
        strange = {group for group in self.values.values() if group is not None} - set(self.groups)
        if strange:
            raise ValueError(f"{min(strange)} is none of the groups {', '.join(self.groups)}")
        if not self.values:
            raise ValueError("no values; name what may fill the slot")
        known = {self.slot, f"a_{self.slot}", *gaps[0]} | {f"{gap.capitalize()}" for gap in gaps[0]}
        for template in self.templates:
            used = template.gaps
            if used - known:
                raise ValueError(f"unknown gap {min(used - known)}; known are {', '.join(sorted(known))}")
            if not {gap.lower() for gap in used} & gaps[0]:
                raise ValueError(f"no word of a group in the template {template.prompt!r}")
        return self


class TemplatesConfig(Config):
    """Rows made from templates."""

    rows: int | None = Field(None, ge=0, description="rows at most, in whole sets of groups; 0: none; null: all")
    direction: Literal["balanced", "counter"] = Field(
        "balanced", description="balanced: each question with every group; counter: not with the one it is taken for"
    )
    content: TemplateFile = Field(
        default_factory=lambda: _built_in(), description="filled in from `file`, the path of a YAML file"
    )

    @model_validator(mode="before")
    @classmethod
    def _from_file(cls, values: Any) -> Any:
        if not isinstance(values, dict) or "file" not in values:
            return values
        others = {key: value for key, value in values.items() if key != "file"}
        return {**others, "content": _read(values["file"], read_yaml)}


class BalanceConfig(Config):
    """Counterfactual and templated demonstrations. Swaps: Lu et al. 2018, arXiv:1807.11714."""

    method: Literal["augment", "substitute", "none"] = Field(
        "augment",
        description="augment: each conversation with terms and all its counterfactuals; substitute: one of them, or "
        "itself, drawn by hash (Hall Maudslay et al. 2019, arXiv:1909.00871); none: conversations stay as they are",
    )
    term_sets: dict[str, TermSet] = Field(
        default_factory=lambda: {"gender": gender()},
        description="name -> groups and terms, or the path of a YAML file of such",
    )
    names: bool = Field(True, description="swap first names too, in fixed pairs (Hall Maudslay et al.)")
    named: Literal["keep", "swap"] = Field(
        "keep",
        description="conversations with a name of two capitalised words (Marie Curie): kept as they are, since the "
        "gender of a real person is a fact, and counted; or swapped like others",
    )
    templates: TemplatesConfig = Field(default_factory=TemplatesConfig, description="rows made from templates")
    keep: Literal["all", "made"] = Field(
        "all", description="all: the conversations and what was made of them; made: only what was made, to mix in"
    )
    control: bool = Field(
        False,
        description="to compare with: as many rows, but each that was made is again the conversation it was made from, "
        "and a template one drawn by hash",
    )

    @field_validator("term_sets", mode="before")
    @classmethod
    def _from_path(cls, value: Any) -> Any:
        return _read(value, read) if isinstance(value, str) else value

    @field_validator("term_sets")
    @classmethod
    def _some(cls, sets: dict[str, TermSet]) -> dict[str, TermSet]:
        if not sets:
            raise ValueError("no term set; name one, or set method=none")
        return sets


def _built_in() -> TemplateFile:
    return TemplateFile.model_validate(read_yaml(BUILT_IN))


def _read(path: Any, reader: Any) -> Any:
    if not Path(path).is_file():
        raise ValueError(f"{path}: no such file; name a YAML file")
    try:
        return reader(Path(path))
    except UserError as e:
        raise ValueError(str(e)) from None
