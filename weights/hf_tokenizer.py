"""A folder's tokenizer files -> Tokenizer, special tokens, chat template."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from weights.checkpoint import CheckpointError, SpecialTokens
from weights.ends import stop_ids
from weights.fields import shown
from weights.json_file import read_object, read_text

MAX_TOKENIZER_BYTES = 256 << 20


def read_tokenizer(folder: Path) -> Tokenizer:
    path = folder / "tokenizer.json"
    if not path.is_file():
        raise CheckpointError(f"{folder} has no tokenizer.json, so its text cannot be tokenized.")
    tokenizer = parse_tokenizer(read_text(path, MAX_TOKENIZER_BYTES), path.name)
    # Some files carry the truncation and padding of a training run; a server that cut a prompt
    # would be wrong.
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def parse_tokenizer(text: str, name: str) -> Tokenizer:
    try:
        return Tokenizer.from_str(text)
    except BaseException as error:
        # The library raises plain Exception, and its PanicException is not even that.
        if isinstance(error, (KeyboardInterrupt, SystemExit, MemoryError)):
            raise
        reason = str(error)[:200]
        raise CheckpointError(f"{name} is not a tokenizer this server can read: {reason}") from None


def read_special(folder: Path, config: Mapping[str, Any], tokenizer: Tokenizer) -> SpecialTokens:
    """tokenizer_config.json's tokens; where it is silent, config.json's ids."""
    settings = read_object(folder / "tokenizer_config.json", is_required=False)
    generation = read_object(folder / "generation_config.json", is_required=False)
    ids = {kind: _special_id(kind, settings, config, tokenizer) for kind in ("bos", "eos", "pad")}
    unk = _text_of(settings.get("unk_token"))
    named = [*_ids(generation), *_ids(config), *([] if ids["eos"] is None else [ids["eos"]])]
    added_tokens = sorted(tokenizer.get_added_tokens_decoder().items())
    added = tokenizer.encode("", add_special_tokens=True).ids
    return SpecialTokens(
        bos_id=ids["bos"],
        eos_id=ids["eos"],
        pad_id=ids["pad"],
        unk_id=None if unk is None else tokenizer.token_to_id(unk),
        stop_ids=stop_ids(named, {i: token.content for i, token in added_tokens if token.special}),
        adds_bos=ids["bos"] is not None and added[:1] == [ids["bos"]],
    )


def _special_id(
    kind: str, settings: Mapping[str, Any], config: Mapping[str, Any], tokenizer: Tokenizer
) -> int | None:
    if f"{kind}_token" in settings:
        text = _text_of(settings[f"{kind}_token"])
        return None if text is None else tokenizer.token_to_id(text)
    return next(_ids(config, f"{kind}_token_id"), None)


def _text_of(token: object) -> str | None:
    """A special token is written as its text, or as an object whose `content` is."""
    text = token.get("content") if isinstance(token, Mapping) else token
    return text if isinstance(text, str) else None


def _ids(config: Mapping[str, Any], field: str = "eos_token_id") -> Iterator[int]:
    """One id or a list of them."""
    value = config.get(field)
    for id_ in value if isinstance(value, list) else [value]:
        if isinstance(id_, int) and not isinstance(id_, bool) and id_ >= 0:
            yield id_
        elif id_ is not None and id_ != -1:
            raise CheckpointError(f"{field} must be token ids, not {shown(value)}.")


def read_chat_template(folder: Path) -> str | None:
    """chat_template.jinja, else tokenizer_config.json's: one template, or a list of named ones."""
    if (path := folder / "chat_template.jinja").is_file():
        return read_text(path)
    settings = read_object(folder / "tokenizer_config.json", is_required=False)
    template = settings.get("chat_template")
    if isinstance(template, list):
        named = {t.get("name"): t.get("template") for t in template if isinstance(t, Mapping)}
        template = named.get("default")
    return template if isinstance(template, str) else None
