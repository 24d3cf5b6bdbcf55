"""
Canonical tensor name -> (GGUF name, what llama.cpp's converter does to it): the inverse of what
weights/ undoes.
"""


def same(array, config):
    return array


def plus_one(array, config):
    return array + 1


def transposed(array, config):
    return array.T


def paired(array, num_heads):
    """Rotary halves (0, D/2) of a head become neighbours (0, 1)."""
    halves = array.reshape(num_heads, 2, array.shape[0] // num_heads // 2, *array.shape[1:])
    return halves.swapaxes(1, 2).reshape(array.shape)


def paired_q(array, config):
    return paired(array, config.num_attention_heads)


def paired_k(array, config):
    return paired(array, config.num_key_value_heads)


LAYER, BLOCK = "model.layers.{}.", "blk.{}."
MLP = {
    LAYER + "mlp.gate_proj.weight": (BLOCK + "ffn_gate.weight", same),
    LAYER + "mlp.up_proj.weight": (BLOCK + "ffn_up.weight", same),
    LAYER + "mlp.down_proj.weight": (BLOCK + "ffn_down.weight", same),
}
LLAMA = MLP | {
    "model.embed_tokens.weight": ("token_embd.weight", same),
    "model.norm.weight": ("output_norm.weight", same),
    LAYER + "input_layernorm.weight": (BLOCK + "attn_norm.weight", same),
    LAYER + "post_attention_layernorm.weight": (BLOCK + "ffn_norm.weight", same),
    LAYER + "self_attn.q_proj.weight": (BLOCK + "attn_q.weight", paired_q),
    LAYER + "self_attn.k_proj.weight": (BLOCK + "attn_k.weight", paired_k),
    LAYER + "self_attn.v_proj.weight": (BLOCK + "attn_v.weight", same),
    LAYER + "self_attn.o_proj.weight": (BLOCK + "attn_output.weight", same),
    LAYER + "self_attn.q_proj.bias": (BLOCK + "attn_q.bias", paired_q),
    LAYER + "self_attn.k_proj.bias": (BLOCK + "attn_k.bias", paired_k),
    LAYER + "self_attn.v_proj.bias": (BLOCK + "attn_v.bias", same),
    LAYER + "self_attn.o_proj.bias": (BLOCK + "attn_output.bias", same),
}
GEMMA3 = MLP | {
    "model.embed_tokens.weight": ("token_embd.weight", same),
    "model.norm.weight": ("output_norm.weight", plus_one),
    LAYER + "input_layernorm.weight": (BLOCK + "attn_norm.weight", plus_one),
    LAYER + "post_attention_layernorm.weight": (BLOCK + "post_attention_norm.weight", plus_one),
    LAYER + "pre_feedforward_layernorm.weight": (BLOCK + "ffn_norm.weight", plus_one),
    LAYER + "post_feedforward_layernorm.weight": (BLOCK + "post_ffw_norm.weight", plus_one),
    LAYER + "self_attn.q_norm.weight": (BLOCK + "attn_q_norm.weight", plus_one),
    LAYER + "self_attn.k_norm.weight": (BLOCK + "attn_k_norm.weight", plus_one),
    LAYER + "self_attn.q_proj.weight": (BLOCK + "attn_q.weight", same),
    LAYER + "self_attn.k_proj.weight": (BLOCK + "attn_k.weight", same),
    LAYER + "self_attn.v_proj.weight": (BLOCK + "attn_v.weight", same),
    LAYER + "self_attn.o_proj.weight": (BLOCK + "attn_output.weight", same),
}
H = "transformer.h.{}."
GPT2 = {
    "transformer.wte.weight": ("token_embd.weight", same),
    "transformer.wpe.weight": ("position_embd.weight", same),
    "transformer.ln_f.weight": ("output_norm.weight", same),
    "transformer.ln_f.bias": ("output_norm.bias", same),
}
for ours, theirs in {"ln_1": "attn_norm", "ln_2": "ffn_norm"}.items():
    for part in ("weight", "bias"):
        GPT2[f"{H}{ours}.{part}"] = (f"{BLOCK}{theirs}.{part}", same)
for ours, theirs in {
    "attn.c_attn": "attn_qkv",
    "attn.c_proj": "attn_output",
    "mlp.c_fc": "ffn_up",
    "mlp.c_proj": "ffn_down",
}.items():
    GPT2[f"{H}{ours}.weight"] = (f"{BLOCK}{theirs}.weight", transposed)
    GPT2[f"{H}{ours}.bias"] = (f"{BLOCK}{theirs}.bias", same)

GGUF_NAMES = {"llama": LLAMA, "gemma3": GEMMA3, "gpt2": GPT2}
