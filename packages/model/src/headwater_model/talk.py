"""The generate command: text on a terminal, as it is made."""

from __future__ import annotations

import argparse
import os

import torch

from . import generation, guidance, pretrained, reranking, runtime
from ._contracts.errors import UsageError


def generate(args: argparse.Namespace) -> None:
    """Write the prompt and what follows it to standard output."""
    if args.temperature < 0 or not 0 < args.top_p <= 1 or args.top_k < 0 or args.max_tokens < 1:
        raise UsageError(
            "--temperature 0 or more, --top-p above 0 and up to 1, --top-k 0 or more, --max-tokens 1 or more"
        )
    judge = reranking.of_arguments(args)
    torch.set_num_threads(os.cpu_count() or 1)
    runtime.initialize(seed=args.seed)
    loaded = pretrained.load(args.model)
    prompt = [loaded.end_of_text, *loaded.tokenizer.encode(args.prompt).ids]
    room = min(args.max_tokens, loaded.config.context - 1)
    guides = guidance.of_arguments(args, loaded)
    how = {"temperature": args.temperature, "top_k": args.top_k, "top_p": args.top_p, "guides": guides}
    how["stop_ids"] = [loaded.end_of_text]
    print(args.prompt, end="", flush=True)
    if judge is not None:
        print(reranking.best(loaded, prompt, judge, args.rerank, room, args.seed, stop=args.stop, **how))
        return
    ids = generation.stream(loaded.model, prompt, room, seed=args.seed, **how)
    for text in generation.decode(loaded.tokenizer, ids, args.stop):
        print(text, end="", flush=True)
    print()
