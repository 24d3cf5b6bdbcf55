"""What may follow a text under a grammar, on a vocabulary of single bytes."""

import asyncio

import numpy as np
import pytest

from server.errors import InvalidGrammar
from tests.scripted import VOCAB_SIZE

OTHER_END = 258


def check(grammars, grammar):
    return asyncio.run(grammars.check(grammar))


def error_of(grammars, grammar):
    with pytest.raises(InvalidGrammar) as refusal:
        check(grammars, grammar)
    assert refusal.value.param == grammar.param
    return refusal.value.message


def allowed(mask):
    assert len(mask) * 8 >= VOCAB_SIZE
    bits = np.unpackbits(np.frombuffer(mask, np.uint8), bitorder="little")
    return set(np.flatnonzero(bits).tolist())


def after(grammars, grammar, text):
    """What may follow a text that was drawn token by token."""
    constraint = check(grammars, grammar).constraint()
    for end in range(len(text)):
        assert text[end] in allowed(constraint.mask(text[:end])())
    found = allowed(constraint.mask(text)())
    constraint.close()
    assert constraint.failure is None
    return found


def is_followed(grammars, grammar, text):
    """Whether a string that is begun may be ended here."""
    constraint = check(grammars, grammar).constraint()
    is_whole = all(
        (text + b'"')[end] in allowed(constraint.mask(text[:end])()) for end in range(len(text) + 1)
    )
    constraint.close()
    return is_whole
