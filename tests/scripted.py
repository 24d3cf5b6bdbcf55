"""
A model whose every answer can be told beforehand, for tests of what stands around a model.

It says its prompt again and again: after "abc" it expects "abcabc...". Its tokens are single bytes,
so that every character beyond ASCII is split. Three bytes of a prompt are orders to it.
"""

from __future__ import annotations

import random
import time
from collections.abc import Sequence

import numpy as np
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors

from model.step import Ask, Drawn, Report, Row, Sampled, Score
from server.api.service import ServedModel, SpecialIds
from server.constrain.masks import Grammars
from server.engine.engine import Engine
from server.metrics import Metrics
from server.settings import Settings
from server.text.chat import ChatTemplate
from server.text.tokenizer import BYTE_OF, TextTokenizer

BOS, EOS, MARK = 256, 257, 258
VOCAB_SIZE = 260  # one id more than the tokenizer has, as padded checkpoints do
CONTEXT = 256
FAIL, SLOW, END = "\x01", "\x02", "\x03"  # the step raises; takes 50 ms; an end token is due here
TAME = "tame"  # a MODEL that takes no orders: for whoever sends it any bytes
UNTEMPLATED = "untemplated"  # a MODEL without a chat template
TEMPLATE = (
    "{% for message in messages %}{{ '<mark>' + message.role[0] + message.content }}{% endfor %}"
    "{% if add_generation_prompt %}<mark>{% endif %}"
)
NUM_PAGES, PAGE_SIZE = 256, 16


def byte_tokenizer() -> Tokenizer:
    tokenizer = Tokenizer(models.BPE(vocab=dict(BYTE_OF), merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(["<s>", "</s>", "<mark>"])
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", BOS)]
    )
    return tokenizer


class EchoModel:
    """A Runner. Its distributions are real ones: they sum to one, and hang on the whole context."""

    num_pages, page_size = NUM_PAGES, PAGE_SIZE

    def __init__(self, takes_orders: bool = True) -> None:
        self.takes_orders = takes_orders

    def step(self, rows: Sequence[Row]) -> list[Sampled]:
        seen = [{*row.prompt, *row.tokens} if self.takes_orders else set() for row in rows]
        if any(ord(FAIL) in tokens for tokens in seen):
            raise RuntimeError("told to fail")
        if any(ord(SLOW) in tokens for tokens in seen):
            time.sleep(0.05)  # what a step of a large model costs
        return [answer(row) for row in rows]


def answer(row: Row) -> Sampled:
    known = [*row.prompt, *row.output]
    scored, reports = [], []
    for i, target in enumerate(row.targets):
        logits = logits_after(known[: row.start + row.first_target + i + 1], row.prompt)
        scored.append(score(logits, log_softmax(logits), target))
        if row.targets_ask is not None:
            reports.append(report(logits, log_softmax(logits), row.targets_ask))
    if row.sampling is None:
        logits = logits_after(known, row.prompt)
        said = row.ask and report(logits, log_softmax(logits), row.ask)
        return Sampled((), said, tuple(scored), tuple(reports))
    drawn, drafts = [draw(row, known)], row.tokens[len(row.tokens) - row.num_drafts :]
    for draft in drafts:
        if drawn[-1].token != draft:
            break
        known.append(draft)
        drawn.append(draw(row, known))
    return Sampled(tuple(drawn), None, tuple(scored), tuple(reports))


def draw(row: Row, known: Sequence[int]) -> Drawn:
    sampling, logits = row.sampling, logits_after(known, row.prompt)
    changed = logits.copy()
    for token, bias in sampling.logit_bias:
        changed[token] += np.float32(bias)
    if sampling.allowed_ids is not None:
        kept = np.full_like(changed, -np.inf)
        kept[list(sampling.allowed_ids)] = changed[list(sampling.allowed_ids)]
        changed = kept
    if row.pending is not None:
        bits = np.unpackbits(np.frombuffer(row.pending(), np.uint8), bitorder="little")
        changed[bits[:VOCAB_SIZE] == 0] = -np.inf
    changed[list(row.banned)] = -np.inf
    raw, processed = log_softmax(logits), log_softmax(changed / (sampling.temperature or 1.0))
    token = int(processed.argmax())
    if sampling.temperature > 0:
        chance = random.Random(f"{sampling.seed}/{len(known) - len(row.prompt)}")
        token = chance.choices(range(VOCAB_SIZE), np.exp(processed))[0]
    ask = row.ask
    if ask is None:
        return Drawn(token)
    told = processed if ask.is_processed else raw
    return Drawn(token, score(logits, told, token), report(logits, told, ask))


def logits_after(context: Sequence[int], prompt: Sequence[int]) -> np.ndarray:
    """(V,) float32: 12 for what is due, noise for the rest, and minus infinity for the last id."""
    noise = np.random.default_rng([7, *context]).standard_normal(VOCAB_SIZE).astype(np.float32)
    due = prompt[len(context) % len(prompt)]
    noise[EOS if due == ord(END) else due] = 12.0
    noise[VOCAB_SIZE - 1] = -np.inf
    return noise


def log_softmax(logits: np.ndarray) -> np.ndarray:
    high = logits.max()
    return (logits - high - np.log(np.exp(logits - high).sum())).astype(np.float32)


def score(logits: np.ndarray, logprobs: np.ndarray, token: int) -> Score:
    rank = 1 + int((logprobs > logprobs[token]).sum())
    rank += int((logprobs[:token] == logprobs[token]).sum())
    # The contract has no infinite logit: the padded id's is a large number instead.
    return Score(token, float(logprobs[token]), rank, float(max(logits[token], -1e9)))


def report(logits: np.ndarray, logprobs: np.ndarray, ask: Ask) -> Report:
    order = np.argsort(-logprobs, kind="stable")[: ask.top]
    finite = logprobs[np.isfinite(logprobs)].astype(np.float64)
    return Report(
        top=tuple(score(logits, logprobs, int(token)) for token in order),
        ids=tuple(score(logits, logprobs, token) for token in ask.ids),
        entropy=float(-(np.exp(finite) * finite).sum()) if ask.summary else None,
        logsumexp=float(np.logaddexp.reduce(logits)) if ask.summary else None,
        full=logprobs.astype("<f4").tobytes() if ask.full else None,
        mass=mass(logprobs, ask.members) if ask.members is not None else None,
    )


def mass(logprobs: np.ndarray, members: bytes) -> float:
    bits = np.unpackbits(np.frombuffer(members, np.uint8), bitorder="little")[: len(logprobs)]
    return float(np.logaddexp.reduce(logprobs[bits.astype(bool)].astype(np.float64)))


def scripted_model(settings: Settings, metrics: Metrics) -> ServedModel:
    engine = Engine(
        EchoModel(takes_orders=settings.model != TAME),
        max_batch=settings.max_batch,
        max_batch_tokens=settings.max_batch_tokens,
        max_queue=settings.max_queue,
        speculates=settings.speculation == "auto",
        metrics=metrics,
    )
    tokenizer = TextTokenizer(byte_tokenizer(), VOCAB_SIZE)
    chat = ChatTemplate(TEMPLATE, {"bos_token": "<s>", "eos_token": "</s>"}, tokenizer)
    return ServedModel(
        name=settings.model_name or "echo",
        family="scripted",
        num_parameters=0,
        vocab_size=VOCAB_SIZE,
        context_length=min(settings.max_context or CONTEXT, CONTEXT),
        precision="float32",
        kernels="scripted",
        sha256="0" * 64,
        parameter_bytes=0,
        embedding_bytes=0,
        shares_storage=True,
        kv_cache_tokens=NUM_PAGES * PAGE_SIZE,
        kv_cache_memory=0,
        special=SpecialIds(BOS, EOS, None, None, (EOS,), adds_bos=True),
        chat_template=TEMPLATE,
        chat=None if settings.model == UNTEMPLATED else chat,
        tokenizer=tokenizer,
        grammars=Grammars(tokenizer, (EOS,)),
        engine=engine,
    )
