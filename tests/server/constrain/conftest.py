from __future__ import annotations

import pytest

from server.constrain.masks import Grammars
from server.text.tokenizer import TextTokenizer
from tests.scripted import EOS, VOCAB_SIZE, byte_tokenizer
from tests.server.constrain.following import OTHER_END


@pytest.fixture(scope="module")
def grammars():
    made = Grammars(TextTokenizer(byte_tokenizer(), VOCAB_SIZE), (EOS, OTHER_END))
    yield made
    made.close()
