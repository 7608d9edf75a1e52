"""Stage `adopt`: an existing tokenizer to a tokenizer artefact, the ids of its own entries as they were.

    FILE.tiktoken    ranks of byte strings (OpenAI's); the split is the config's, since the file does not say it
    FILE.json        a tokenizer.json of Hugging Face tokenizers
    FILE.model       sentencepiece's, Unigram or BPE
        -> [entries as they were] + [named special tokens that it lacks] + [reserved ones up to the multiple]

What is added begins with `<|endoftext|>`, so that GPT-2's stands at its own 50256.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers

from headwater_tokenizer._contracts.errors import UserError
from headwater_tokenizer._contracts.manifest import canonical_json, write_atomic
from headwater_tokenizer._contracts.stage import Run
from headwater_tokenizer.byte_names import bytes_of_characters
from headwater_tokenizer.config import AdoptConfig
from headwater_tokenizer.encoder import Encoder
from headwater_tokenizer.sentencepiece_format import BPE, CONTROL, NORMAL, UNIGRAM, UNKNOWN, USER_DEFINED, parse
from headwater_tokenizer.sources import read_file
from headwater_tokenizer.special import END_OF_DOCUMENT, NAMED, reserved_name, transformers_config
from headwater_tokenizer.splits import split_pattern

ALGORITHMS = {"BPE": "bpe", "Unigram": "unigram", "WordPiece": "wordpiece", "WordLevel": "words"}
"""tokenizers' models -> what `train` calls the algorithm."""
NEVER = -1e4
"""Log probability of entries that no text may reach (control, bytes): their names are cheaper by characters."""
BLANK = "\u2581"
"""How sentencepiece writes one."""
T = TypeVar("T", str, bytes)


def adopt(run: Run) -> None:
    """Stage `adopt`: a file of a source -> tokenizer.json, tokenizer_config.json, metrics.json. Raises as `write`."""
    facts = write(run.inputs["sources"], run.config, run.out)
    run.log(f"{run.config.source}: {facts['learned']} entries, {facts['vocabulary']} ids in all; engine "
            f"{Encoder(run.out).engine}")  # fmt: skip


def write(sources: Path, config: AdoptConfig, out: Path) -> dict:
    """Write the files of a tokenizer artefact.

    Args:
        sources: folder of a sources artefact.
        out: an existing folder.

    Returns:
        The content of its metrics.json.

    Raises:
        UserError: no such source or file, the file is none of the three, or a special token is an ordinary entry.
    """
    data, where = read_file(sources, config.source, config.file), f"{config.source}/{config.file}"
    match config.file.rpartition(".")[2]:
        case "tiktoken":
            tokenizer = from_ranks(data, config.split, config.digits, where)
        case "json":
            tokenizer = from_json(data, where)
        case "model":
            tokenizer = from_sentencepiece(data, where)
        case _:
            raise UserError(f"{where}: name a .tiktoken, .json (tokenizer.json) or .model (sentencepiece) file")
    special = add_special_tokens(tokenizer, config.reserved, config.pad_to, where)
    model = json.loads(tokenizer.to_str())["model"]
    about = transformers_config() | ({"unk_token": model["unk_token"]} if model.get("unk_token") else {})
    ids = tokenizer.get_vocab_size(with_added_tokens=True)
    learned = len(set(tokenizer.get_vocab(with_added_tokens=False)) - special)
    facts = {
        "algorithm": ALGORITHMS[model["type"]],
        "vocabulary": ids,
        "learned": learned,
        "named": len(NAMED),
        "reserved": ids - learned - len(NAMED),
    }
    write_atomic(out / "tokenizer.json", tokenizer.to_str(pretty=True))
    write_atomic(out / "tokenizer_config.json", canonical_json(about))
    write_atomic(out / "metrics.json", canonical_json(facts))
    return facts


def from_ranks(data: bytes, split: str, digits: int, where: str = "") -> Tokenizer:
    """tiktoken's rank file, a line `BASE64 RANK` for each byte string; ids are ranks.

    Args:
        split, digits: as `splits.split_pattern`; the file does not say them.
        where: what errors call the file.

    Raises:
        UserError: a line that is none, a rank that is missing or stands there twice, a byte without an entry.
    """
    tokens = _ranked(data, where)
    merges, others = merges_of(tokens)
    name_of = {byte: character for character, byte in bytes_of_characters().items()}
    names = {token: "".join(map(name_of.__getitem__, token)) for token in tokens}
    tokenizer = Tokenizer(
        models.BPE(
            vocab={names[token]: i for i, token in enumerate(tokens)},
            merges=[(names[left], names[right]) for left, right in merges],
            ignore_merges=bool(others),  # tiktoken looks a whole piece up first; it shows in these alone
        )
    )
    cut = pre_tokenizers.Split(Regex(split_pattern(split, digits)), "isolated")
    as_bytes = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([cut, as_bytes])
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def _ranked(data: bytes, where: str) -> list[bytes]:
    """The byte strings of a rank file by rank."""
    ranks: dict[int, bytes] = {}
    for number, line in enumerate(data.splitlines(), start=1):
        if not line.strip():
            continue
        try:
            encoded, rank = line.split()
            token, at = base64.b64decode(encoded, validate=True), int(rank)
        except (ValueError, binascii.Error):
            raise UserError(f"{where} line {number}: not base64, a blank and a rank; fetch the file again") from None
        if not token or at in ranks:
            raise UserError(f"{where} line {number}: rank {at} {'twice' if token else 'of no bytes'}; fetch it again")
        ranks[at] = token
    tokens = [ranks[at] for at in sorted(ranks)]
    if gap := next((i for i, at in enumerate(sorted(ranks)) if i != at), None):
        raise UserError(f"{where}: {len(ranks)} ranks up to {max(ranks)}, but none is {gap}; fetch the file again")
    if len(set(tokens)) < len(tokens):
        raise UserError(f"{where}: {len(tokens)} ranks, but only {len(set(tokens))} byte strings; fetch the file again")
    if lacking := sorted(set(range(256)) - {token[0] for token in tokens if len(token) == 1}):
        raise UserError(
            f"{where}: {len(lacking)} bytes have no rank, byte {lacking[0]} first; byte-level BPE needs all"
        )
    return tokens


def merges_of(tokens: Sequence[T]) -> tuple[list[tuple[T, T]], list[T]]:
    """The pairs that merging by ranks merges, in order of rank.

    tiktoken and sentencepiece merge whichever neighbours make the entry of the lowest rank. Before an entry's rank has
    its turn no merge has crossed its ends, so its characters stand in the same parts in any text then: where they are
    two, these are the one pair that makes it. Where they are more, as in no vocabulary that merges learned, only parts
    of a higher rank can make it, and it gets every cut into two entries; where two of its cuts overlap in a text,
    tokenizers takes them in order of the list, the others the leftmost.

    Args:
        tokens: entries in order of rank, bytes or text; those of one byte or character are what merging begins with.

    Returns:
        The pairs, and the entries that got every cut.
    """
    rank = {token: i for i, token in enumerate(tokens)}
    merges: list[tuple[T, T]] = []
    others: list[T] = []
    for own, token in enumerate(tokens):
        if len(token) < 2:
            continue
        parts = [token[i : i + 1] for i in range(len(token))]
        while len(parts) > 2:
            best, at = min((rank.get(parts[i] + parts[i + 1], own), i) for i in range(len(parts) - 1))
            if best >= own:
                break
            parts[at : at + 2] = [parts[at] + parts[at + 1]]
        cuts = [(parts[0], parts[1])]
        if len(parts) > 2:
            cuts = [(token[:at], token[at:]) for at in range(1, len(token))]
            others.append(token)
        merges += [(left, right) for left, right in cuts if left in rank and right in rank]
    return merges, others


def from_json(data: bytes, where: str = "") -> Tokenizer:
    """A tokenizer.json, without what adds tokens to a text or cuts it: ids are the text's alone.

    Raises:
        UserError: tokenizers cannot read it, or would give an added token another id than the file says.
    """
    try:
        described = json.loads(data)
        wanted = {token["content"]: token["id"] for token in described["added_tokens"]}
        tokenizer = Tokenizer.from_str(json.dumps(described | {"post_processor": None}))
    except Exception as e:  # tokenizers raises plain Exception
        raise UserError(f"{where}: not readable as a tokenizer.json ({' '.join(str(e).split())[:200]})") from None
    tokenizer.no_padding()
    tokenizer.no_truncation()
    if moved := sorted(name for name, at in wanted.items() if tokenizer.token_to_id(name) != at):
        raise UserError(f"{where}: added token {moved[0]} is {wanted[moved[0]]} in the file, but tokenizers makes it "
                        f"{tokenizer.token_to_id(moved[0])}; mend the gap in its ids")  # fmt: skip
    return tokenizer


def from_sentencepiece(data: bytes, where: str = "") -> Tokenizer:
    """sentencepiece's .model: its normaliser's rules, its entries with their scores, or as merges.

    Raises:
        UserError: it is none, or of a kind whose ids tokenizers cannot give.
    """
    try:
        proto = parse(data)
    except ValueError as e:
        raise UserError(f"{where}: not readable as a sentencepiece model ({e}); fetch the file again") from None
    kinds = [kind for *_, kind in proto.pieces]
    if proto.model_type not in (UNIGRAM, BPE) or proto.blank_as_suffix or USER_DEFINED in kinds:
        raise UserError(f"{where}: a sentencepiece model of words or characters, with blanks as suffixes or symbols of "
                        "the user's own; of these adopt the tokenizer.json that goes with it")  # fmt: skip
    if UNKNOWN not in kinds:
        raise UserError(f"{where}: a sentencepiece model without an unknown piece; fetch the file again")
    names, unknown = [piece for piece, *_ in proto.pieces], kinds.index(UNKNOWN)
    if proto.model_type == UNIGRAM:
        scored = [(piece, score if kind == NORMAL else NEVER) for piece, score, kind in proto.pieces]
        tokenizer = Tokenizer(models.Unigram(scored, unk_id=unknown, byte_fallback=proto.byte_fallback))
    else:
        normal = [i for i, kind in enumerate(kinds) if kind == NORMAL]
        merges, _ = merges_of([names[i] for i in sorted(normal, key=lambda i: (-proto.pieces[i][1], i))])
        vocabulary = {name: i for i, name in enumerate(names)}
        tokenizer = Tokenizer(
            models.BPE(vocabulary, merges, unk_token=names[unknown], fuse_unk=True, byte_fallback=proto.byte_fallback)
        )
    steps: list[normalizers.Normalizer] = [normalizers.Precompiled(proto.charsmap)] if proto.charsmap else []
    if proto.remove_extra_whitespaces:
        steps += [normalizers.Replace(Regex(r"\A +| +\z"), ""), normalizers.Replace(Regex(" {2,}"), " ")]
    steps += [normalizers.Prepend(BLANK)] if proto.add_dummy_prefix else []
    tokenizer.normalizer = normalizers.Sequence([*steps, normalizers.Replace(" ", BLANK)])
    crossing = any(BLANK in name[1:] for name in names)
    if not crossing:  # a cut before each blank then changes no id, and makes encoding fast
        tokenizer.pre_tokenizer = pre_tokenizers.Split(BLANK, "merged_with_next")
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace(BLANK, " "), decoders.ByteFallback(), decoders.Fuse()]
        + ([decoders.Strip(" ", left=1)] if proto.add_dummy_prefix else [])
    )
    special = [name for name, kind in zip(names, kinds, strict=True) if kind in (CONTROL, UNKNOWN)]
    tokenizer.add_special_tokens([AddedToken(name, special=True, normalized=False) for name in special])
    return tokenizer


def add_special_tokens(tokenizer: Tokenizer, reserved: int, pad_to: int, where: str = "") -> set[str]:
    """Add the named special tokens that are missing and the reserved ones after the highest id.

    Returns:
        All special tokens.

    Raises:
        UserError: one is an ordinary entry already, or the ids have gaps.
    """
    known = tokenizer.get_vocab(with_added_tokens=True)
    special = {token.content for token in tokenizer.get_added_tokens_decoder().values() if token.special}
    spare = [reserved_name(i) for i in range(reserved + pad_to)]
    if clash := sorted({*NAMED, *spare} & set(known) - special):
        raise UserError(f"{where}: special token {clash[0]} is its ordinary entry {known[clash[0]]}; it cannot be both")
    first = max(known.values()) + 1
    missing = [name for name in (END_OF_DOCUMENT, *(n for n in NAMED if n != END_OF_DOCUMENT)) if name not in known]
    fresh = [name for name in spare if name not in known]
    least = first + len(missing) + max(reserved - (len(spare) - len(fresh)), 0)
    names = [*missing, *fresh][: -(-least // pad_to) * pad_to - first]
    tokenizer.add_special_tokens([AddedToken(name, special=True, normalized=False) for name in names])
    for at, name in enumerate(names, start=first):
        if tokenizer.token_to_id(name) != at:
            raise UserError(f"{where}: ids up to {first - 1}, but only {len(known)} entries; tokenizers would give "
                            f"{name} one of the ids between; mend the gaps")  # fmt: skip
    return special | set(names)
