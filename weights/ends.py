"""Which tokens end a generation, and which a tokenizer puts before and after a text."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from tokenizers import Tokenizer
from tokenizers.processors import TemplateProcessing

# Ends of a turn or a text, by the names that chat formats gave them. A file names one as eos; the
# model may emit another.
END_TEXTS = frozenset(
    {
        "<|endoftext|>",
        "<|end_of_text|>",
        "<|im_end|>",
        "<|eot_id|>",
        "<|eom_id|>",
        "<end_of_turn>",
        "<|end|>",
        "<|return|>",
        "<EOT>",
        "</s>",
    }
)


def stop_ids(named: Iterable[int], special: Mapping[int, str]) -> tuple[int, ...]:
    """What the files name, then every special token of such a text."""
    return tuple(dict.fromkeys([*named, *(i for i, text in special.items() if text in END_TEXTS)]))


def set_ends(tokenizer: Tokenizer, before: int | None, after: int | None) -> None:
    """Instead of whatever it added. Ids of tokens it has; None: nothing there."""
    # Template words stand for ids: the texts of tokens may hold what the template syntax reserves.
    words = [None if id_ is None else f"T{id_}" for id_ in (before, after)]
    special = {f"T{id_}": id_ for id_ in (before, after) if id_ is not None}
    tokenizer.post_processor = TemplateProcessing(
        single=[word for word in (words[0], "$A", words[1]) if word is not None],
        special_tokens=[
            {"id": word, "ids": [id_], "tokens": [tokenizer.id_to_token(id_) or word]}
            for word, id_ in special.items()
        ],
    )
