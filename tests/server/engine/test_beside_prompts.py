"""What a long prompt does to streams, through worker, scheduler and pace, on a clock of its own."""

from __future__ import annotations

import pytest

from tests import fakes
from tests.server.engine.bench import Bench, ending_of


def test_a_long_prompt_deep_in_its_context_never_doubles_a_streams_gaps():
    """A token costs 2 ms and a tenth more for each that is before it: in the end one a step."""
    durations = []

    def take_time(rows):
        long = [row for row in rows if len(row.prompt) > 32 and row.start < len(row.prompt)]
        chunks = sum(len(row.tokens) * (0.002 + 0.0001 * row.start) for row in long)
        durations.append(0.01 + chunks)
        bench.now += durations[-1]

    bench = Bench(before_step=take_time)
    bench.add(max_tokens=60)
    for _ in range(8):
        bench.worker.step()
    bench.add(prompt=range(10, 70), max_tokens=1)
    assert ending_of(bench.run()["request-1"]).reason == "length"
    assert 0.015 < max(durations) < 0.02
    assert len(durations) == 60


def repeat_where_the_first_token_is_odd(monkeypatch):
    draw = fakes.draw

    def draw_or_repeat(context, *more):
        return context[-5] if context[0] % 2 else draw(context, *more)

    monkeypatch.setattr("tests.fakes.draw", draw_or_repeat)


LONG, TOKENS = 240, 800  # of the prompt, and of each stream


def run_streams(firsts, num_prompt_tokens, *, speculates=True):
    """When each token of each stream came, and when the prompt began and ended."""

    def take_time(rows):
        """10 ms, half a millisecond a draft; a token of the prompt 1 ms, behind others more."""
        chunks = [row for row in rows if len(row.prompt) > 5]
        chunk = sum(len(row.tokens) * (1e-3 + 3e-6 * row.start) for row in chunks)
        bench.now += 0.01 + 0.0005 * sum(row.num_drafts for row in rows) + chunk

    limits = {"max_batch": 5, "max_batch_tokens": 64, "speculates": speculates}
    bench = Bench(before_step=take_time, num_pages=1000, **limits)
    whens = {bench.add((first, 2, 3, 4, 5), TOKENS).job.request.id: [] for first in firsts}
    prompt_name, began, ended = f"request-{len(firsts)}", 0.0, 0.0
    while bench.worker.has_work and not ended:
        if num_prompt_tokens and not began and len(min(whens.values(), key=len)) > 50:
            began = bench.now
            bench.add(range(10, 10 + num_prompt_tokens), max_tokens=1)
        bench.worker.step()
        for live, update in bench.worker.take_updates():
            if (name := live.job.request.id) in whens:
                whens[name] += [bench.now] * len(update.drawn)
            elif name == prompt_name:
                ended = bench.now
    return list(whens.values()), began, ended


@pytest.mark.parametrize("firsts", [(1, 3, 5, 7), (1, 2, 4, 6), (1, 2), (3,), (2, 4, 6, 8)])
def test_streams_beside_a_long_prompt_wait_less_than_twice_as_long_for_a_token(firsts, monkeypatch):
    """
    Those that repeat themselves (the odd ones) too: once they had no guesses beside a prompt, and
    waited 2.5 to 8.7 times as long.
    """
    repeat_where_the_first_token_is_odd(monkeypatch)
    streams, began, ended = run_streams(firsts, LONG)
    alone, _, _ = run_streams(firsts, 0)
    for whens, without in zip(streams, alone, strict=True):
        beside = [i for i, when in enumerate(whens) if began <= when <= ended]
        first, last = beside[0], beside[-1]
        assert last < TOKENS - 1, "the stream ended before the prompt"
        ratio = (whens[last] - whens[first]) / (without[last] - without[first])
        assert 1.3 < ratio < 2


def test_a_prompt_takes_no_longer_beside_streams_that_guess(monkeypatch):
    repeat_where_the_first_token_is_odd(monkeypatch)
    seconds = {}
    for speculates in (True, False):
        _, began, ended = run_streams((1, 3, 5, 7), LONG, speculates=speculates)
        seconds[speculates] = ended - began
    assert seconds[True] < 1.1 * seconds[False]
