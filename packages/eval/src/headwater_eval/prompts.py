"""`headwater-eval prompts`: one model, the same items, under each of several named system prompts, and compared.

OUT/NAME is the results artefact of a prompt, as `run` makes it; OUT/comparison the report of `compare`, each prompt
against the first one.
"""

from __future__ import annotations

import argparse
import json
import os

from . import __version__, run
from ._contracts.stage import execute
from .compare.config import CompareConfig
from .compare.stage import STAGE as COMPARE
from .prompting_config import named


def main(args: argparse.Namespace) -> None:
    """The command.

    Raises:
        UserError: as `run` and `compare`.
    """
    prompts = named(args.prompts)
    for name, text in prompts.items():
        asked = [*args.set, f"prompt.system={json.dumps(text)}", f"prompt.format={args.format}"]
        run.main(argparse.Namespace(**{**vars(args), "set": asked, "out": args.out / name}))
    if int(os.environ.get("RANK", "0")) > 0:
        return
    title = f"System prompts on the same items ({args.format})"
    config = CompareConfig(title=title, order=list(prompts), pairs="first")
    results = {name: args.out / name for name in prompts}
    execute(COMPARE, "headwater-eval", __version__, config, results, args.out / "comparison", args.work)
