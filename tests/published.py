"""
A model of each family as published: the fields of its config that decide sizes, and how many
parameters its files hold when the tied matrix is there once. docs/tying.md tells what tying saves.
"""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Published:
    name: str
    parameters: int
    config: dict[str, Any]


def decoder(kind, vocab, width, inner, layers, heads, kv_heads, **more):
    return {
        "model_type": kind,
        "vocab_size": vocab,
        "hidden_size": width,
        "intermediate_size": inner,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
    } | more


GPT = {"n_embd": 768, "n_layer": 12, "n_head": 12}
GPT_NEO = {"hidden_size": 768, "num_layers": 12, "num_heads": 12}
OPT = {"model_type": "opt", "vocab_size": 50272, "max_position_embeddings": 2048}

PUBLISHED = (
    Published(
        "GPT (2018)",
        116_534_784,
        {"model_type": "openai-gpt", "vocab_size": 40478, "n_positions": 512, **GPT},
    ),
    Published(
        "GPT-2",
        124_439_808,
        {"model_type": "gpt2", "vocab_size": 50257, "n_positions": 1024, **GPT},
    ),
    Published(
        "GPT-Neo 125M",
        125_198_592,
        {
            "model_type": "gpt_neo",
            "vocab_size": 50257,
            "attention_types": [[["global", "local"], 6]],
            **GPT_NEO,
        },
    ),
    Published(
        "OPT 125M",
        125_239_296,
        {"hidden_size": 768, "ffn_dim": 3072, "num_hidden_layers": 12, "num_attention_heads": 12}
        | OPT,
    ),
    Published(
        "OPT 350M",
        331_196_416,
        {
            "hidden_size": 1024,
            "ffn_dim": 4096,
            "num_hidden_layers": 24,
            "num_attention_heads": 16,
            "word_embed_proj_dim": 512,
            "do_layer_norm_before": False,
        }
        | OPT,
    ),
    Published(
        "BLOOM 560M",
        559_214_592,
        {
            "model_type": "bloom",
            "vocab_size": 250_880,
            "hidden_size": 1024,
            "n_layer": 24,
            "n_head": 16,
        },
    ),
    Published("SmolLM2 135M", 134_515_008, decoder("llama", 49_152, 576, 1536, 30, 9, 3)),
    Published("Llama 3.2 1B", 1_235_814_400, decoder("llama", 128_256, 2048, 8192, 16, 32, 8)),
    Published("SmolLM3 3B", 3_075_098_624, decoder("smollm3", 128_256, 2048, 11008, 36, 16, 4)),
    Published("Qwen2.5 0.5B", 494_032_768, decoder("qwen2", 151_936, 896, 4864, 24, 14, 2)),
    Published("Qwen3 0.6B", 596_049_920, decoder("qwen3", 151_936, 1024, 3072, 28, 16, 8)),
    Published(
        "Gemma 2B", 2_506_172_416, decoder("gemma", 256_000, 2048, 16384, 18, 8, 1, head_dim=256)
    ),
    Published(
        "Gemma 2 2B", 2_614_341_888, decoder("gemma2", 256_000, 2304, 9216, 26, 8, 4, head_dim=256)
    ),
    Published(
        "Gemma 3 270M",
        268_098_176,
        decoder("gemma3_text", 262_144, 640, 2048, 18, 4, 1, head_dim=256, sliding_window=512),
    ),
    Published(
        "Phi-4-mini",
        3_836_021_760,
        decoder(
            "phi3",
            200_064,
            3072,
            8192,
            32,
            24,
            8,
            max_position_embeddings=131_072,
            partial_rotary_factor=0.75,
        ),
    ),
    Published("Granite 3.1 2B", 2_533_531_648, decoder("granite", 49_155, 2048, 8192, 40, 32, 8)),
    Published("OLMo 1B", 1_176_764_416, decoder("olmo", 50_304, 2048, 8192, 16, 16, 16)),
    Published(
        "StarCoder 2 3B", 3_030_371_328, decoder("starcoder2", 49_152, 3072, 12288, 30, 24, 2)
    ),
    Published("Command R", 34_980_831_232, decoder("cohere", 256_000, 8192, 22528, 40, 64, 64)),
    Published("Command R7B", 8_028_033_024, decoder("cohere2", 256_000, 4096, 14336, 32, 32, 8)),
    Published(
        "MPT 7B",
        6_649_286_656,
        {"model_type": "mpt", "vocab_size": 50432, "d_model": 4096, "n_layers": 32, "n_heads": 32},
    ),
    Published(
        "Falcon 7B, if tied",
        6_921_720_704,
        {
            "model_type": "falcon",
            "vocab_size": 65024,
            "hidden_size": 4544,
            "num_hidden_layers": 32,
            "num_attention_heads": 71,
            "multi_query": True,
        },
    ),
)
