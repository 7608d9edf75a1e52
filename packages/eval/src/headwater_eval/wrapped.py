"""An lm-eval model around another one: what the wrapper does not do itself is the inner model's."""

from __future__ import annotations

from typing import Any

from .engine import LM


class WrappedLM(LM):
    """Hands chat templates, the tokenizer's name and every other attribute on; subclasses answer requests."""

    def __init__(self, lm: LM):
        super().__init__()
        self.lm = lm

    def apply_chat_template(self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True) -> str:
        """The model's own."""
        return self.lm.apply_chat_template(chat_history, add_generation_prompt)

    def chat_template(self, chat_template: bool | str = False) -> str | None:
        """The model's own."""
        return self.lm.chat_template(chat_template)

    @property
    def tokenizer_name(self) -> str:
        """The model's own."""
        return self.lm.tokenizer_name

    def __getattr__(self, name: str) -> Any:
        if name == "lm":  # not there yet
            raise AttributeError(name)
        return getattr(self.lm, name)
