"""
A tiny random checkpoint of every family, written by transformers' own class: odd sizes, a context
just over the window, norms and biases away from their neutral values.

docs/families.md is made of the same table.
"""

import math

import torch
import transformers
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

from tests.weights.tiny import tiny_tokenizer

VOCAB_SIZE, CONTEXT, WINDOW = 1003, 256, 150
IDS = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
COMMON = IDS | {"vocab_size": VOCAB_SIZE, "tie_word_embeddings": True}
GATED = COMMON | {
    "hidden_size": 72,
    "intermediate_size": 100,
    "num_hidden_layers": 2,
    "num_attention_heads": 9,
    "num_key_value_heads": 3,
    "max_position_embeddings": CONTEXT,
}
WIDE = GATED | {"head_dim": 24}  # heads wider together than the model
SLIDING = {"num_hidden_layers": 4, "sliding_window": WINDOW}
PLAIN = COMMON | {
    "n_embd": 72,
    "n_layer": 2,
    "n_head": 9,
    "n_positions": CONTEXT,
    "layer_norm_epsilon": 1e-4,
}
FALCON = COMMON | {
    "hidden_size": 72,
    "num_hidden_layers": 2,
    "num_attention_heads": 9,
    "max_position_embeddings": CONTEXT,
    "ffn_hidden_size": 100,
}
LONGROPE = {
    "rope_type": "longrope",
    "rope_theta": 10000.0,
    "partial_rotary_factor": 0.75,
    "short_factor": [1.0, 1.5, 2.0],
    "long_factor": [2.0, 4.0, 8.0],
    "original_max_position_embeddings": CONTEXT,
}
LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 10000.0,
    "factor": 4.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
YARN = {
    "rope_type": "yarn",
    "rope_theta": 10000.0,
    "factor": 4.0,
    "original_max_position_embeddings": 64,
}
OPT = COMMON | {
    "hidden_size": 72,
    "ffn_dim": 100,
    "num_hidden_layers": 2,
    "num_attention_heads": 9,
    "max_position_embeddings": CONTEXT,
}
MPT = COMMON | {"d_model": 72, "n_heads": 9, "n_layers": 2, "max_seq_len": CONTEXT}
STABLELM = GATED | {"partial_rotary_factor": 0.5}

# Name -> config class, fields. A variant is named "family: what is different".
TINY = {
    "llama": ("Llama", WIDE),
    "llama: 3.2's rotary scaling": ("Llama", WIDE | {"rope_parameters": LLAMA3}),
    "llama: YaRN": ("Llama", WIDE | {"rope_parameters": YARN}),
    "llama: biases": ("Llama", GATED | {"attention_bias": True, "mlp_bias": True}),
    "gpt2": ("GPT2", PLAIN),
    "gpt2: narrow MLP, exact GELU": (
        "GPT2",
        PLAIN | {"n_inner": 80, "activation_function": "gelu", "scale_attn_weights": False},
    ),
    "gpt": ("OpenAIGPT", PLAIN),
    "gpt_neo": (
        "GPTNeo",
        COMMON
        | {
            "hidden_size": 72,
            "num_layers": 4,
            "num_heads": 9,
            "attention_types": [[["global", "local"], 2]],
            "window_size": WINDOW,
            "max_position_embeddings": CONTEXT,
            "intermediate_size": 100,
        },
    ),
    "qwen2": ("Qwen2", GATED),
    "qwen2: a window in its upper layers": (
        "Qwen2",
        GATED | SLIDING | {"use_sliding_window": True, "max_window_layers": 2},
    ),
    "qwen3": ("Qwen3", WIDE),
    "qwen3: biases": ("Qwen3", WIDE | {"attention_bias": True}),
    "gemma": ("Gemma", WIDE),
    "gemma2": ("Gemma2", WIDE | SLIDING | {"query_pre_attn_scalar": 20}),
    "gemma2: tight caps": (
        "Gemma2",
        WIDE | SLIDING | {"attn_logit_softcapping": 2.0, "final_logit_softcapping": 1.5},
    ),
    "gemma3": (
        "Gemma3Text",
        WIDE | {"num_hidden_layers": 7, "sliding_window": WINDOW, "query_pre_attn_scalar": 50},
    ),
    "smollm3": ("SmolLM3", GATED | {"num_hidden_layers": 4}),
    "smollm3: layers without positions as listed": (
        "SmolLM3",
        GATED | {"no_rope_layers": [0, 1], "attention_bias": True},
    ),
    "phi3": ("Phi3", GATED | {"sliding_window": WINDOW}),
    "phi3: LongRoPE over a part of a head": (
        "Phi3",
        GATED
        | {
            "max_position_embeddings": 4 * CONTEXT,
            "original_max_position_embeddings": CONTEXT,
            "rope_parameters": LONGROPE,
        },
    ),
    "granite": (
        "Granite",
        GATED
        | {
            "embedding_multiplier": 3.0,
            "logits_scaling": 1.7,
            "residual_multiplier": 0.6,
            "attention_multiplier": 0.21,
        },
    ),
    "olmo": ("Olmo", GATED),
    "olmo: queries, keys and values cut": ("Olmo", GATED | {"clip_qkv": 0.9}),
    "olmo2": ("Olmo2", GATED),
    "starcoder2": ("Starcoder2", GATED | {"sliding_window": WINDOW}),
    "stablelm": ("StableLm", STABLELM),
    "stablelm: parallel, normed heads, biases": (
        "StableLm",
        STABLELM | {"use_parallel_residual": True, "qk_layernorm": True, "use_qkv_bias": True},
    ),
    "cohere": ("Cohere", GATED | {"logit_scale": 0.4}),
    "cohere: normed heads": (
        "Cohere",
        GATED | {"use_qk_norm": True, "attention_bias": True, "logit_scale": 0.5},
    ),
    "cohere2": ("Cohere2", GATED | SLIDING | {"logit_scale": 0.3}),
    "opt": ("OPT", OPT),
    "opt: norms after, projected embedding": (
        "OPT",
        OPT | {"do_layer_norm_before": False, "word_embed_proj_dim": 40},
    ),
    "opt: no biases": ("OPT", OPT | {"enable_bias": False, "activation_function": "gelu"}),
    "bloom": ("Bloom", COMMON | {"hidden_size": 72, "n_layer": 2, "n_head": 9}),
    "mpt": ("Mpt", MPT),
    "mpt: queries, keys and values cut": (
        "Mpt",
        MPT | {"attn_config": {"clip_qkv": 0.9, "softmax_scale": 0.2}},
    ),
    "falcon": ("Falcon", FALCON),
    "falcon: a key-value head for each query head, MLP behind": (
        "Falcon",
        FALCON | {"multi_query": False, "parallel_attn": False, "bias": True},
    ),
    "falcon: ALiBi": (
        "Falcon",
        FALCON | {"alibi": True, "multi_query": False, "parallel_attn": False, "bias": True},
    ),
    "falcon: new decoder": (
        "Falcon",
        FALCON | {"new_decoder_architecture": True, "num_kv_heads": 3},
    ),
    "falcon: new decoder, one norm": (
        "Falcon",
        FALCON
        | {"new_decoder_architecture": True, "num_kv_heads": 3, "num_ln_in_parallel_attn": 1},
    ),
}


# transformers' eager Falcon adds ALiBi twice, to scores and in the mask; its default does not.
ATTENTION = {"falcon: ALiBi": "sdpa"}


def make(variant, seed=0, **overrides):
    """transformers' model in float32, with wide weights and no neutral parameter."""
    kind, fields = TINY[variant]
    config = getattr(transformers, f"{kind}Config")(**(fields | overrides))
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(seed)
        how = ATTENTION.get(variant, "eager")
        model = AutoModelForCausalLM.from_config(config, attn_implementation=how).eval()
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape) * 1.5 / math.sqrt(72))
    return model.to(torch.float32)


def save(model, folder):
    model.save_pretrained(folder)
    PreTrainedTokenizerFast(
        tokenizer_object=tiny_tokenizer(),
        bos_token="<|im_start|>",
        eos_token="<|im_end|>",
        unk_token="<|endoftext|>",
    ).save_pretrained(folder)
    return folder
