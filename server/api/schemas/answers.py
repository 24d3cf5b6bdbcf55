"""
What the routes answer, as the OpenAPI document tells it. Answers are built as plain dictionaries.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict


class Answer(BaseModel):
    """Read for its schema alone."""

    model_config = ConfigDict(protected_namespaces=())


class ErrorDetail(Answer):
    message: str
    type: str
    param: str | None
    code: str | None


class ErrorBody(Answer):
    error: ErrorDetail


class Token(Answer):
    id: int
    text: str
    bytes: list[int]
    logprob: float | None


class Alternative(Token):
    rank: int


class GeneratedToken(Token):
    offset: int
    top: list[Alternative]


class PromptToken(Token):
    top: list[Alternative]


class Choice(Answer):
    index: int
    text: str
    token_ids: list[int]
    finish_reason: Literal["stop", "length"] | None
    stop_reason: str | int | None
    tokens: list[GeneratedToken] | None = None


class ScoredPrompt(Answer):
    token_ids: list[int]
    tokens: list[PromptToken]


class Usage(Answer):
    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    cached_tokens: int


class TimingsMs(Answer):
    queue_ms: float
    prefill_ms: float
    decode_ms: float
    tokens_per_second: float


class Computed(Answer):
    precision: str
    logits_dtype: str
    logprobs_mode: Literal["raw", "processed"]
    cached_tokens: int
    model_sha256: str
    deterministic: bool


class Generation(Answer):
    id: str
    object: Literal["generation"]
    created: int
    model: str
    choices: list[Choice]
    prompts: list[ScoredPrompt] | None = None
    usage: Usage
    timings: TimingsMs
    computed: Computed


class TokenProbability(Alternative):
    probability: float
    logit: float


class EncodedDistribution(Answer):
    dtype: Literal["float32"]
    encoding: Literal["base64"]
    shape: list[int]
    data: str


class Distribution(Answer):
    index: int
    prompt_tokens: int
    top: list[TokenProbability]
    selected: list[TokenProbability]
    entropy: float
    logsumexp: float
    top_mass: float
    distribution: list[float] | EncodedDistribution | None = None


class NextTokenProbabilities(Answer):
    id: str
    object: Literal["next_token_probabilities"]
    model: str
    results: list[Distribution]
    usage: Usage
    computed: Computed


class ScoredContinuation(Answer):
    index: int
    text: str
    token_ids: list[int]
    token_logprobs: list[float]
    logprob: float
    mean_logprob: float
    logprob_per_byte: float | None
    is_greedy: bool
    baseline_logprob: float | None = None
    score: float
    probability: float


class ContinuedPrompt(Answer):
    index: int
    context_token_ids: list[int]
    continuations: list[ScoredContinuation]
    label_mass: float
    best: int


class Scores(Answer):
    id: str
    object: Literal["score"]
    model: str
    results: list[ContinuedPrompt]
    usage: Usage
    computed: Computed


class SurprisalToken(Answer):
    id: int
    text: str
    start: int
    end: int
    surprisal: float | None
    rank: int | None
    entropy: float | None


class SurprisalWord(Answer):
    text: str
    start: int
    end: int
    surprisal: float | None
    uncorrected: float | None
    first_token: int
    num_tokens: int


class SurprisalTotals(Answer):
    tokens: int
    scored_tokens: int
    words: int
    characters: int
    bytes: int
    surprisal: float
    perplexity: float | None
    bits_per_byte: float | None
    bits_per_character: float | None


class TextSurprisal(Answer):
    index: int
    bos: bool
    tokens: list[SurprisalToken]
    words: list[SurprisalWord] | None
    totals: SurprisalTotals


class Surprisals(Answer):
    id: str
    object: Literal["surprisal"]
    model: str
    unit: Literal["bits", "nats"]
    results: list[TextSurprisal]
    usage: Usage
    computed: Computed


class TokenPiece(Answer):
    id: int
    text: str
    bytes: list[int]
    start: int
    end: int


class Tokenized(Answer):
    tokens: list[int]
    count: int
    pieces: list[TokenPiece]
    max_model_len: int


class Detokenized(Answer):
    prompt: str


class TokenizerInfo(Answer):
    bos_token: str | None
    eos_token: str | None
    pad_token: str | None
    unk_token: str | None
    bos_token_id: int | None
    eos_token_id: int | None
    pad_token_id: int | None
    unk_token_id: int | None
    stop_token_ids: list[int]
    adds_bos: bool
    vocab_size: int
    chat_template: str | None


class TieFacts(Answer):
    tied: bool
    embedding_bytes: int
    shares_storage: bool


class Props(Answer):
    model: str
    family: str
    parameters: int
    parameter_bytes: int
    vocab_size: int
    context_length: int
    precision: str
    kernels: str
    model_sha256: str
    tie: TieFacts
    limits: dict[str, Any]


class Status(Answer):
    status: str


class Version(Answer):
    name: str
    version: str
