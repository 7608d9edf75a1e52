"""Learn a byte-level BPE vocabulary (Sennrich et al. 2016; Radford et al. 2019) on Hugging Face tokenizers."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

from headwater_tokenizer._contracts.errors import UserError
from headwater_tokenizer._contracts.manifest import canonical_json, write_atomic
from headwater_tokenizer._contracts.stage import Run
from headwater_tokenizer.config import TrainConfig
from headwater_tokenizer.corpus import SPLITS, draw, read_split
from headwater_tokenizer.encoder import Encoder, bytes_of_characters
from headwater_tokenizer.measure import measure
from headwater_tokenizer.special import NAMED, reserved_name, transformers_config
from headwater_tokenizer.splits import split_pattern

LONGEST_SHOWN = 20


def train(run: Run) -> None:
    """Stage `train`: corpus -> tokenizer.json, tokenizer_config.json, metrics.json."""
    config: TrainConfig = run.config
    corpus = run.inputs["corpus"]
    tokenizer = learn(_texts(run), config)
    # to_str, not save: a full disk then is an OSError with a number, not tokenizers' bare Exception.
    write_atomic(run.out / "tokenizer.json", tokenizer.to_str(pretty=True))
    write_atomic(run.out / "tokenizer_config.json", canonical_json(transformers_config()))

    run.log(f"learned {config.learned} tokens, {tokenizer.get_vocab_size()} ids in all; measuring")
    encoder = Encoder(run.out)
    sample, occurrences = measure(encoder, draw(corpus, config.sample_bytes, config.seed))
    heldout, _ = measure(encoder, read_split(corpus, "heldout"))
    learned = tokenizer.get_vocab(with_added_tokens=False)
    run.write_metrics(
        {
            "vocabulary": encoder.vocab_size,
            "learned": config.learned,
            "named": len(NAMED),
            "reserved": encoder.vocab_size - config.learned - len(NAMED),
            "unused_in_sample": int((occurrences[: config.learned] == 0).sum()),
            "longest_tokens": _longest(learned),
            "sample": sample,
            SPLITS[1]: heldout,
        }
    )
    run.log(f"held-out: {heldout['bytes_per_token']:.3f} bytes a token, {heldout['tokens_per_word']:.3f} tokens a word")


def learn(texts: Iterable[list[str]], config: TrainConfig) -> Tokenizer:
    """Train on batches of texts and lay out the whole vocabulary.

    The result depends on the multiset of texts only: pair counts are sums, and ties go to the pair of lower ids.

    Raises:
        UserError: the texts do not hold enough pairs for the vocabulary.
    """
    tokenizer = Tokenizer(models.BPE())
    split = pre_tokenizers.Split(Regex(split_pattern(config.split, config.digits)), "isolated")
    as_bytes = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split, as_bytes])
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=config.learned,
        min_frequency=config.min_frequency,
        max_token_length=config.max_token_bytes,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        special_tokens=[],
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    reached = tokenizer.get_vocab_size()
    if reached < config.learned:
        raise UserError(
            f"the sample holds only {reached - 256} pairs to merge at min_frequency {config.min_frequency}, but "
            f"vocab_size {config.vocab_size} asks for {config.learned - 256}: set vocab_size to at most "
            f"{config.vocab_size - config.learned + reached}, lower min_frequency, or give more text"
        )
    padded = -(-config.vocab_size // config.pad_to) * config.pad_to
    names = [*NAMED, *(reserved_name(i) for i in range(padded - config.learned - len(NAMED)))]
    tokenizer.add_special_tokens([AddedToken(name, special=True, normalized=False) for name in names])
    return tokenizer


def _texts(run: Run) -> Iterator[list[str]]:
    documents, size = 0, 0
    for batch in draw(run.inputs["corpus"], run.config.sample_bytes, run.config.seed):
        texts = batch.texts.to_pylist()
        documents, size = documents + len(texts), size + sum(map(len, texts))
        run.progress(f"{documents} documents, {size / 1e6:.1f} million characters read")
        yield texts
    run.log(f"sample: {documents} documents, {size / 1e6:.1f} million characters; merging pairs")


def _longest(vocabulary: dict[str, int]) -> list[str]:
    """The longest learned tokens as text; what is no whole character shows as the replacement character."""
    byte_of = bytes_of_characters()
    tokens = sorted(vocabulary, key=lambda token: (-len(token), vocabulary[token]))[:LONGEST_SHOWN]
    return [bytes(byte_of[c] for c in token).decode(errors="replace") for token in tokens]
