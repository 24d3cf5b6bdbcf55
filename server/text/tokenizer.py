"""
Text to token ids and back, and the exact bytes of every token. It knows no prompt rules and no
limits.

Two kinds of vocabulary are told apart by their decoder: byte-level ones spell each byte as one
printable character (Radford et al. 2019, GPT-2's encoder.py), SentencePiece ones spell text as it
is, a space as U+2581 and a byte that is no character as `<0xAB>`.
"""

from __future__ import annotations

import json
import re
import threading
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from typing import Any

from tokenizers import Encoding, Tokenizer

SPACE = "\u2581"
BYTE_PIECE = re.compile(r"<0x([0-9A-F]{2})>")


def byte_alphabet() -> dict[str, int]:
    """
    The character that stands for each byte: itself where printable, else the next from U+0100 on.
    """
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    hidden = sorted(set(range(256)) - set(printable))
    return {chr(b): b for b in printable} | {chr(256 + i): b for i, b in enumerate(hidden)}


BYTE_OF = byte_alphabet()


@dataclass(frozen=True, slots=True)
class Piece:
    """A token and the characters of the text, [start, end), that it has bytes of."""

    token: int
    start: int
    end: int


class TextTokenizer:
    def __init__(self, tokenizer: Tokenizer, vocab_size: int) -> None:
        """`vocab_size` is the model's, which may be larger than the tokenizer's."""
        self.tokenizer, self.vocab_size = tokenizer, vocab_size
        self.is_byte_level = "ByteLevel" in decoder_types(tokenizer)
        self.added = tokenizer.get_added_tokens_decoder()
        self.special_ids = frozenset(i for i, token in self.added.items() if token.special)
        self._bytes: dict[int, bytes] = {}
        self._lock = threading.Lock()  # `encode_special_tokens` is state of the one tokenizer

    @cached_property
    def max_token_bytes(self) -> int:
        """An upper bound of the bytes of text that one token can stand for."""
        return max(len(piece.encode()) for piece in self.tokenizer.get_vocab())

    @cached_property
    def word_ends(self) -> bytes:
        """
        Bit i is set where token i cannot be within a word: it begins with white space, or is
        special. Half a second for the largest vocabularies.
        """
        mask = bytearray(-(-self.vocab_size // 8))
        for token in range(self.vocab_size):
            # Not token_bytes: what it remembers of every token would be many megabytes.
            spelled = self._spell(token).decode("utf-8", "replace")
            if spelled[:1].isspace() or token in self.special_ids:
                mask[token >> 3] |= 1 << (token & 7)
        return bytes(mask)

    def ends_word(self, token: int) -> bool:
        return bool(self.word_ends[token >> 3] >> (token & 7) & 1)

    def encode(self, text: str, add_special_tokens: bool, parse_special: bool) -> list[int]:
        with self._lock:
            return self._encode(text, add_special_tokens, parse_special)

    def encode_if_idle(
        self, text: str, add_special_tokens: bool, parse_special: bool
    ) -> list[int] | None:
        """None while another text is being encoded, which may take its time."""
        if not self._lock.acquire(blocking=False):
            return None
        try:
            return self._encode(text, add_special_tokens, parse_special)
        finally:
            self._lock.release()

    def _encode(self, text: str, add_special_tokens: bool, parse_special: bool) -> list[int]:
        self.tokenizer.encode_special_tokens = not parse_special
        # The batch form gives up the interpreter lock while it works; `encode` keeps it.
        [encoding] = self.tokenizer.encode_batch_fast([text], add_special_tokens=add_special_tokens)
        ids: list[int] = encoding.ids
        return ids

    def pieces(self, text: str, add_special_tokens: bool, parse_special: bool) -> list[Piece]:
        """The tokens of `text` with their places; those that the tokenizer adds are at (0, 0)."""
        with self._lock:
            self.tokenizer.encode_special_tokens = not parse_special
            # The library's own places cost four times the tokens themselves: only where needed.
            [encoding] = self.tokenizer.encode_batch_fast(
                [text], add_special_tokens=add_special_tokens
            )
            if (exact := self._exact_pieces(text, encoding)) or not encoding.ids:
                return exact
            [encoding] = self.tokenizer.encode_batch([text], add_special_tokens=add_special_tokens)
        return [
            Piece(token, start, end)
            for token, (start, end) in zip(encoding.ids, encoding.offsets, strict=True)
        ]

    def _exact_pieces(self, text: str, encoding: Encoding) -> list[Piece]:
        """
        Places by counting bytes; empty where normalising changed the text, so that bytes do not add
        up.
        """
        owned = [
            b"" if is_added else self.token_bytes(token)
            for token, is_added in zip(encoding.ids, encoding.special_tokens_mask, strict=True)
        ]
        if b"".join(owned) != text.encode():
            return []
        char_at = character_of_byte(text)
        ends = list(accumulate(map(len, owned)))
        return [
            Piece(token, char_at[end - len(own)], char_at[end - 1] + 1)
            if own
            else Piece(token, 0, 0)
            for token, own, end in zip(encoding.ids, owned, ends, strict=True)
        ]

    def decode(self, tokens: list[int]) -> str:
        """
        The text of a whole sequence, special tokens spelled out, as the vocabulary's own decoder
        has it.
        """
        text: str = self.tokenizer.decode(tokens, skip_special_tokens=False)
        return text

    def token_bytes(self, token: int) -> bytes:
        """Empty for an id that the model has but the tokenizer does not."""
        known = self._bytes.get(token)
        if known is None:
            known = self._bytes[token] = self._spell(token)
        return known

    def _spell(self, token: int) -> bytes:
        piece = self.tokenizer.id_to_token(token)
        if piece is None:
            return b""
        if token in self.special_ids or (self.is_byte_level and token in self.added):
            return str(piece).encode()
        if self.is_byte_level and all(c in BYTE_OF for c in piece):
            return bytes(BYTE_OF[c] for c in piece)
        if not self.is_byte_level and (byte := BYTE_PIECE.fullmatch(piece)):
            return bytes([int(byte[1], 16)])
        return str(piece).replace(SPACE, " ").encode()

    def token_text(self, token: int) -> str:
        return self.token_bytes(token).decode("utf-8", "replace")

    def visible_bytes(self, token: int) -> bytes:
        """What a token adds to a text that is shown: a special token adds nothing."""
        return b"" if token in self.special_ids else self.token_bytes(token)


def decoder_types(tokenizer: Tokenizer) -> set[str]:
    if tokenizer.decoder is None:
        return set()
    state: dict[str, Any] = json.loads(tokenizer.decoder.__getstate__())
    return {part["type"] for part in [state, *state.get("decoders", [])]}


def character_of_byte(text: str) -> list[int]:
    """For every byte of the UTF-8 text, the index of its character.

    "aé" is the bytes 61 c3 a9: [0, 1, 1].
    """
    return [i for i, c in enumerate(text) for _ in range(len(c.encode()))]
