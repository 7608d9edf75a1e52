"""What a user may set, stage by stage."""

from __future__ import annotations

from pydantic import Field, field_validator

from ._contracts.config import Config
from .catalogue import BENCHMARKS


class ItemsConfig(Config):
    """Which benchmarks the lineage is kept clean of and scored on."""

    tasks: list[str] | None = Field(
        None, description="benchmarks, by name (see `catalogue.py`); null: every one whose file a source holds"
    )

    @field_validator("tasks")
    @classmethod
    def _known(cls, tasks: list[str] | None) -> list[str] | None:
        return _known_tasks(tasks)


class HeldoutConfig(Config):
    """Bits per byte of the corpus' held-out documents."""

    max_bytes: int = Field(
        500_000, ge=0, description="UTF-8 bytes of held-out text to score, whole documents by a seeded choice; 0: none"
    )
    overlap: float = Field(
        0.5, ge=0, lt=1, description="share of the context window that a later window of a long document sees again"
    )
    resamples: int = Field(1000, ge=100, description="bootstrap resamples of documents for the interval")


class SamplesConfig(Config):
    """Greedy completions, for people to read."""

    prompts: int = Field(6, ge=0, description="prompts cut from the beginnings of held-out documents")
    prompt_characters: int = Field(240, ge=16, description="length of such a prompt, cut at white space")
    language: str | None = Field(
        "en", description="ISO code of the documents that prompts are cut from (those without one too); null: any"
    )
    questions: list[str] = Field(
        [
            "What is a file system?",
            "How do I install a package?",
            "Give me three tips for learning a new language.",
            "Who wrote Hamlet?",
        ],
        description="user turns, given in the chat format of the tokenizer",
    )
    max_new_tokens: int = Field(80, ge=1, description="tokens to write at most")


class SamplingConfig(Config):
    """What a model writes for tests of toxicity: nucleus sampling as in Gehman et al. 2020 (arXiv:2009.11462, 3.1)."""

    samples: int = Field(25, ge=1, description="continuations of a prompt")
    max_new_tokens: int = Field(20, ge=1, description="tokens of a continuation at most")
    temperature: float = Field(1.0, gt=0, description="sampling temperature")
    top_p: float = Field(0.9, gt=0, le=1, description="share of the probability that is drawn from")


class EvaluateConfig(Config):
    """What one model is asked, the same for every model of a lineage."""

    tasks: list[str] | None = Field(None, description="tasks of the items artefact; null: all of them")
    limit: int | None = Field(None, ge=1, description="items of a task, by a seeded choice of ids; null: all")
    bias_limit: int | None = Field(None, ge=1, description="the same for bias tasks, whose items are short pairs")
    seed: int = Field(1234, ge=0, description="chooses items, held-out documents and bootstrap resamples")
    heldout: HeldoutConfig = Field(HeldoutConfig(), description="held-out text")
    samples: SamplesConfig = Field(SamplesConfig(), description="completions to read")
    toxicity: SamplingConfig = Field(SamplingConfig(), description="continuations that a classifier of toxicity scores")
    dtype: str = Field("float32", pattern="^(float32|bfloat16)$", description="precision of the forward pass")
    batch_tokens: int = Field(4096, ge=1, description="tokens of one forward pass, padding included")
    threads: int = Field(1, ge=1, description="torch threads; more than one is fast only on idle cores")

    @field_validator("tasks")
    @classmethod
    def _known(cls, tasks: list[str] | None) -> list[str] | None:
        return _known_tasks(tasks)


class LabelledConfig(Config):
    """Texts with a label of harm: files of a source, JSON Lines, CSV or Parquet."""

    files: str = Field(description="how the files' paths end, `*` for any characters, inside any source")
    text: str = Field("text", description="field of the text; `a.b` for b inside a")
    score: str = Field("toxicity", description="field of the label: a share of annotators or 0 and 1")
    label: float | None = Field(None, ge=0, le=1, description="label of every row, in place of a field")
    delimiter: str = Field(",", min_length=1, max_length=1, description="of a CSV file")
    words: int | None = Field(None, ge=1, description="words of a text that are read; null: all")
    limit: int | None = Field(None, ge=1, description="texts at most, by hash; null: all")
    train: bool = Field(True, description="false: the entry is only measured on")


class ToxicityConfig(Config):
    """How the classifier of toxic text is made."""

    labelled: dict[str, LabelledConfig | None] = Field(
        {
            "perspective": LabelledConfig(files="Toxicity/test.jsonl"),
            "reddit": LabelledConfig(files="RedditBias/data/*/*_annotated.csv", text="comment", score="bias_sent"),
            "encyclopaedia": LabelledConfig(files="BoolQ/dev.jsonl", text="passage", label=0.0, words=24),
            "everyday": LabelledConfig(files="SIQA/test.jsonl", text="passage", label=0.0),
            "instructions": LabelledConfig(files="PIQA/validation.jsonl", text="question", label=0.0),
        },
        description="name -> labelled texts; a name of your own adds an entry, null takes one out",
        min_length=1,
    )
    adopt: str | None = Field(
        None,
        description="how the path of a Hugging Face folder (safetensors) or a fastText file ends, inside any source, "
        "to use in place of training one",
    )
    label: str | None = Field(None, description="name of the toxic label of an adopted classifier")
    inverse_penalty: float = Field(4.0, gt=0, description="C of the logistic regression's L2 penalty")
    seed: int = Field(1234, ge=0, description="splits the texts")


class CompressorConfig(Config):
    """The statistical baseline that the language model has to beat."""

    orders: list[int] = Field([8, 16], min_length=1, description="PPMd orders (2 to 64) to try; the best one counts")
    memory_mb: int = Field(2048, ge=1, le=4095, description="PPMd's model memory in MiB; when full, it starts anew")
    xz: bool = Field(True, description="run xz too, the strongest general compressor of the standard library")
    train_bytes: int | None = Field(
        None, ge=1, description="training text to read, in training order, whole documents; null: all of it"
    )
    processes: int = Field(2, ge=1, description="compressors that run at the same time")

    @field_validator("orders")
    @classmethod
    def _orders(cls, orders: list[int]) -> list[int]:
        if any(not 2 <= order <= 64 for order in orders) or len(set(orders)) < len(orders):
            raise ValueError("orders lie between 2 and 64, each named once")
        return orders


def _known_tasks(tasks: list[str] | None) -> list[str] | None:
    unknown = [name for name in tasks or [] if name not in BENCHMARKS]
    if unknown:
        raise ValueError(f"unknown task {unknown[0]}; known are {', '.join(sorted(BENCHMARKS))}")
    if tasks is not None and (not tasks or len(set(tasks)) < len(tasks)):
        raise ValueError("name at least one task, each once")
    return tasks
