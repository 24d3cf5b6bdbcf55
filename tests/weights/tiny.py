"""
Tiny checkpoints for every test: random weights written by transformers itself, and the same weights
as GGUF.

`tiny_hf(folder, family, seed)` and `tiny_gguf(path, family, seed)` with equal arguments hold the
same model and tokenizer.
"""

import json
from functools import cache
from pathlib import Path

import gguf
import numpy as np
import torch
import transformers
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from tests.weights.tiny_names import GGUF_NAMES

VOCAB_SIZE, CONTEXT = 512, 128
SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
EOS, BOS = 2, 1
TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
TEXT = [
    "The quick brown fox jumps over the lazy dog, and the dog does not mind at all.",
    "def tokens(text):\n    return [token for token in text.split() if token]\n",
    "In 1984 there were 365 days; 2024 had 366. Schöne Grüße, 東京 and مرحبا 🙂!",
    "It's what they'll say: we've been here before, haven't we? I'd think so.",
]

COMMON = {"vocab_size": VOCAB_SIZE, "bos_token_id": BOS, "eos_token_id": EOS, "pad_token_id": 0}
GATED = COMMON | {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": CONTEXT,
    "tie_word_embeddings": True,
}
CONFIGS = {
    "llama": (transformers.LlamaConfig, GATED),
    "gpt2": (
        transformers.GPT2Config,
        COMMON | {"n_embd": 64, "n_layer": 2, "n_head": 4, "n_positions": CONTEXT},
    ),
    "gemma3": (
        transformers.Gemma3TextConfig,
        GATED
        | {
            "num_hidden_layers": 7,  # the sixth sees everything, the others a window
            "head_dim": 32,
            "sliding_window": 8,
            "query_pre_attn_scalar": 32,
        },
    ),
}


def tiny_config(family="llama", **overrides):
    kind, fields = CONFIGS[family]
    return kind(**(fields | overrides))


def tiny_model(family="llama", seed=0, dtype=torch.float32, **overrides):
    """
    Weights wide enough that distributions are far from uniform, norms and biases away from their
    defaults.
    """
    config = tiny_config(family, **overrides)
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(seed)
        model = transformers.AutoModelForCausalLM.from_config(config).eval()
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape) * 0.1)
    return model.to(dtype)


@cache
def tiny_tokenizer_json():
    """
    Byte-level BPE: three special tokens, 256 bytes, 150 merges; digits split as SmolLM does.

    It has fewer tokens than the embedding has rows, as real ones do that are padded.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCAB_SIZE,
        special_tokens=[AddedToken(text, special=True, normalized=False) for text in SPECIAL],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(TEXT * 2, trainer)
    return tokenizer.to_str()


def tiny_tokenizer():
    return Tokenizer.from_str(tiny_tokenizer_json())


def tiny_hf(folder: Path, family="llama", seed=0, dtype=torch.float32, **overrides) -> Path:
    """A folder as save_pretrained leaves it. `overrides` are config fields."""
    model = tiny_model(family, seed, dtype, **overrides)
    model.save_pretrained(folder)
    PreTrainedTokenizerFast(
        tokenizer_object=tiny_tokenizer(),
        bos_token=SPECIAL[BOS],
        eos_token=SPECIAL[EOS],
        unk_token=SPECIAL[0],
        pad_token=SPECIAL[0],
        chat_template=TEMPLATE,
    ).save_pretrained(folder)
    return folder


def tiny_gguf(
    path: Path,
    family="llama",
    seed=0,
    kind="F32",
    tensors=None,
    metadata=None,
    **overrides,
) -> Path:
    """
    The same model as one file; matrices stored as `kind`. `tensors(name, array)` may change or drop
    (None) a tensor, `metadata(writer)` may add entries.
    """
    model = tiny_model(family, seed, **overrides)
    writer = gguf.GGUFWriter(path, family)
    writer.add_name(f"tiny {family}")
    write_hyperparameters(writer, family, model.config)
    write_tokenizer(writer)
    if metadata is not None:
        metadata(writer)
    for name, array in gguf_tensors(family, model):
        changed = array if tensors is None else tensors(name, array)
        if changed is not None:
            write_tensor(writer, name, changed, kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def write_tensor(writer, name, array, kind):
    stored = gguf.GGMLQuantizationType[kind if array.ndim > 1 else "F32"]
    array = np.ascontiguousarray(array)
    if (
        stored == gguf.GGMLQuantizationType.F64
    ):  # the package writes these, and does not convert to them
        data = array.astype(np.float64)
    else:
        data = gguf.quants.quantize(array, stored)
    writer.add_tensor(name, data, raw_dtype=stored)


def write_hyperparameters(writer, family, config):
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_head_count(config.num_attention_heads)
    if family == "gpt2":
        writer.add_feed_forward_length(4 * config.hidden_size)
        writer.add_layer_norm_eps(config.layer_norm_epsilon)
        return
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    if family == "gemma3":
        writer.add_key_length(config.head_dim)
        writer.add_value_length(config.head_dim)
        writer.add_sliding_window(config.sliding_window)
        writer.add_rope_freq_base(config.rope_parameters["full_attention"]["rope_theta"])
    else:
        writer.add_rope_dimension_count(config.head_dim)
        writer.add_rope_freq_base(config.rope_parameters["rope_theta"])


def write_tokenizer(writer):
    tokenizer = tiny_tokenizer()
    tokens = [tokenizer.id_to_token(i) for i in range(tokenizer.get_vocab_size())]
    merges = merges_of(tokenizer)
    kinds = [gguf.TokenType.CONTROL] * len(SPECIAL) + [gguf.TokenType.NORMAL] * len(tokens)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list(tokens)
    writer.add_token_types(kinds[: len(tokens)])
    writer.add_token_merges(merges)
    writer.add_bos_token_id(BOS)
    writer.add_eos_token_id(EOS)
    writer.add_unk_token_id(0)
    writer.add_pad_token_id(0)
    writer.add_add_bos_token(False)
    writer.add_chat_template(TEMPLATE)


def merges_of(tokenizer):
    merges = json.loads(tokenizer.to_str())["model"]["merges"]
    return [" ".join(pair) if isinstance(pair, list) else pair for pair in merges]


def gguf_tensors(family, model):
    """(GGUF name, array) as llama.cpp's converter would lay them out."""
    state = {k: v.float().numpy() for k, v in model.state_dict().items() if k != "lm_head.weight"}
    for pattern, (name, change) in GGUF_NAMES[family].items():
        layers = range(model.config.num_hidden_layers) if "{}" in pattern else [None]
        for layer in layers:
            array = state.pop(pattern.format(layer), None)
            if array is not None:
                yield name.format(layer), change(array, model.config)
    assert not state, f"not written: {sorted(state)}"
