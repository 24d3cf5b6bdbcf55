from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from statistics import median, quantiles

import pytest

from server.engine.drafts import max_drafts
from server.engine.pace import MAX_AGE, START, Chunk, Costs, Decoding, Pace

DECODE = 0.0105  # seconds: four streams of SmolLM2, measured
TOKEN, KEY = 0.0012, 0.5e-6  # of a chunk, a token and a key
DRAFT = 0.0008


def no_noise():
    return 1.0


def noise(seed):
    """A twentieth more or less, and one step in fifty held up to last three times as long."""
    chance = random.Random(seed)
    return lambda: abs(chance.gauss(1, 0.05)) * (3 if chance.random() < 0.02 else 1)


def prompt(pace, length=4000, token=TOKEN, key=KEY, decode=DECODE, growth=0.0, factor=no_noise):
    """A prompt beside three decoding rows: how long each step is, of one that only decodes."""
    ratios, done = [], 0
    while done < length:
        num_tokens = min(pace.max_long_tokens(0, done), length - done)
        chunk = Chunk(num_tokens, done)
        own = (decode + growth * len(ratios)) * factor()
        seconds = own + (token * num_tokens + key * chunk.num_keys) * bool(num_tokens)
        pace.observe(3, 0, [chunk] if num_tokens else [], seconds)
        ratios.append(seconds / decode)
        done += num_tokens
    return ratios


def decoding(steps=10, decode=DECODE, factor=no_noise):
    pace = Pace()
    for _ in range(steps):
        pace.observe(3, 0, [], decode * factor())
    return pace


def test_a_prompt_deep_in_its_context_never_doubles_a_step():
    """The last token of 4,000 costs three times the first, and reads all before it besides."""
    ratios = prompt(decoding())
    assert max(ratios) < 2
    assert median(ratios) > 1.5


@pytest.mark.parametrize("seed", range(5))
def test_the_median_gap_stays_below_twice_on_a_machine_that_others_use(seed):
    ratios = prompt(decoding(factor=noise(seed)), factor=noise(seed + 100))
    assert median(ratios) < 2
    assert quantiles(ratios, n=20)[-1] < 2.2


def test_rows_that_grow_meanwhile_are_looked_at_again():
    """Decoding rows take 3 us more from step to step: what is theirs is not the chunks'."""
    pace = decoding()
    ratios = prompt(pace, growth=3e-6)
    assert median(ratios) < 2
    assert 1 <= sum(ratio < 1.4 for ratio in ratios[10:]) < len(ratios) / 20


@pytest.mark.parametrize(("decode", "token"), [(0.040, 0.001), (0.040, 0.0004), (0.200, 0.002)])
def test_a_mixed_step_settles_near_what_it_may_take(decode, token):
    ratios = prompt(decoding(decode=decode), token=token, key=0.0, decode=decode)
    paced = [ratio for ratio in ratios[10:-1] if ratio > 1]
    assert all(1.65 < ratio < 1.8 for ratio in paced)


def test_the_next_prompt_begins_with_what_the_last_has_taught():
    pace = decoding()
    first, second = prompt(pace), prompt(pace)
    assert max(second) < 2
    assert len(second) <= len(first)


def test_the_first_chunk_is_short_whatever_prompts_alone_have_taught():
    pace = Pace()
    pace.observe(0, 0, [Chunk(512, 0)], 1e-6)
    pace.observe(3, 0, [], 0.04)
    assert pace.max_long_tokens(0, 0) == START


def test_a_long_prompt_goes_on_however_dear_it_is():
    pace = decoding()
    for _ in range(3 * MAX_AGE):
        num_tokens = pace.max_long_tokens(0, 1000)
        pace.observe(3, 0, [Chunk(num_tokens, 1000)] if num_tokens else [], 100.0)
    assert pace.max_long_tokens(0, 1000) == 1


@dataclass
class Speculating:
    """
    Rows that guess, each its own share of the times and rightly with its own chance, and what
    their steps last. Each drew `num_drawn` tokens in `seconds`, of which `own` without the prompt.
    """

    habits: Sequence[tuple[float, float]]
    pace: Pace = field(default_factory=Pace)
    chance: random.Random = field(default_factory=lambda: random.Random(1))
    factor: Callable[[], float] = no_noise
    num_drawn: list[int] = field(default_factory=list)
    seconds: float = 0.0
    own: float = 0.0
    ratios: list[float] = field(default_factory=list)  # of steps that ran a chunk

    def step(self, start: int = 0, num_left: int = 0) -> int:
        """How much of a prompt ran."""
        num_drafts = self._draw()
        own = (DECODE + DRAFT * num_drafts) * self.factor()
        num_tokens = min(num_left, self.pace.max_long_tokens(num_drafts, start) if num_left else 0)
        chunks = [Chunk(num_tokens, start)] if num_tokens else []
        seconds = own + sum(TOKEN * num_tokens + KEY * chunk.num_keys for chunk in chunks)
        self.pace.observe(len(self.habits), num_drafts, chunks, seconds)
        self.seconds, self.own = self.seconds + seconds, self.own + own
        self.ratios += [seconds / own] if chunks else []
        return num_tokens

    def _draw(self) -> int:
        most, num_drafts = max_drafts(len(self.habits), 512), 0
        self.num_drawn = self.num_drawn or [0] * len(self.habits)
        for row, (guesses, is_right) in enumerate(self.habits):
            num_guessed = most if self.chance.random() < guesses else 0
            wrong = (i for i in range(num_guessed) if self.chance.random() >= is_right)
            self.num_drawn[row] += 1 + next(wrong, num_guessed)
            num_drafts += num_guessed
        return num_drafts

    def decode(self) -> Speculating:
        for _ in range(50):
            self.step()
        return self

    def run(self, length: int = 4000) -> Speculating:
        """A prompt."""
        self.num_drawn, self.seconds, self.own = [], 0.0, 0.0
        done = 0
        while done < length:
            done += self.step(done, length - done)
        return self


HABITS = {
    "none guess": [(0, 0)] * 4,
    "all guess, and rightly": [(1, 1)] * 4,
    "all guess at times": [(0.6, 0.8)] * 4,
    "wrongly": [(0.5, 0.1)] * 4,
    "one of four": [(1, 0.9), (0, 0), (0, 0), (0, 0)],
    "two of two, unlike": [(0.9, 0.9), (0.2, 0.5)],
    "one alone, seven at once": [(0.5, 0.9)],
    "too many": [(1, 1)] * 16,
}


@pytest.mark.parametrize("habits", HABITS.values(), ids=HABITS)
def test_rows_that_guess_wait_less_than_twice_as_long_for_a_token(habits):
    told = Speculating(habits).decode().run()
    assert 1.5 < told.seconds / told.own < 1.9
    assert max(told.ratios) < 2


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("habits", HABITS.values(), ids=HABITS)
def test_so_they_do_on_a_machine_that_others_use(habits, seed):
    told = Speculating(habits, factor=noise(seed), chance=random.Random(seed)).decode().run()
    assert told.seconds / told.own < 2
    assert quantiles(told.ratios, n=20)[-1] < 2.2


@pytest.mark.parametrize("habits", HABITS.values(), ids=HABITS)
def test_a_prompt_beside_rows_that_guess_takes_no_longer(habits):
    """Their steps are longer, and so may chunks be; each step is paid for with more tokens."""
    without = Speculating([(0, 0)] * len(habits)).decode().run()
    assert Speculating(habits).decode().run().seconds < 1.1 * without.seconds


@pytest.mark.parametrize("num_rows", [1, 4])
@pytest.mark.parametrize(("before", "beside"), [((0, 0), (1, 1)), ((1, 1), (0, 0))])
def test_rows_that_change_their_habits_when_the_prompt_comes(num_rows, before, beside):
    """What a guess adds is not known yet, and is found out on the way."""
    told = Speculating([before] * num_rows).decode()
    told.habits = [beside] * num_rows
    told.run()
    assert told.seconds / told.own < 1.8
    assert quantiles(told.ratios, n=20)[-1] < 2
    assert told.seconds < 1.1 * Speculating([(0, 0)] * num_rows).decode().run().seconds


def test_guesses_are_worth_as_much_beside_a_prompt():
    told, without = (Speculating(HABITS[name]).decode().run() for name in list(HABITS)[1::-1])
    assert told.num_drawn[0] / told.seconds > 1.4 * without.num_drawn[0] / without.seconds


def test_where_every_step_has_drafts_they_show_what_decoding_takes():
    pace = Pace()
    for _ in range(5):
        pace.observe(3, 6, [], 0.02)
    assert pace.max_long_tokens(6, 0) == START
    pace.observe(3, 6, [Chunk(START, 0)], 0.02 + 0.001 * START)
    assert pace.max_long_tokens(6, START) == 2 * START


def test_what_a_draft_costs_is_no_fault_of_the_prompts_chunks():
    decoding = Decoding(3)
    for i in range(20):
        decoding.learn(i % 4, 0.01 + 0.001 * (i % 4))
    assert decoding.seconds(0) == pytest.approx(0.01)
    assert decoding.seconds(7) == pytest.approx(0.017)


def test_a_draft_costs_no_more_than_its_part_of_a_step():
    """Whatever a step that was held up says: one without drafts does not last less than nothing."""
    decoding = Decoding(1)
    decoding.learn(1, 0.005)
    decoding.learn(7, 0.5)
    assert 0.002 < decoding.seconds(0) < 0.1


def test_more_rows_than_were_measured_are_measured():
    """A row alone was fast. Sixteen are slower by themselves: no fault of the prompt's chunks."""
    pace = Pace()
    pace.observe(1, 0, [], 0.005)
    pace.observe(16, 0, [Chunk(START, 0)], 0.035)
    assert pace.max_long_tokens(0, START) == 0
    pace.observe(16, 0, [], 0.03)
    assert pace.max_long_tokens(0, START) >= START


def test_short_prompts_in_every_step_do_not_keep_a_long_one_out():
    pace, ran = Pace(), 0
    for _ in range(100):
        num_tokens = pace.max_long_tokens(0, ran)
        chunks = [Chunk(20, 0)] + [Chunk(num_tokens, ran)] * bool(num_tokens)
        pace.observe(3, 0, chunks, 0.05)
        ran += num_tokens
    assert ran >= 90


def test_a_machine_that_slows_down_is_obeyed_within_a_few_steps():
    pace, ratios = decoding(decode=0.04), []
    for step in range(60):
        num_tokens = pace.max_long_tokens(0, 0)
        token = 0.0005 if step < 40 else 0.0015
        pace.observe(3, 0, [Chunk(num_tokens, 0)] if num_tokens else [], 0.04 + num_tokens * token)
        ratios.append(1 + num_tokens * token / 0.04)
    assert max(ratios[:40]) < 1.8
    assert ratios[40] > 2
    assert max(ratios[43:]) < 2


def test_a_clock_that_stands_still_changes_nothing_for_the_worse():
    pace = Pace()
    for _ in range(5):
        pace.observe(0, 0, [Chunk(100, 0)], 0.0)
        pace.observe(4, 0, [], 0.0)
        pace.observe(4, 0, [Chunk(100, 0)], 0.0)
    assert pace.max_long_tokens(0, 0) >= START


def test_costs_are_found_again_and_are_never_below_nothing():
    costs = Costs()
    for start in range(0, 3000, 100):
        chunk = Chunk(1 + start % 7, start)
        costs.learn(chunk.num_tokens, chunk.num_keys, 0.001 * chunk.num_tokens)
        assert costs.seconds(10, 0) == pytest.approx(0.01)
        assert costs.seconds(0, 1000) == pytest.approx(0.0, abs=1e-9)
    for start in range(0, 3000, 100):
        costs.learn(4, 5 * start, -0.002)
        assert costs.seconds(1, 0) >= 0
        assert costs.seconds(0, 1) >= 0
