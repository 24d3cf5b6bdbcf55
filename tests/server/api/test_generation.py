import pytest

from model.step import Drawn
from server.api.generation import Choice, Plan, choice_seed
from server.engine.request import Ending, Sampling, Timings, Update
from server.errors import RequestTimeout
from server.text.tokenizer import TextTokenizer
from tests.scripted import EOS, VOCAB_SIZE, byte_tokenizer

TOKENIZER = TextTokenizer(byte_tokenizer(), VOCAB_SIZE)
NO_TIME = Timings(0, 0, 0)


def choice(**fields):
    plan = Plan("id", [(1,)], [9], Sampling(), None, end_ids=frozenset({EOS}), **fields)
    return Choice(0, plan, TOKENIZER)


def update(text, reason=None, **more):
    tokens = text if isinstance(text, list) else list(text.encode())
    drawn = tuple(Drawn(token) for token in tokens)
    return Update(drawn, ending=Ending(reason, NO_TIME, 0, **more) if reason else None)


def test_a_stop_string_within_one_update_drops_what_was_drawn_after_it():
    told = choice(stops=("ab",)).take(update("xabyz"))
    assert (told.text, told.finish_reason, told.stop_reason) == ("x", "stop", "ab")
    assert [drawn.token for drawn in told.drawn] == [*b"xab"]


def test_after_a_stop_string_nothing_more_is_told():
    one = choice(stops=("ab",))
    one.take(update("ab"))
    assert one.take(update("more")) is None
    assert one.take(update("", "cancelled")) is None
    assert one.num_tokens == 2


def test_a_stop_string_completed_by_the_last_token_allowed_is_a_stop():
    told = choice(stops=("ab",)).take(update("ab", "length"))
    assert (told.finish_reason, told.stop_reason) == ("stop", "ab")


def test_held_back_text_is_told_at_the_end():
    one = choice(stops=("abc",))
    assert one.take(update("xab")).text == "x"
    assert one.take(update("", "length")).text == "ab"


def test_an_end_token_is_told_but_not_shown():
    told = choice().take(update([97, EOS], "stop", stop_id=EOS))
    assert (told.text, told.finish_reason, told.stop_reason) == ("a", "stop", None)
    assert len(told.drawn) == 2


def test_the_clients_own_stop_id_is_the_reason():
    one = choice(stop_token_ids=frozenset({98}))
    assert one.take(update("ab", "stop", stop_id=98)).stop_reason == 98


def test_a_request_that_failed_raises_its_error():
    with pytest.raises(RequestTimeout):
        choice().take(update("", "failed", error=RequestTimeout("late")))


def test_every_choice_has_its_own_seed_and_the_first_the_callers():
    seeds = [choice_seed(7, i) for i in range(100)]
    assert seeds[0] == 7
    assert len(set(seeds)) == 100
    assert [choice_seed(-1, i) for i in range(3)] != [choice_seed(1, i) for i in range(3)]
    assert choice_seed(None, 0) != choice_seed(None, 0)
