"""What a user may set of the prompt around a model's questions; how it is put there: `prompting`."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal

from pydantic import Field

from ._contracts.config import Config, read_yaml
from ._contracts.errors import UsageError

BUILT_IN = Path(__file__).with_name("system_prompts.yaml")


class PromptConfig(Config):
    """Words before every question of a task, and the form in which both are put."""

    system: str = Field("", description="a system prompt; empty: none")
    format: Literal["plain", "chat"] = Field(
        "plain",
        description="plain: the system prompt, a line break, the question, as text; chat: system message, the question "
        "as the user's, what is scored or written as the assistant's",
    )


def named(path: Path = BUILT_IN) -> dict[str, str]:
    """System prompts by name, of a YAML file NAME: TEXT; an empty text is no prompt.

    Raises:
        UsageError: no such file, fewer than two, a name that is no folder's, or a text that is none.
    """
    if not path.is_file():
        raise UsageError(f"{path}: no such file; name a YAML file of prompts, NAME: TEXT")
    found = read_yaml(path)
    for name, text in found.items():
        if not isinstance(name, str) or not re.fullmatch(r"[\w-]+", name) or name == "comparison":
            raise UsageError(f"{path}: {name} is no name of a prompt; use letters, digits, - and _ (not comparison)")
        if not isinstance(text, str):
            raise UsageError(f'{path}: {name}: a text is needed; "" for none')
    if len(found) < 2:
        raise UsageError(f"{path}: {len(found)} prompts; name two or more, the first of which the others are held to")
    return found
