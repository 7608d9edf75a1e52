"""A system prompt before every question, and the chat format around it, for any model of lm-eval.

Log-likelihoods and written text alike; whole documents (held-out text) are the model's own. An item without a question
(CrowS-Pairs: the sentence itself is scored) has no user's turn in the chat format.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

from ._contracts.errors import UserError
from ._contracts.manifest import sha256_file
from .engine import LM, Instance
from .generations import ChatScorer
from .lm import HeadwaterLM
from .prompting_config import PromptConfig
from .wrapped import WrappedLM


def plain(config: PromptConfig) -> dict[str, Any]:
    """The prompt of a `ModelSpec`; {} where nothing stands around a question."""
    return config.model_dump() if config.system or config.format == "chat" else {}


def identify(prompt: dict[str, Any]) -> dict[str, Any]:
    """All of it that answers depend on."""
    return {**prompt, "code": sha256_file(Path(__file__))}


def prompted(lm: LM, prompt: dict[str, Any]) -> LM:
    """A model that is asked so.

    Raises:
        UserError: the chat format for a model whose tokenizer has none.
    """
    if prompt["format"] == "plain":
        return PrefixedLM(lm, prompt["system"])
    if isinstance(lm, HeadwaterLM):
        return ChatLM(lm, prompt["system"])
    return TemplatedLM(lm, prompt["system"])


class _ReworkedLM(WrappedLM):
    """Every request in other words."""

    def loglikelihood(self, requests: list, disable_tqdm: bool = True) -> list[tuple[float, bool]]:
        """Of each continuation after the question as it is put here."""
        return self.lm.loglikelihood(
            [Instance("loglikelihood", {}, self.reworked(*r.args), i) for i, r in enumerate(requests)]
        )

    def loglikelihood_rolling(self, requests: list, disable_tqdm: bool = True) -> list[float]:
        """The model's own."""
        return self.lm.loglikelihood_rolling(requests)

    def generate_until(self, requests: list, disable_tqdm: bool = True) -> list[str]:
        """What is written after the question as it is put here."""
        return self.lm.generate_until(
            [Instance("generate_until", {}, (self.asked(r.args[0]), r.args[1]), i) for i, r in enumerate(requests)]
        )

    def reworked(self, context: str, continuation: str) -> tuple[str, str]:
        """Context and continuation of a log-likelihood."""
        return self.asked(context), continuation

    def asked(self, context: str) -> str:
        """A question as it is put here."""
        raise NotImplementedError


class PrefixedLM(_ReworkedLM):
    """The system prompt as a line of text before the question."""

    def __init__(self, lm: LM, system: str):
        super().__init__(lm)
        self._system = system

    def asked(self, context: str) -> str:
        """`system`, a line break, the question."""
        return f"{self._system}\n{context}"


class TemplatedLM(_ReworkedLM):
    """The model's own chat template around system prompt and question; what follows is the assistant's."""

    def __init__(self, lm: LM, system: str):
        super().__init__(lm)
        self._system = system

    def reworked(self, context: str, continuation: str) -> tuple[str, str]:
        """The assistant's words begin without a blank."""
        return self.asked(context), continuation.lstrip()

    def asked(self, context: str) -> str:
        """The conversation up to the assistant's words.

        Raises:
            UserError: the template is missing, or takes no such conversation.
        """
        roles = (("system", self._system), ("user", context))
        messages = [{"role": role, "content": text} for role, text in roles if text]
        try:
            return self.lm.apply_chat_template(messages, add_generation_prompt=True)
        except Exception as e:
            told = " ".join(str(e).split())[:200] or type(e).__name__
            raise UserError(
                f"the model's chat template takes no such conversation ({told}); use format plain"
            ) from None


class TurnsScorer(ChatScorer, Protocol):
    """A ChatScorer that takes system messages."""

    def encode_chat(self, question: str, system: str = "", room: int | None = None) -> list[int]:
        """Ids of a system message and a user's turn, each left out where empty, and the beginning of the answer; the
        question loses its beginning where more than `room` ids would come."""


class ChatLM(HeadwaterLM):
    """A model of headwater-model asked in the chat format: turns are ids, so text that spells <|end|> ends none.

    What a long question loses is its own beginning, not the system prompt.
    """

    scorer: TurnsScorer

    def __init__(self, lm: HeadwaterLM, system: str):
        super().__init__(lm.scorer, max_gen_toks=lm.max_gen_toks)
        self.seen_again, self._system = lm.seen_again, system

    def loglikelihood(self, requests: list, disable_tqdm: bool = True) -> list[tuple[float, bool]]:
        """Of each continuation as the assistant's answer, without blanks before it."""
        pairs = []
        for request in requests:
            context, continuation = request.args
            answer = self.tok_encode(continuation.lstrip())
            room = self.scorer.context + 1 - len(answer)
            pairs.append((self.scorer.encode_chat(context, self._system, room), answer))
        return self.score(pairs)

    def prompt_ids(self, prompt: str, room: int) -> list[int]:
        """The conversation up to the answer.

        Raises:
            UserError: the system prompt leaves no room for a question.
        """
        ids = self.scorer.encode_chat(prompt, self._system, room)
        if len(ids) > room:
            raise UserError(
                f"the system prompt and an answer leave no room for a question in {self.scorer.context} tokens; "
                "shorten prompt.system, or let the task write less"
            )
        return ids
