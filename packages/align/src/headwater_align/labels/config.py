"""Parameters of the stages `sample`, `labels-export` and `labels-import`."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from .._contracts.config import Config
from .._contracts.manifest import sha256_file
from ..conversation import Turns

ENDINGS = (".json", ".csv")


class SampleConfig(Config):
    """Completions for people to rank. InstructGPT (section 3.5) shows labellers 4 to 9 a prompt."""

    side: Literal["train", "heldout", "both"] = Field(
        "both", description="side of the split that prompts come from; held-out ones judge the next reward model"
    )
    turns: Turns = Field("last", description="answers of a conversation to ask for, each by all that comes before it")
    prompts: int = Field(100, ge=1, description="prompts to draw; all, where there are fewer")
    responses: int = Field(4, ge=2, le=26, description="completions a prompt (K), dealt in turn to the policies")
    temperature: float = Field(1.0, gt=0, description="of the sampling; 1: the policy's own distribution, as in PPO")
    top_p: float = Field(1.0, gt=0, le=1, description="nucleus of the sampling; 1: all tokens")
    max_prompt_length: int = Field(
        0, ge=0, description="tokens; longer prompts are left out and counted; 0: what the answer leaves of the context"
    )
    max_response_length: int = Field(128, ge=1, description="tokens an answer; without an end by then it is cut")
    round: str = Field("r1", min_length=1, coerce_numbers_to_str=True, description="name of the round; draws anew")
    policy_name: str = Field("policy", min_length=1, description="what records call the input `policy`")
    prompts_per_batch: int = Field(
        50, ge=1, description="prompts a batch: what a killed run does again, and a portion of work for labellers"
    )
    rows: int = Field(
        32, ge=1, description="completions written side by side; changes memory, not the result's meaning"
    )
    dtype: Literal["float32", "bfloat16"] = Field("float32", description="parameters and activations")
    seed: int = Field(1, ge=0, description="draws prompts, the order of policies and the completions")


class LabelsExportConfig(Config):
    """Who gets which comparisons."""

    labellers: tuple[str, ...] = Field(("labeller-1", "labeller-2"), min_length=1, description="who ranks; any names")
    overlap: float = Field(0.3, ge=0, le=1, description="share of the tasks that several labellers get, for agreement")
    several: int = Field(2, ge=2, description="labellers of such a task, at most all")
    batches: tuple[str, ...] = Field((), description="names of batches to hand out; empty: all")
    seed: int = Field(1, ge=0, description="draws orders, positions and who gets which")

    @field_validator("labellers")
    @classmethod
    def _names(cls, labellers: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(labellers)) < len(labellers):
            raise ValueError("each labeller is named once")
        if bad := [name for name in labellers if not name.strip() or name.startswith(".") or set(name) & set("/\0\n")]:
            raise ValueError(f"{bad[0]!r} cannot be the name of a folder")
        return labellers


class LabelsImportConfig(Config):
    """What came back."""

    files: list[str] = Field(
        [],
        exclude=True,
        description="what labellers saved (JSON of the page, Label Studio or Argilla; CSV), or folders of it",
    )
    contents: dict[str, str] = Field({}, description="set from `files`: name and sha256 of each")
    resamples: int = Field(2000, ge=100, description="bootstrap resamples of tasks for intervals")
    seed: int = Field(1, ge=0, description="of those")

    @model_validator(mode="before")
    @classmethod
    def _read(cls, values: Any) -> Any:
        given = values.get("files") or []
        paths: list[Path] = []
        for path in map(Path, given):
            if path.is_dir():
                found = sorted(p for p in path.iterdir() if p.suffix in ENDINGS and not p.name.startswith("."))
                if not found:
                    raise ValueError(f"files: {path}: no file of {' or '.join(ENDINGS)} in this folder")
                paths += found
            elif path.is_file():
                paths.append(path)
            else:
                raise ValueError(f"files: {path}: no such file")
        if len({path.name for path in paths}) < len(paths):
            raise ValueError("files: two files of one name; rename one, so that rejects can tell them apart")
        contents = {path.name: sha256_file(path) for path in sorted(paths)}
        return {**values, "files": [str(path) for path in paths], "contents": contents}
