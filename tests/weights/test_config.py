"""
config.json -> ModelConfig: transformers' own files, both spellings of rope, and refusals that name
the field.
"""

import json
import math

import pytest
import torch
import transformers
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from tests.weights.tiny import tiny_config
from weights.checkpoint import CheckpointError, Rope, UnsupportedCheckpoint
from weights.config import read_config
from weights.fields import Fields


def config_of(family, **changes):
    """As save_pretrained writes it, then changed. None removes a field."""
    raw = json.loads(tiny_config(family).to_json_string(use_diff=False)) | changes
    return {name: value for name, value in raw.items() if value is not None}


def read(raw):
    return read_config(Fields(raw, "config.json"))[1]


LLAMA3 = {
    "rope_type": "llama3",
    "factor": 32.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}


def test_llama_in_its_own_words():
    config = read(config_of("llama"))
    assert (config.family, config.hidden_size, config.num_layers) == ("llama", 64, 2)
    assert (config.num_heads, config.num_kv_heads, config.head_dim) == (4, 2, 16)
    assert config.attention_scale == 0.25
    assert config.layer_types == ("full", "full")
    assert config.ropes == {"full": Rope(10_000.0, 16)}


def test_gpt2_has_learned_positions_and_biases():
    config = read(config_of("gpt2"))
    assert (config.family, config.intermediate_size, config.activation) == (
        "gpt2",
        256,
        "gelu_tanh",
    )
    assert not config.ropes
    assert config.attention_bias
    assert config.mlp_bias


def test_gemma3_has_two_ropes_and_every_sixth_layer_full():
    config = read(config_of("gemma3"))
    assert config.layer_types == ("sliding",) * 5 + ("full", "sliding")
    assert config.ropes == {"full": Rope(1e6, 32), "sliding": Rope(1e4, 32)}
    assert (config.sliding_window, config.embedding_scale) == (8, 8.0)
    assert config.attention_scale == 32**-0.5


@pytest.mark.parametrize("older", ["sliding_window_pattern", "_sliding_window_pattern"])
def test_gemma3_pattern_of_layers_in_its_older_words(older):
    raw = config_of("gemma3", layer_types=None, _sliding_window_pattern=None) | {older: 3}
    assert read(raw).layer_types == ("sliding", "sliding", "full") * 2 + ("sliding",)


def test_gemma3_ropes_in_older_words_scale_the_full_layers_alone():
    older = {
        "rope_theta": 2e6,
        "rope_local_base_freq": 5e3,
        "rope_scaling": {"rope_type": "linear", "factor": 8.0},
    }
    config = read(config_of("gemma3", rope_parameters=None) | older)
    assert config.ropes["sliding"] == Rope(5e3, 32)
    assert config.ropes["full"] == Rope(2e6, 32, (8.0,) * 16)


YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 2048}
SCALINGS = {
    "linear": {"rope_type": "linear", "factor": 4.0},
    "llama3": LLAMA3,
    "yarn": YARN,
    "yarn with betas": YARN | {"beta_fast": 20.0, "beta_slow": 2.0, "truncate": False},
    "yarn with mscale": YARN | {"mscale": 0.7, "mscale_all_dim": 1.2},
    "yarn with its own factor": YARN | {"attention_factor": 0.9},
}


@pytest.mark.parametrize("scaling", SCALINGS.values(), ids=SCALINGS)
@pytest.mark.parametrize("is_new", [True, False])
def test_scaled_frequencies_are_those_of_transformers(scaling, is_new):
    parameters = scaling | {"rope_theta": 500_000.0}
    raw = config_of("llama", head_dim=64, rope_parameters=parameters)
    theirs = transformers.LlamaConfig(**(raw | {"max_position_embeddings": 131_072}))
    if not is_new:
        del raw["rope_parameters"]
        raw |= {"rope_theta": 500_000.0, "rope_scaling": scaling}
    rope = read(raw).ropes["full"]
    expected, scale = ROPE_INIT_FUNCTIONS[scaling["rope_type"]](theirs, "cpu")
    plain = 500_000.0 ** -(torch.arange(0, 64, 2, dtype=torch.float64) / 64)
    ours = plain / torch.tensor(rope.factors, dtype=torch.float64)
    assert torch.allclose(ours.float(), expected, rtol=1e-6, atol=0)
    assert rope.scale == pytest.approx(scale, rel=1e-12)


def test_worked_example_of_llama3s_rule():
    parameters = LLAMA3 | {"rope_theta": (4096 / (2 * math.pi)) ** 2}
    factors = read(config_of("llama", head_dim=4, rope_parameters=parameters)).ropes["full"].factors
    assert factors == pytest.approx((1.0, 1 / ((2 / 3) / 32 + 1 / 3)))


def test_legacy_type_key_of_a_scaling_is_read():
    raw = config_of("llama", rope_parameters=None)
    raw["rope_scaling"] = {"type": "linear", "factor": 2}
    assert read(raw).ropes["full"].factors == (2.0,) * 8


REFUSED = {
    "llama": {
        "model_type": "llama4",
        "hidden_act": "relu2",
        "rope_parameters": {"rope_type": "dynamic", "factor": 2.0},
        "architectures": ["LlamaForSequenceClassification"],
        "quantization_config": {"quant_method": "gptq"},
        "auto_map": {"AutoModelForCausalLM": "modeling.Mine"},
        "is_encoder_decoder": True,
        "partial_rotary_factor": 0.5,
    },
    "gpt2": {
        "activation_function": "mish",
        "scale_attn_by_inverse_layer_idx": True,
        "add_cross_attention": True,
    },
    "gemma3": {
        "attn_logit_softcapping": 50.0,
        "final_logit_softcapping": 30.0,
        "use_bidirectional_attention": True,
        "layer_types": ["chunked_attention"] * 7,
        "rope_parameters": {"rope_type": "default", "rope_theta": 1e4},
    },
}


@pytest.mark.parametrize(
    ("family", "field", "value"),
    [(family, *item) for family, fields in REFUSED.items() for item in fields.items()],
)
def test_setting_this_code_would_get_wrong_is_refused_by_name(family, field, value):
    named = "rope_type" if field == "rope_parameters" else field
    with pytest.raises(UnsupportedCheckpoint, match=named):
        read(config_of(family, **{field: value}))


NUMBERS = [0, -1, 2**63, 10**400, 1.5, "64", True, [64], {}, float("nan"), float("inf")]


@pytest.mark.parametrize("value", NUMBERS, ids=lambda value: repr(value)[:12])
@pytest.mark.parametrize(
    "field",
    ["vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "head_dim"],
)
def test_size_that_is_no_size_is_refused_by_name(field, value):
    with pytest.raises(CheckpointError, match=field) as caught:
        read(config_of("llama", **{field: value}))
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize("value", [0, -1e-6, "1e-6", float("nan"), float("inf"), 10**400, True])
def test_epsilon_that_is_no_number_above_zero_is_refused(value):
    with pytest.raises(CheckpointError, match="rms_norm_eps must be a number above 0"):
        read(config_of("llama", rms_norm_eps=value))


def test_missing_size_is_named():
    with pytest.raises(CheckpointError, match="intermediate_size is missing"):
        read(config_of("llama", intermediate_size=None))


def test_heads_that_do_not_divide_are_refused_with_both_numbers():
    with pytest.raises(CheckpointError, match="4 query heads are not a multiple of 3"):
        read(config_of("llama", num_key_value_heads=3))
    with pytest.raises(CheckpointError, match="hidden size 64 is not a multiple of 5 heads"):
        read(config_of("llama", num_attention_heads=5, head_dim=None, num_key_value_heads=5))


def test_odd_width_cannot_be_rotated():
    with pytest.raises(CheckpointError, match="even width, not 15"):
        read(config_of("llama", head_dim=15))


@pytest.mark.parametrize("value", [5, [], "llama3", {"rope_type": 7}, {"rope_type": ["x"]}])
def test_rope_parameters_of_another_kind_are_refused(value):
    with pytest.raises(CheckpointError, match="rope"):
        read(config_of("llama", rope_parameters=value))


@pytest.mark.parametrize("change", [{"factor": 0}, {"high_freq_factor": 1.0}, {"factor": None}])
def test_scaling_whose_numbers_cannot_be_is_refused(change):
    with pytest.raises(CheckpointError, match="factor"):
        read(config_of("llama", rope_parameters=LLAMA3 | change))
