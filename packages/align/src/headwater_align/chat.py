"""Command `chat`: a conversation in the terminal, streamed as it is written."""

from __future__ import annotations

import sys
from argparse import Namespace
from collections.abc import Iterable, Iterator
from pathlib import Path

from ._contracts.config import read_yaml
from ._contracts.errors import UsageError
from .chat_format import ChatFormat
from .conversation import Message
from .engine import generation, guidance, pretrained, reranking, runtime


def run(args: Namespace) -> None:
    """Read lines from standard input, answer each, until /quit or the end of input. /reset forgets the history."""
    if (args.max_tokens is not None and args.max_tokens < 1) or args.temperature < 0 or not 0 < args.top_p <= 1:
        raise UsageError("--max-tokens must be 1 or more, --temperature 0 or more, --top-p above 0 and at most 1")
    judge = reranking.of_arguments(args)
    system = named_prompt(args.system, args.prompts)
    runtime.initialize(seed=args.seed)
    loaded = pretrained.load(args.model)
    chat = ChatFormat(loaded.tokenizer)
    guides = guidance.of_arguments(args, loaded)
    longest = args.max_tokens or min(256, loaded.config.context // 2)
    room = loaded.config.context - longest
    if room < 2:
        raise UsageError(f"--max-tokens {longest} leaves no room for a question in {loaded.config.context}")
    history: list[Message] = []
    for turn, line in enumerate(_lines()):
        if line == "/quit":
            break
        if line == "/reset":
            history = []
            continue
        prompt = fit(chat, system, [*history, {"role": "user", "content": line}], room)
        if prompt is None:
            print(f"(too long: with its answer a message has {loaded.config.context} tokens)", file=sys.stderr)
            continue
        how = {"temperature": args.temperature, "top_p": args.top_p, "stop_ids": chat.stops, "guides": guides}
        pieces: Iterable[str]
        if judge is None:
            ids = generation.stream(loaded.model, prompt, longest, seed=args.seed + turn, **how)
            pieces = generation.decode(loaded.tokenizer, ids)
        else:
            pieces = [reranking.best(loaded, prompt, judge, args.rerank, longest, args.seed + turn, **how)]
        answer = ""
        for piece in pieces:
            print(piece, end="", flush=True)
            answer += piece
        print(flush=True)
        history += [{"role": "user", "content": line}, {"role": "assistant", "content": answer}]


def named_prompt(system: str, prompts: Path | None) -> str:
    """The system message: what was given, or of a file of named ones that with this name.

    Raises:
        UsageError: no such file, or no such text in it.
    """
    if prompts is None:
        return system
    if not prompts.is_file():
        raise UsageError(f"--prompts {prompts}: no such file; name a YAML file, NAME: TEXT")
    found = read_yaml(prompts)
    if not isinstance(found.get(system), str):
        names = ", ".join(map(str, found))
        raise UsageError(f"--system {system}: no text of that name in {prompts}; there are {names}")
    return found[system]


def _lines() -> Iterator[str]:
    """What the user types, or what a pipe brings: lines that are not empty."""
    while True:
        try:
            line = input("you> ") if sys.stdin.isatty() else sys.stdin.readline()
        except EOFError:
            return
        if not sys.stdin.isatty() and not line:
            return
        if line.strip():
            yield line.strip()


def fit(chat: ChatFormat, system: str, messages: list[Message], room: int) -> list[int] | None:
    """The prompt's ids: the system message and as many of the last turns as `room` tokens hold; None: not even one.

    Args:
        messages: user and assistant in turn, the user's question last.
    """
    first = [{"role": "system", "content": system}] if system else []
    for start in range(0, len(messages), 2):
        (ids,) = chat.prompts([first + messages[start:]])
        if len(ids) <= room:
            return ids
    return None
