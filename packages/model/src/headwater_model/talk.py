"""The generate command: text on a terminal, as it is made."""

from __future__ import annotations

import argparse
import os

import torch

from . import generation, guidance, pretrained, runtime
from ._contracts.errors import UsageError


def generate(args: argparse.Namespace) -> None:
    """Write the prompt and what follows it to standard output."""
    if args.temperature < 0 or not 0 < args.top_p <= 1 or args.top_k < 0 or args.max_tokens < 1:
        raise UsageError(
            "--temperature 0 or more, --top-p above 0 and up to 1, --top-k 0 or more, --max-tokens 1 or more"
        )
    torch.set_num_threads(os.cpu_count() or 1)
    runtime.initialize(seed=args.seed)
    loaded = pretrained.load(args.model)
    prompt = [loaded.end_of_text, *loaded.tokenizer.encode(args.prompt).ids]
    room = loaded.config.context - 1
    ids = generation.stream(
        loaded.model,
        prompt,
        min(args.max_tokens, room),
        args.temperature,
        args.top_k,
        args.top_p,
        [loaded.end_of_text],
        args.seed,
        guidance.of_arguments(args, loaded),
    )
    print(args.prompt, end="", flush=True)
    for text in generation.decode(loaded.tokenizer, ids, args.stop):
        print(text, end="", flush=True)
    print()
