"""
transformers' model -> GGUF as llama.cpp's converter writes it: tensor names from the gguf package's
own map, and what the converter does to each tensor.

Files that llama.cpp's converter of 2025 made of the same models gave the same logits as these.
"""

import gguf
import numpy as np
from gguf import MODEL_ARCH, quants
from gguf import GGMLQuantizationType as Kind

from tests.weights.tiny import merges_of, tiny_tokenizer

ARCHITECTURES = {
    "bloom": MODEL_ARCH.BLOOM,
    "cohere": MODEL_ARCH.COMMAND_R,
    "cohere2": MODEL_ARCH.COHERE2,
    "falcon": MODEL_ARCH.FALCON,
    "gemma": MODEL_ARCH.GEMMA,
    "gemma2": MODEL_ARCH.GEMMA2,
    "gemma3": MODEL_ARCH.GEMMA3,
    "gpt2": MODEL_ARCH.GPT2,
    "granite": MODEL_ARCH.GRANITE,
    "llama": MODEL_ARCH.LLAMA,
    "mpt": MODEL_ARCH.MPT,
    "olmo": MODEL_ARCH.OLMO,
    "olmo2": MODEL_ARCH.OLMO2,
    "phi3": MODEL_ARCH.PHI3,
    "qwen2": MODEL_ARCH.QWEN2,
    "qwen3": MODEL_ARCH.QWEN3,
    "smollm3": MODEL_ARCH.SMOLLM3,
    "stablelm": MODEL_ARCH.STABLELM,
    "starcoder2": MODEL_ARCH.STARCODER2,
}
PAIRED = {"llama", "smollm3", "granite", "olmo"}  # llama.cpp rotates neighbours
GROUPED = {"bloom", "falcon"}
K_BLOCK_BYTES = {Kind.Q4_K: 144, Kind.Q5_K: 176, Kind.Q6_K: 210}
SCALES_AT = {Kind.Q4_K: (0, 2), Kind.Q5_K: (0, 2), Kind.Q6_K: (208,)}  # float16, in a block


def convert(family, model, path, kind_of=lambda name: Kind.F32):
    """
    -> state dict of the model that the file holds: `kind_of(name)` rounds each matrix, K-quants
    are random. The file's tokenizer is tests/weights/tiny.py's.
    """
    config, layers = model.config, _layers(model.config)
    writer = gguf.GGUFWriter(path, gguf.MODEL_ARCH_NAMES[ARCHITECTURES[family]])
    _write_metadata(writer, family, config)
    _write_tokenizer(writer)
    names = gguf.get_tensor_name_map(ARCHITECTURES[family], layers)
    held = {}
    for name, array in _stacked(model.state_dict()):
        if name == "lm_head.weight":
            continue
        changed, restore = _changed(family, config, name, array)
        is_matrix = changed.ndim > 1 and name.endswith("weight") and "norm" not in name
        kind = kind_of(name) if is_matrix else Kind.F32
        data, values = _stored(np.ascontiguousarray(changed), kind)
        known = name.removeprefix("transformer.") if family == "bloom" else name
        found = names.get_name(known, try_suffixes=(".weight", ".bias"))
        writer.add_tensor(found, data, raw_dtype=kind)
        held[name] = restore(values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return held


def _stacked(state):
    """StableLM's norms of queries and keys, a vector a head: a matrix a layer."""
    rows = {}
    for name, tensor in state.items():
        before, stacks, _ = name.partition(".norms.")
        if stacks:
            rows.setdefault(f"{before}.weight", []).append(tensor.float().numpy())
        else:
            yield name, tensor.float().numpy()
    for name, vectors in rows.items():
        yield name, np.stack(vectors)


def _layers(config):
    return config.num_hidden_layers


def _stored(array, kind):
    if kind in K_BLOCK_BYTES:
        data = _random_blocks(array.shape, kind)
    else:
        data = quants.quantize(array, kind)
    return data, quants.dequantize(data, kind).reshape(array.shape)


def _random_blocks(shape, kind):
    """Any bytes are a block, so long as the scales are moderate: values of about 0.1."""
    count = shape[0] * shape[1] // 256
    chance = np.random.default_rng(count)
    blocks = chance.integers(0, 256, (count, K_BLOCK_BYTES[kind]), np.uint8)
    size = 2e-5 if kind is Kind.Q6_K else 1e-4
    for at in SCALES_AT[kind]:
        scales = (chance.uniform(0.5, 1.5, (count, 1)) * size).astype(np.float16)
        blocks[:, at : at + 2] = scales.view(np.uint8)
    return blocks.reshape(shape[0], -1)


def _changed(family, config, name, array):
    """-> the tensor as it is stored, and how to undo that."""
    if family in PAIRED and ".self_attn." in name:
        for part, heads in (
            ("q_proj", config.num_attention_heads),
            ("k_proj", config.num_key_value_heads),
        ):
            if part in name:
                return _reordered(array, _paired(len(array), heads))
    if family in GROUPED and "query_key_value" in name:
        return _reordered(array, _grouped(len(array), family, config))
    if family == "gpt2" and array.ndim == 2 and ".h." in name:
        return array.T, lambda values: values.T
    if family.startswith("gemma") and "norm" in name:
        return array + 1, lambda values: values - 1
    return array, lambda values: values


def _reordered(array, order):
    def restore(values):
        out = np.empty_like(values)
        out[order] = values
        return out

    return array[order], restore


def _paired(rows, heads):
    return np.arange(rows).reshape(heads, 2, -1).swapaxes(1, 2).reshape(-1)


def _grouped(rows, family, config):
    heads = config.num_attention_heads
    dim, groups = config.hidden_size // heads, heads
    if family == "falcon" and config.new_decoder_architecture:
        groups = config.num_kv_heads
    elif family == "falcon":
        groups = 1 if config.multi_query else heads
    places = np.arange(rows).reshape(groups, heads // groups + 2, dim)
    parts = (places[:, :-2], places[:, -2], places[:, -1])
    return np.concatenate([part.reshape(-1) for part in parts])


def _write_metadata(writer, family, config):
    width, heads = config.hidden_size, config.num_attention_heads
    writer.add_block_count(_layers(config))
    writer.add_embedding_length(width)
    writer.add_head_count(heads)
    inner = getattr(config, "intermediate_size", None) or getattr(config, "n_inner", None)
    writer.add_feed_forward_length(inner or 4 * width)
    if family in ("mpt", "bloom"):
        writer.add_context_length(getattr(config, "max_seq_len", 2048))
    else:
        writer.add_context_length(config.max_position_embeddings)
    OWN.get(family, _rotary)(writer, config)


def _rotary(writer, config):
    heads = config.num_attention_heads
    width = getattr(config, "head_dim", None) or config.hidden_size // heads
    writer.add_head_count_kv(config.num_key_value_heads)
    if getattr(config, "head_dim", None):
        writer.add_key_length(width)
        writer.add_value_length(width)
    rope = config.rope_parameters
    rope = rope.get("full_attention", rope)
    writer.add_rope_freq_base(rope["rope_theta"])
    writer.add_rope_dimension_count(int(width * rope.get("partial_rotary_factor", 1.0)))
    if hasattr(config, "rms_norm_eps"):
        writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    for name in ("layer_norm_eps", "norm_epsilon"):
        if hasattr(config, name):
            writer.add_layer_norm_eps(getattr(config, name))
    _write_scaling(writer, rope, width, config.max_position_embeddings)


def _write_scaling(writer, rope, width, context):
    kind = rope.get("rope_type", "default")
    if kind == "yarn":
        writer.add_rope_scaling_type(gguf.RopeScalingType.YARN)
        writer.add_rope_scaling_factor(rope["factor"])
        writer.add_rope_scaling_orig_ctx_len(rope["original_max_position_embeddings"])
    if kind == "llama3":
        writer.add_tensor("rope_freqs.weight", _llama3(rope, width))
    if kind == "longrope":
        writer.add_rope_scaling_orig_ctx_len(rope["original_max_position_embeddings"])
        original = rope["original_max_position_embeddings"]
        writer.add_rope_scaling_attn_factors(
            np.sqrt(1 + np.log(context / original) / np.log(original))
        )
        for name in ("short", "long"):
            factors = np.array(rope[f"{name}_factor"], np.float32)
            writer.add_tensor(f"rope_factors_{name}.weight", factors)


def _llama3(rope, width):
    wave = 2 * np.pi * rope["rope_theta"] ** (np.arange(0, width, 2) / width)
    low, high = rope["low_freq_factor"], rope["high_freq_factor"]
    smooth = (rope["original_max_position_embeddings"] / wave - low) / (high - low)
    smooth = np.clip(smooth, 0, 1)
    return (1 / ((1 - smooth) / rope["factor"] + smooth)).astype(np.float32)


def _gpt2(writer, config):
    writer.add_layer_norm_eps(config.layer_norm_epsilon)


def _bloom(writer, config):
    writer.add_head_count_kv(config.n_head)
    writer.add_layer_norm_eps(config.layer_norm_epsilon)


def _mpt(writer, config):
    writer.add_head_count_kv(config.n_heads)
    writer.add_layer_norm_eps(config.layer_norm_epsilon)
    if config.attn_config.clip_qkv:
        writer.add_clamp_kqv(config.attn_config.clip_qkv)
    writer.add_max_alibi_bias(config.attn_config.alibi_bias_max)


def _falcon(writer, config):
    new = config.new_decoder_architecture
    writer.add_head_count_kv(config.num_kv_heads if new else 1)
    writer.add_layer_norm_eps(config.layer_norm_epsilon)


def _granite(writer, config):
    _rotary(writer, config)
    writer.add_attention_scale(config.attention_multiplier)
    writer.add_embedding_scale(config.embedding_multiplier)
    writer.add_residual_scale(config.residual_multiplier)
    writer.add_logit_scale(config.logits_scaling)


def _cohere(writer, config):
    _rotary(writer, config)
    writer.add_logit_scale(config.logit_scale)
    writer.add_rope_scaling_type(gguf.RopeScalingType.NONE)


def _sliding(writer, config):
    _rotary(writer, config)
    if config.sliding_window:
        writer.add_sliding_window(config.sliding_window)


def _cohere2(writer, config):
    _cohere(writer, config)
    writer.add_sliding_window(config.sliding_window)


def _gemma2(writer, config):
    _sliding(writer, config)
    writer.add_attn_logit_softcapping(config.attn_logit_softcapping)
    writer.add_final_logit_softcapping(config.final_logit_softcapping)


def _olmo(writer, config):
    _rotary(writer, config)
    writer.add_layer_norm_eps(1e-5)
    if config.clip_qkv:
        writer.add_clamp_kqv(config.clip_qkv)


OWN = {
    "bloom": _bloom,
    "cohere": _cohere,
    "cohere2": _cohere2,
    "falcon": _falcon,
    "gemma2": _gemma2,
    "gemma3": _sliding,
    "gpt2": _gpt2,
    "granite": _granite,
    "mpt": _mpt,
    "olmo": _olmo,
    "phi3": _sliding,
}


def _write_tokenizer(writer):
    tokenizer = tiny_tokenizer()
    tokens = [tokenizer.id_to_token(i) for i in range(tokenizer.get_vocab_size())]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list(tokens)
    writer.add_token_types(
        [gguf.TokenType.CONTROL] * 3 + [gguf.TokenType.NORMAL] * (len(tokens) - 3)
    )
    writer.add_token_merges(merges_of(tokenizer))
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
