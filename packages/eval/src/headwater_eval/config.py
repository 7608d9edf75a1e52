"""What a user may set, stage by stage."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from ._contracts.config import Config
from .catalogue import BENCHMARKS, SUITES, unknown_task
from .prompting_config import PromptConfig
from .sandbox.run import PROTECTIONS
from .steering_config import SteeringConfig


class ItemsConfig(Config):
    """Which benchmarks the lineage is kept clean of and scored on."""

    tasks: list[str] | None = Field(
        None,
        description="benchmarks, by name (see `headwater-eval tasks --all`); null: every one whose file a source holds",
    )
    suite: str | None = Field(None, description="where tasks is null: only the benchmarks of this suite")
    files: dict[str, str] = Field(
        {}, description="task: how the path of its file of questions ends, where it keeps to no convention"
    )
    shot_files: dict[str, str] = Field({}, description="the same for the rows that solved examples come from")
    shot_rows: int = Field(256, ge=0, description="rows for shots to keep of a task, the first ones of their split")

    @field_validator("tasks")
    @classmethod
    def _known(cls, tasks: list[str] | None) -> list[str] | None:
        return _known_tasks(tasks)

    @field_validator("suite")
    @classmethod
    def _known_suite(cls, suite: str | None) -> str | None:
        if suite is not None and suite not in SUITES:
            raise ValueError(f"unknown suite {suite}; known are {', '.join(SUITES)}")
        return suite

    @field_validator("files", "shot_files")
    @classmethod
    def _known_files(cls, files: dict[str, str]) -> dict[str, str]:
        _known_tasks(list(files) or None)
        return files


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


class CodeConfig(Config):
    """How programs that the model writes are drawn and run."""

    samples: int = Field(1, ge=1, description="programs of an item")
    k: list[int] = Field(
        [1], min_length=1, description="pass@k of these; the first is the headline; none above samples"
    )
    temperature: float | None = Field(
        None, ge=0, description="of sampling; null: 0 (the likeliest program) for one sample, 0.8 for several"
    )
    top_p: float = Field(0.95, gt=0, le=1, description="share of the probability that is drawn from")
    max_new_tokens: int | None = Field(
        None, ge=1, description="tokens of a program at most; null: the task's own number"
    )
    workers: int = Field(2, ge=1, description="programs that run at the same time")
    cpu_seconds: int = Field(
        5, ge=1, description="CPU time of a Python program; a compiled one gets 30, with compiling"
    )
    wall_seconds: int = Field(20, ge=1, description="wall time of the same; more than CPU time, for a busy machine")
    memory_mb: int = Field(512, ge=32, description="memory of the same")
    accept: list[str] = Field(
        [], description="protections of the sandbox that may be missing on this machine: " + ", ".join(PROTECTIONS)
    )

    @field_validator("accept")
    @classmethod
    def _protections(cls, accept: list[str]) -> list[str]:
        unknown = [name for name in accept if name not in PROTECTIONS]
        if unknown:
            raise ValueError(f"unknown protection {unknown[0]}; known are {', '.join(PROTECTIONS)}")
        return accept

    @model_validator(mode="after")
    def _samples(self) -> CodeConfig:
        if any(not 1 <= k <= self.samples for k in self.k) or len(set(self.k)) < len(self.k):
            raise ValueError(f"k lies between 1 and samples ({self.samples}), each named once")
        if self.samples > 1 and self.temperature == 0:
            raise ValueError("at temperature 0 all samples are the same; take one sample, or a temperature above 0")
        return self


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
    shots: int | Literal["usual"] = Field(
        0, description="solved examples before each question; usual: the number that the catalogue gives each task"
    )
    sampler: Literal["fixed", "first_n", "per_item"] = Field(
        "fixed",
        description="shots: one seeded choice for all items, the first ones of their split, or a draw an item",
    )
    bias_limit: int | None = Field(None, ge=1, description="the same for bias tasks, whose items are short pairs")
    seed: int = Field(1234, ge=0, description="chooses items, held-out documents and bootstrap resamples")
    heldout: HeldoutConfig = Field(HeldoutConfig(), description="held-out text")
    samples: SamplesConfig = Field(SamplesConfig(), description="completions to read")
    run_code: bool = Field(
        False, description="run the programs that the model writes for code tasks, in a sandbox; false: leave these out"
    )
    code: CodeConfig = Field(CodeConfig(), description="programs")
    toxicity: SamplingConfig = Field(SamplingConfig(), description="continuations that a classifier of toxicity scores")
    prompt: PromptConfig = Field(PromptConfig(), description="system prompt and form of every question")
    steering: SteeringConfig = Field(SteeringConfig(), description="steering of what the model writes")
    dtype: str = Field("float32", pattern="^(float32|bfloat16)$", description="precision of the forward pass")
    batch_tokens: int = Field(4096, ge=1, description="tokens of one forward pass, padding included")
    threads: int = Field(1, ge=1, description="torch threads; more than one is fast only on idle cores")
    ranks: int = Field(
        1, ge=1, exclude=True, description="processes that share the requests; the result does not depend on it"
    )

    @field_validator("tasks")
    @classmethod
    def _known(cls, tasks: list[str] | None) -> list[str] | None:
        return _known_tasks(tasks)


class RunConfig(EvaluateConfig):
    """What `run` asks of any model; `run.py` fills it from the command line."""

    suite: str | None = Field(None, description="the tasks are those of a suite, as far as there are items of them")
    model: dict[str, Any] = Field(description="what the model is, by content: `models.identify`")
    items: dict[str, str] = Field(description="task -> sha256 of its items")
    toxicity_classifier: str | None = Field(None, description="sha256 of the manifest of the classifier that judges")
    corpus: str | None = Field(None, description="sha256 of the manifest of the corpus whose held-out text is scored")
    plan: dict[str, Any] = Field(exclude=True, description="where all that lies on this machine: `evaluate.Plan`")


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
        raise ValueError(unknown_task(unknown[0]))
    if tasks is not None and (not tasks or len(set(tasks)) < len(tasks)):
        raise ValueError("name at least one task, each once")
    return tasks
