"""
From a name to a model that can be served: the heavy imports, and the one place that knows all three
folders.

It is imported by the thread that loads, so that the port answers before torch is there.
"""

from __future__ import annotations

import logging
import math
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from model.huge_pages import make_resident, use_huge_pages
from model.kernels import InputBits, choose
from model.kv_pool import PAGE_SIZE, KVPool, num_bytes_per_token
from model.large_blocks import give_back_free_memory, give_back_large_blocks
from model.precision import told
from model.rounding import write_tensors
from model.runner import Runner, build_runner, build_transformer
from model.step import Row, Sampling
from server.api.service import ServedModel, SpecialIds
from server.constrain.masks import Grammars
from server.engine.engine import Engine
from server.kv_budget import choose_num_pages
from server.lifecycle import CannotLoad
from server.machine import available_memory
from server.metrics import Metrics
from server.settings import Settings
from server.text.chat import ChatTemplate
from server.text.detokenize import Detokenizer
from server.text.tokenizer import TextTokenizer
from weights.catalog import resolve
from weights.checkpoint import Checkpoint, CheckpointError, Rounded
from weights.inspect import parameters
from weights.load import load
from weights.new_folder import check_target, new_folder
from weights.rope import for_context

log = logging.getLogger(__name__)


def load_model(settings: Settings, metrics: Metrics) -> ServedModel:
    """Raises CannotLoad."""
    try:
        checkpoint = load_named(settings.model)
        config = for_context(checkpoint.config, settings.max_context)
        checkpoint = replace(checkpoint, config=config)
        return serve_checkpoint(checkpoint, settings, metrics)
    except CheckpointError as error:
        raise CannotLoad(str(error)) from None
    except MemoryError:
        raise CannotLoad(f"there is not enough memory for {settings.model}") from None


def load_named(name: str) -> Checkpoint:
    """A hub's snapshot folder is called by a hash: what the user typed is the better name."""
    return load(resolve(name), None if Path(name).exists() else name)


def serve_checkpoint(checkpoint: Checkpoint, settings: Settings, metrics: Metrics) -> ServedModel:
    config, context = checkpoint.config, context_length(settings, checkpoint)
    give_back_large_blocks()
    bits: InputBits = 8 if settings.mlp_input_bits == "8" else 16
    kernels = choose(settings.threads)
    transformer = build_transformer(checkpoint, settings.precision, kernels, bits)
    num_pages = choose_num_pages(
        settings,
        context=context,
        bytes_per_token=num_bytes_per_token(config),
        available=available_memory(),
    )
    runner = Runner(transformer, KVPool(config, num_pages))
    kv_tokens = num_pages * PAGE_SIZE
    tokenizer = TextTokenizer(checkpoint.tokenizer, config.vocab_size)
    tokenizer.max_token_bytes  # noqa: B018  computed now, not within a request
    give_back_free_memory()
    threading.Thread(target=_settle_memory, args=(runner,), daemon=True).start()
    special = checkpoint.special
    return ServedModel(
        name=settings.model_name or checkpoint.name,
        family=config.family,
        num_parameters=parameters(checkpoint),
        vocab_size=config.vocab_size,
        context_length=min(context, kv_tokens),
        precision=told(settings.precision, checkpoint, bits),
        kernels=runner.kernels,
        sha256=checkpoint.sha256,
        parameter_bytes=sum(runner.transformer.storages().values()),
        embedding_bytes=runner.transformer.embedding.num_bytes,
        shares_storage=True,  # TiedEmbedding looks up and projects with its one table
        kv_cache_tokens=kv_tokens,
        kv_cache_memory=kv_tokens * num_bytes_per_token(config),
        special=SpecialIds(
            bos=special.bos_id,
            eos=special.eos_id,
            pad=special.pad_id,
            unk=special.unk_id,
            stops=special.stop_ids,
            adds_bos=special.adds_bos,
        ),
        chat_template=checkpoint.chat_template,
        chat=chat_of(checkpoint, tokenizer),
        tokenizer=tokenizer,
        grammars=Grammars(tokenizer, special.stop_ids),
        engine=Engine(
            runner,
            max_batch=settings.max_batch,
            max_batch_tokens=settings.max_batch_tokens,
            max_queue=settings.max_queue,
            speculates=settings.speculation == "auto",
            metrics=metrics,
        ),
    )


def _settle_memory(runner: Runner) -> None:
    """By the side: steps are right before it ends, and only slower."""
    make_resident(runner.pool.beginnings())
    storages = runner.transformer.storages()
    num_bytes = use_huge_pages(storages)
    log.info(
        "huge pages hold %d of %d MB of weights",
        *(each // 1_000_000 for each in (num_bytes, sum(storages.values()))),
    )


def chat_of(checkpoint: Checkpoint, tokenizer: TextTokenizer) -> ChatTemplate | None:
    """The names that templates expect hold the special tokens as text."""
    if checkpoint.chat_template is None:
        return None
    special = checkpoint.special
    ids = {"bos": special.bos_id, "eos": special.eos_id, "pad": special.pad_id}
    names = {f"{k}_token": tokenizer.token_text(i) for k, i in ids.items() if i is not None}
    return ChatTemplate(checkpoint.chat_template, names, tokenizer)


def context_length(settings: Settings, checkpoint: Checkpoint) -> int:
    models = checkpoint.config.max_position_embeddings
    if settings.max_context is not None and settings.max_context > models:
        raise CannotLoad(
            f"--max-context is {settings.max_context}; {checkpoint.name} was made for at most "
            f"{models} tokens"
        )
    return settings.max_context or models


def quantize_named(name: str, target: Path, precision: Rounded) -> None:
    """
    Writes `target`, whole or not at all, one tensor in memory at a time; progress goes to standard
    error. Raises CheckpointError.
    """
    check_target(target)
    checkpoint = load_named(name)
    with new_folder(checkpoint, precision, target) as file:
        write_tensors(checkpoint, precision, file.add)


def continue_prompt(name: str, prompt: str, max_tokens: int) -> Iterator[str]:
    """
    The most likely continuation, a token at a time, without a server.

    Raises CheckpointError, and ValueError for a prompt that does not fit.
    """
    checkpoint = load_named(name)
    tokenizer = TextTokenizer(checkpoint.tokenizer, checkpoint.config.vocab_size)
    ids = tokenizer.encode(prompt, add_special_tokens=True, parse_special=True)
    if not ids:
        if checkpoint.special.bos_id is None:
            raise ValueError("the prompt is empty, and this model has no BOS token to start from")
        ids = [checkpoint.special.bos_id]
    limit = checkpoint.config.max_position_embeddings
    if len(ids) > limit:
        raise ValueError(f"the prompt is {len(ids)} tokens; the context is {limit}")
    max_tokens = min(max_tokens, limit - len(ids))
    num_pages = math.ceil((len(ids) + max_tokens) / PAGE_SIZE)
    runner = build_runner(checkpoint, num_pages=num_pages)
    detokenizer = Detokenizer()
    for token in greedy(runner, ids, max_tokens):
        if token in checkpoint.special.stop_ids:
            break
        yield detokenizer.push(tokenizer.visible_bytes(token))
    yield detokenizer.finish()


def greedy(runner: Runner, prompt: list[int], max_tokens: int) -> Iterator[int]:
    """One row a step over pages in order: the whole of scheduling for one sequence."""
    new, start = prompt, 0
    for _ in range(max_tokens):
        pages = range(math.ceil((start + len(new)) / PAGE_SIZE))
        [sampled] = runner.step([Row(new, start, pages, Sampling(temperature=0.0))])
        token = sampled.drawn[0].token
        yield token
        start, new = start + len(new), [token]
