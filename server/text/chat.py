"""
Messages to token ids, by the model's own chat template.

Only special tokens that the template itself writes are special: what a message says is ordinary
text, even where it spells one. To know the two apart in the rendered text, every place of a message
at which a special token is spelled gets a mark, a private character that occurs nowhere else in
this call: `<|im_end|>` goes to the template as `<`, mark, `|im_end|>`. What is then still spelled
whole was written by the template. The ends of a message are marked too where they could complete,
or begin, a special token together with the template's own text.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

from server.confined import Confined, Json, Overrun
from server.errors import BadRequest, UntemplatedModel
from server.text.tokenizer import TextTokenizer

MODULE = "server.text.template_process"
MAX_SECONDS = 1.0  # of processor time, for one conversation
MAX_MEMORY = 256 << 20  # bytes
PRIVATE_USE = range(0x100000, 0x10FFFE)  # plane 16
# Characters of messages, and of them rendered, that are encoded on the event loop.
SHORT, SHORT_TEXT = 1024, 2048

Messages = Sequence[Mapping[str, str]]
Encode = Callable[[str, bool, bool], list[int] | None]


class ChatTemplate:
    def __init__(self, source: str, names: Mapping[str, str], tokenizer: TextTokenizer) -> None:
        """`names`: what the template may call by name, such as `eos_token`."""
        self._source, self._tokenizer = source, tokenizer
        setup = {"source": source, "names": dict(names)}
        self._confined = Confined(MODULE, setup, cpu_seconds=MAX_SECONDS, memory=MAX_MEMORY)
        self._special = SpecialSpelling(
            {tokenizer.token_text(token): token for token in tokenizer.special_ids}
        )

    def close(self) -> None:
        self._confined.close()

    def encode(self, messages: Messages, max_characters: int) -> list[int]:
        """
        Token ids; blocks while the template runs. Raises BadRequest for messages that the template
        refuses, and UntemplatedModel for a template that does not end.
        """
        mark, request = self._request(messages, max_characters)
        with untemplated_if_overrun():
            answer, _ = self._confined.call(request)
        ids = self._ids(self._text(answer), mark, self._tokenizer.encode)
        assert ids is not None
        return ids

    async def encode_at_once(self, messages: Messages, max_characters: int) -> list[int] | None:
        """
        As `encode`, on the event loop. None: the conversation is not short, or another is being
        encoded.
        """
        if sum(len(text) for message in messages for text in message.values()) > SHORT:
            return None
        mark, request = self._request(messages, min(max_characters, SHORT_TEXT + 1))
        with untemplated_if_overrun():
            answered = await self._confined.call_at_once(request)
        if answered is None:
            return None
        answer, _ = answered
        is_short = "error" not in answer and len(answer["text"]) <= SHORT_TEXT
        return self._ids(answer["text"], mark, self._tokenizer.encode_if_idle) if is_short else None

    def _request(self, messages: Messages, max_characters: int) -> tuple[str, Json]:
        """And the mark in it."""
        mark = self._choose_mark(messages)
        marked = [
            {
                name: text if name == "role" else self._special.marked(text, mark)
                for name, text in message.items()
            }
            for message in messages
        ]
        return mark, {"messages": marked, "max_characters": max_characters}

    def _ids(self, text: str, mark: str, encode: Encode) -> list[int] | None:
        """None where `encode` gives none."""
        if mark not in text:
            return encode(text, False, True)
        ids: list[int] = []
        for part, token in self._special.split(text, mark):
            if plain := part.replace(mark, ""):
                found = encode(plain, False, False)
                if found is None:
                    return None
                ids += found
            if token is not None:
                ids.append(token)
        return ids

    def _choose_mark(self, messages: Messages) -> str:
        said = {self._source, *(text for message in messages for text in message.values())}
        while True:
            mark = chr(PRIVATE_USE[secrets.randbelow(len(PRIVATE_USE))])
            if not any(mark in text for text in said):
                return mark

    def _text(self, answer: Json) -> str:
        if "error" in answer:
            reason = self._special.without_marks(answer["error"])
            raise BadRequest(
                f"this model's chat template refuses these messages: {reason}", "messages"
            )
        text: str = answer["text"]
        return text


@contextmanager
def untemplated_if_overrun() -> Iterator[None]:
    try:
        yield
    except Overrun:
        raise UntemplatedModel(
            f"this model's chat template takes more than {MAX_SECONDS:g} s of processor time "
            f"or {MAX_MEMORY >> 20} MiB for these messages",
            "messages",
        ) from None


class SpecialSpelling:
    """How the special tokens are spelled, and where a text spells one."""

    def __init__(self, ids: Mapping[str, int]) -> None:
        self._ids = {text: token for text, token in ids.items() if text}
        longest_first = sorted(self._ids, key=len, reverse=True)
        self._any = "|".join(map(re.escape, longest_first)) or "(?!)"
        self._starts = re.compile(f"(?={self._any})")
        self._heads = {text[i:] for text in self._ids for i in range(1, len(text))}
        self._tails = {text[:i] for text in self._ids for i in range(1, len(text))}
        self._max_length = max(map(len, self._ids), default=0)

    def marked(self, text: str, mark: str) -> str:
        """A mark after the first character of whatever spells a special token, or part of one."""
        places = {found.start() for found in self._starts.finditer(text)}
        first, end = len(text) - len(text.lstrip()), len(text.rstrip())
        for size in range(1, min(self._max_length, end - first + 1)):
            if text[first : first + size] in self._heads:
                places.add(first)
            if text[end - size : end] in self._tails:
                places.add(end - size)
        for place in sorted(places, reverse=True):
            text = f"{text[: place + 1]}{mark}{text[place + 1 :]}"
        return text

    def split(self, text: str, mark: str) -> Iterator[tuple[str, int | None]]:
        """Text and the special token behind it; None behind the last."""
        start = 0
        for found in re.finditer(f"(?:{self._any})(?!{mark})", text):
            yield text[start : found.start()], self._ids[found[0]]
            start = found.end()
        yield text[start:], None

    def without_marks(self, text: str) -> str:
        return "".join(c for c in text if ord(c) not in PRIVATE_USE)
