"""What benchmarks/eval.py measures, each in a process of its own: see model_work.py, whose turns these take."""

from __future__ import annotations

import json
import os
import pydoc_data.topics
import random
import sys
from pathlib import Path
from typing import Any

os.environ.update(HF_HUB_OFFLINE="1", HF_DATASETS_OFFLINE="1", TQDM_DISABLE="1", TOKENIZERS_PARALLELISM="false")

import torch

sys.path.insert(0, str(Path(__file__).parent))
from model_work import TYPES, Turns, keep_pages

CONTEXT = 512
SPECIAL = ["<|endoftext|>", "<|pad|>", "<|system|>", "<|user|>", "<|assistant|>", "<|end|>"]


def write_model(precision: str, folder: str) -> None:
    """The model that both score with, and the requests: kind -> their arguments."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    from headwater_model import gpt, pretrained, runtime
    from headwater_model.config import ModelConfig

    where = Path(folder)
    texts = _texts()
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer.train_from_iterator(
        texts,
        trainers.BpeTrainer(vocab_size=8192, special_tokens=SPECIAL, initial_alphabet=alphabet, show_progress=False),
    )
    words = where / "tokenizer"
    words.mkdir()
    tokenizer.save(str(words / "tokenizer.json"))
    settings = {"eos_token": SPECIAL[0], "pad_token": SPECIAL[1], "tokenizer_class": "PreTrainedTokenizerFast"}
    (words / "tokenizer_config.json").write_text(json.dumps(settings))
    runtime.initialize(seed=1)
    config = ModelConfig(layers=6, hidden=320, heads=5, ffn=864, vocab=8192, context=CONTEXT, tie_embeddings=True)
    assert round(config.parameters / 1e6, 2) == 10.06
    pretrained.save(where / "model", gpt.build(config, seed=1), config, words)
    (where / "requests.json").write_text(json.dumps(requests(tokenizer, texts)))


def _texts() -> list[str]:
    """Python's documentation and sources."""
    folder = Path(os.__file__).parent
    return [*map(str, pydoc_data.topics.topics.values()), *(p.read_text("utf-8") for p in sorted(folder.glob("*.py")))]


def requests(tokenizer: Any, texts: list[str]) -> dict[str, list]:
    """Kind -> arguments; lengths in tokens vary by a third around those of the benchmarks.

    0-shot like HellaSwag: 70 of context and 23 a choice. 5-shot like ARC: 332 and 8, the examples another draw
    for each question, or the same for all. A token a choice like BoolQ: 199 and 1. Texts like TriviaQA: 100 of
    prompt, written up to a full stop or a line's end, 32 tokens at most.
    """
    draw = random.Random(1)
    prose = " ".join(" ".join(map(str, pydoc_data.topics.topics.values())).split())
    ids = tokenizer.encode(prose, add_special_tokens=False).ids

    def text(length: float, vary: bool = True) -> str:
        count = round(length * draw.uniform(0.67, 1.33)) if vary else round(length)
        start = draw.randrange(len(ids) - 1000)
        return tokenizer.decode(ids[start : start + count])

    examples = text(282, vary=False)
    pairs: dict[str, list] = {
        "0-shot, 4 choices": _choices(32, 4, lambda: text(70), lambda: " " + text(23).strip()),
        "5-shot, 4 choices": _choices(16, 4, lambda: text(332), lambda: " " + text(8).strip()),
        "5-shot, 4 choices, the same examples": _choices(
            16, 4, lambda: examples + text(50), lambda: " " + text(8).strip()
        ),
        "2 choices of a token": _choices(32, 2, lambda: text(199), iter([" True", " False"] * 32).__next__),
    }
    options = {"until": ["\n", ".", ","], "max_gen_toks": 32, "do_sample": False}
    pairs["texts to a full stop"] = [[text(100), options] for _ in range(48)]
    return pairs


def _choices(documents: int, choices: int, context: Any, continuation: Any) -> list:
    made = []
    for _ in range(documents):
        shared = context().strip()
        made += [[shared, continuation()] for _ in range(choices)]
    return made


def _answer(lm: Any, folder: str, kind: str) -> None:
    from lm_eval.api.instance import Instance

    pairs = json.loads((Path(folder) / "requests.json").read_text())
    arguments = next(value for name, value in pairs.items() if name.replace(" ", "_").replace(",", "-") == kind)
    method = "generate_until" if isinstance(arguments[0][1], dict) else "loglikelihood"
    instances = [Instance(method, {}, tuple(pair), i) for i, pair in enumerate(arguments)]
    turns = Turns(warm=1)
    while True:
        made = getattr(lm, method)(instances, disable_tqdm=True)
        turns.step_done(made if method == "generate_until" else [[float(nats), bool(flag)] for nats, flag in made])


def headwater(precision: str, folder: str, kind: str) -> None:
    from headwater_eval import models

    names = {"fp32": "float32", "bf16": "bfloat16"}
    _answer(models.load(models.ModelSpec("native", f"{folder}/model", dtype=names[precision])), folder, kind)


def hflm_of_transformers(precision: str, folder: str, kind: str, batch: str) -> None:
    from lm_eval.models.huggingface import HFLM

    lm = HFLM(pretrained=f"{folder}/model", batch_size=int(batch), dtype=TYPES[precision], device="cpu")
    _answer(lm, folder, kind)


def start_headwater(precision: str) -> None:
    """A task of the catalogue over one item, as `run` makes it."""
    from headwater_eval.catalogue import BENCHMARKS
    from headwater_eval.tasks import benchmark_task

    item = {"id": "a", "task": "piqa", "text": "a b", "query": "a", "choices": ["b", "c"], "label": 0}
    assert len(benchmark_task(BENCHMARKS["piqa"], [item]).eval_docs) == 1


def start_lm_eval(precision: str) -> None:
    """What `lm_eval --tasks piqa` does before it asks anything, but for the data."""
    from lm_eval.tasks import TaskManager

    assert "piqa" in TaskManager().all_tasks


if __name__ == "__main__":
    name, threads, *rest = sys.argv[1:]
    torch.set_num_threads(int(threads))
    if os.environ.get("KEEP_PAGES"):
        keep_pages()
    globals()[name](*rest)
