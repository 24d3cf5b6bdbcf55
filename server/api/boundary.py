"""
Where a prompt ends and its continuations begin, in tokens.

Prompt and continuation are tokenised as one text, which may change the prompt's last tokens. All
continuations of a prompt must be scored from one context, or their scores could not be compared: it
is what the tokens of the prompt and of every one of the texts begin with. What of the prompt is
left then counts with each continuation.

Worked example: "I was " is I|was|_ and continues as "late" or "1". "I was late" is I|was|_late,
"I was 1" is I|was|_|1. The context is I|was, and the continuations are _late and _|1: probabilities
of two texts that follow "I was".
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import takewhile

from server.api.prompts import check_beginning, check_ids, first_id
from server.api.schemas.fields import TextOrIds
from server.api.service import ServedModel, Service
from server.errors import BadRequest, ContextLengthExceeded
from server.text.tokenizer import TextTokenizer

Ids = tuple[int, ...]

TAIL = 256  # characters of a prompt that are tokenised again with each continuation, at least
WORD_END = re.compile(r"(?<=\S)\s")
PART_BYTES = 65536  # tokenised at a time, so that others' texts come between


@dataclass(frozen=True, slots=True)
class Continued:
    context: Ids  # at least one token
    continuations: list[Ids]  # none of them empty


@dataclass(frozen=True, slots=True)
class Encoder:
    """The tokenizer with a call's wishes."""

    tokenizer: TextTokenizer
    add_special_tokens: bool
    parse_special: bool

    def whole(self, text: str) -> Ids:
        return tuple(self.tokenizer.encode(text, self.add_special_tokens, self.parse_special))

    def rest(self, text: str) -> Ids:
        return tuple(self.tokenizer.encode(text, False, self.parse_special))

    def split(self, prompt: str) -> tuple[Ids, str]:
        """
        A prompt's first tokens, and the text of the others. No token but the last few can change
        with what is appended, since text is cut into words before it is cut into tokens: so a long
        prompt is tokenised once. Whether that holds here is tried on the prompt itself.
        """
        ends = [found.start() for found in WORD_END.finditer(prompt[: max(0, len(prompt) - TAIL)])]
        if ends:
            head, tail = self.whole(prompt[: ends[-1]]), prompt[ends[-1] :]
            if head + self.rest(tail) == self.whole(prompt):
                return head, tail
        return (), prompt


async def continue_prompt(
    service: Service,
    model: ServedModel,
    prompt: TextOrIds,
    continuations: Sequence[TextOrIds],
    encoder: Encoder,
    param: str,
) -> Continued:
    """`param` is the prompt's name in errors."""
    if isinstance(prompt, str):
        found = await _continue_text(service, model, prompt, continuations, encoder, param)
    else:
        check_ids(prompt, model.vocab_size, param)
        found = Continued(prompt, await _encode(service, continuations, encoder.rest, 0))
    for i, ids in enumerate(found.continuations):
        if not ids:
            raise BadRequest(f"continuations.{i} adds no token", f"continuations.{i}")
        check_fits(len(found.context), len(ids), model.context_length, f"continuations.{i}")
    return found


def check_fits(num_before: int, num_tokens: int, limit: int, param: str) -> None:
    if num_before + num_tokens > limit:
        raise ContextLengthExceeded(
            f"{param} is {num_tokens} tokens behind {num_before} of the prompt, together "
            f"{num_before + num_tokens}; the context is {limit} tokens",
            param,
        )


async def _continue_text(
    service: Service,
    model: ServedModel,
    prompt: str,
    continuations: Sequence[TextOrIds],
    encoder: Encoder,
    param: str,
) -> Continued:
    await check_beginning(service, model, prompt, encoder.parse_special, param)
    whole = await service.tokenize(encoder.whole, prompt)
    head, tail = await service.tokenize(encoder.split, prompt)

    def encode(text: str) -> Ids:
        return head + encoder.rest(tail + text) if head else encoder.whole(tail + text)

    together = await _encode(service, continuations, encode, len(tail.encode()))
    together = [
        ids if isinstance(each, str) else whole + ids
        for each, ids in zip(continuations, together, strict=True)
    ]
    num_kept = min([len(whole), *(num_common(whole, ids) for ids in together)])
    context = whole[:num_kept] or (first_id(model, param),)
    return Continued(context, [ids[num_kept:] for ids in together])


async def _encode(
    service: Service, continuations: Sequence[TextOrIds], encode: Callable[[str], Ids], extra: int
) -> list[Ids]:
    """Texts as tokens, a part at a time; token ids as they are. `extra` bytes come with a text."""
    found: list[Ids] = []
    for part in parts(continuations, extra):
        found += await service.tokenize(
            lambda part: [encode(each) if isinstance(each, str) else each for each in part], part
        )
    return found


def num_common(one: Ids, other: Ids) -> int:
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False)))


def parts(texts: Sequence[TextOrIds], extra: int) -> Iterator[Sequence[TextOrIds]]:
    """In order, so many at a time that with `extra` bytes each the texts are not too long."""
    part: list[TextOrIds] = []
    size = 0
    for text in texts:
        part.append(text)
        size += extra + len(text.encode()) if isinstance(text, str) else 0
        if size >= PART_BYTES:
            yield part
            part, size = [], 0
    yield part
