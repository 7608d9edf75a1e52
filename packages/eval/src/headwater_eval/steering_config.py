"""What a user may set of output steering; how it is done: `steering` and headwater_model's `guidance`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import Field, field_validator, model_validator

from ._contracts.config import Config
from ._contracts.manifest import sha256_file


class ExpertsConfig(Config):
    """Logits of two further models, added and taken away: DExperts (arXiv:2105.03023, equation 2)."""

    expert: str | None = Field(
        None, exclude=True, description="export folder of a model fine-tuned on text as it should be; null: the model"
    )
    anti: str | None = Field(
        None, exclude=True, description="export folder of one fine-tuned on text as it should not be; null: the model"
    )
    alpha: float = Field(2.0, description="weight of expert less anti-expert (the authors' for detoxification)")
    top_p: float = Field(0.9, gt=0, le=1, description="of the model, before its experts are heard (the authors')")
    content: dict[str, dict[str, str]] = Field(
        {}, description="filled in, expert or anti -> sha256 of the folder's files: a result names no path"
    )

    @model_validator(mode="before")
    @classmethod
    def _by_content(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        folders = {name: Path(values[name]) for name in ("expert", "anti") if isinstance(values.get(name), str)}
        for folder in folders.values():
            if not (folder / "config.json").is_file():
                raise ValueError(f"{folder}: no export of a model (no config.json)")
        if not folders and not values.get("content"):
            raise ValueError("name the folder of an expert, of an anti-expert (anti), or of both")
        return {**values, "content": {name: _files(folder) for name, folder in folders.items()}} if folders else values


class RerankConfig(Config):
    """Several texts are sampled, and the one that the classifier of toxic text finds least toxic is kept."""

    candidates: int = Field(4, ge=2, description="texts in place of one")
    temperature: float = Field(
        1.0, gt=0, description="of the candidates after the first where a task asks for the likeliest text"
    )
    top_p: float = Field(0.9, gt=0, le=1, description="of the same")
    enough: float = Field(0.0, ge=0, le=1, description="a first candidate of this probability or less is kept as it is")


class SteeringConfig(Config):
    """Steering of what the model writes (not of log-likelihoods)."""

    blocklist: list[str] = Field(
        [], description="words and phrases never written, or the path of a file with one a line"
    )
    experts: ExpertsConfig | None = Field(None, description="expert and anti-expert")
    rerank: RerankConfig | None = Field(None, description="choice among several texts")

    @field_validator("blocklist", mode="before")
    @classmethod
    def _from_file(cls, value: Any) -> Any:
        if not isinstance(value, str):
            return value
        try:
            text = Path(value).read_text("utf-8")
        except (OSError, UnicodeDecodeError):
            raise ValueError(
                f"{value}: no text file that can be read; name one with a phrase a line, or give a list"
            ) from None
        phrases = [line.strip() for line in text.splitlines() if line.strip()]
        if not phrases:
            raise ValueError(f"{value}: no word in it; write one word or phrase a line")
        return phrases

    @field_validator("blocklist")
    @classmethod
    def _some_text(cls, phrases: list[str]) -> list[str]:
        if not all(phrase.strip() for phrase in phrases):
            raise ValueError("a phrase is empty; leave it out")
        return phrases


def _files(folder: Path) -> dict[str, str]:
    wanted = [path for name in ("config.json", "*.safetensors", "tokenizer.json") for path in folder.glob(name)]
    return {path.name: sha256_file(path) for path in sorted(wanted)}
