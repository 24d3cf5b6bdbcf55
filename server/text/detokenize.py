"""
Token bytes to text as they come: a character is given out when its last byte is here, never before.
"""

from __future__ import annotations

import codecs

Utf8Decoder = codecs.getincrementaldecoder("utf-8")


class Detokenizer:
    """
    Any split of any bytes gives the text that decoding the whole gives, U+FFFD for what is not
    UTF-8.
    """

    def __init__(self) -> None:
        self._decoder = Utf8Decoder("replace")

    def push(self, token: bytes) -> str:
        return self._decoder.decode(token)

    def finish(self) -> str:
        return self._decoder.decode(b"", final=True)
