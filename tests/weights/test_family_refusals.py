"""What a family's config may say that this code does not do is refused by the field's name."""

import pytest

from tests.model.tiny_families import TINY, make
from weights.checkpoint import CheckpointError, UnsupportedCheckpoint
from weights.config import read_config
from weights.families import FAMILIES
from weights.fields import Fields
from weights.rope import for_context

ROPE = {"rope_type": "dynamic", "rope_theta": 10000.0, "factor": 2.0}
ROTARY = (
    *("llama", "qwen2", "qwen3", "gemma", "gemma2", "smollm3", "phi3", "granite", "olmo", "olmo2"),
    *("starcoder2", "stablelm", "cohere", "cohere2", "falcon"),
)
ACTIVATION = {
    "gpt": "afn",
    "gpt_neo": "activation_function",
    "opt": "activation_function",
    "gemma2": "hidden_activation",
    "falcon": "activation",
}
REFUSED = {
    "qwen2": {"layer_types": ["chunked_attention"] * 2, "use_sliding_window": True},
    "gemma": {"use_bidirectional_attention": True},
    "gemma2": {"use_bidirectional_attention": True, "layer_types": ["linear_attention"] * 4},
    "smollm3": {"use_sliding_window": True},
    "starcoder2": {"mlp_type": "gated", "norm_type": "rms_norm"},
    "cohere2": {"use_qk_norm": True, "use_parallel_block": False},
    "gpt": {"n_inner": 80},
    "gpt_neo": {"attention_types": [[["global", "strided"], 2]]},
    "opt": {"layer_norm_elementwise_affine": False, "_remove_final_layer_norm": True},
    "bloom": {"apply_residual_connection_post_layernorm": True},
    "mpt": {"logit_scale": 2.0, "no_bias": False, "norm_type": "rmsnorm", "expansion_ratio": 2},
}
MPT_ATTENTION = {
    "alibi": False,
    "prefix_lm": True,
    "qk_ln": True,
    "attn_type": "multiquery_attention",
}


def raw(family, **changes):
    return make(family).config.to_dict() | {"architectures": None} | changes


def read(family, **changes):
    return read_config(Fields(raw(family, **changes), "config.json"))


@pytest.mark.parametrize(
    ("family", "field", "value"),
    [
        (family, field, value)
        for family, fields in REFUSED.items()
        for field, value in fields.items()
        if not (family == "qwen2" and field == "use_sliding_window")
    ],
)
def test_a_setting_the_code_does_not_do_is_refused_by_its_name(family, field, value):
    extra = {"use_sliding_window": True} if family == "qwen2" else {}
    with pytest.raises(UnsupportedCheckpoint, match=field):
        read(family, **{field: value}, **extra)


@pytest.mark.parametrize("field", MPT_ATTENTION)
def test_mpts_variants_of_attention_are_refused_by_name(field):
    attention = make("mpt").config.to_dict()["attn_config"] | {field: MPT_ATTENTION[field]}
    with pytest.raises(UnsupportedCheckpoint, match=field):
        read("mpt", attn_config=attention)


@pytest.mark.parametrize("family", ROTARY)
def test_unknown_rotary_scaling_is_refused_by_name(family):
    with pytest.raises(UnsupportedCheckpoint, match="rope_type is 'dynamic'"):
        read(family, rope_parameters=ROPE)


NAMES = [name for name in TINY if ":" not in name]


# BLOOM and MPT have one activation, in their code.
@pytest.mark.parametrize("family", [name for name in NAMES if name not in ("bloom", "mpt")])
def test_unknown_activation_is_refused_by_name(family):
    field = ACTIVATION.get(family, "hidden_act")
    field = {"gpt2": "activation_function", "gemma3": "hidden_activation"}.get(family, field)
    with pytest.raises(UnsupportedCheckpoint, match=f"{field} is 'mish'"):
        read(family, **{field: "mish"})


@pytest.mark.parametrize("family", [family.name for family in FAMILIES])
def test_a_classifier_of_the_family_does_not_pass_for_tied(family):
    with pytest.raises(UnsupportedCheckpoint, match="architectures is"):
        read(family, architectures=["SomeForSequenceClassification"])


COUNTS = {"gpt_neo": "attention_types", "smollm3": "no_rope_layers", "gemma2": "layer_types"}


@pytest.mark.parametrize("family", COUNTS)
@pytest.mark.parametrize("value", [[], "full", [1], [[3]], {}, [[["global"], 10**9]]])
def test_a_list_of_layers_that_is_none_is_one_readable_line(family, value):
    with pytest.raises(CheckpointError, match=COUNTS[family]) as caught:
        read(family, **{COUNTS[family]: value})
    assert "\n" not in str(caught.value)


YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64}
LONG = {
    "rope_type": "longrope",
    "short_factor": [1.0, 1.5, 2.0, 1.0],
    "long_factor": [1.0, 1.5, 2.0, 1.0],
    "original_max_position_embeddings": 64,
}


@pytest.mark.parametrize(
    ("family", "scaling", "field"),
    [
        ("llama", YARN | {"rope_theta": 1.0}, "rope_theta"),
        ("llama", YARN | {"rope_theta": 0.5}, "rope_theta"),
        ("llama", YARN | {"original_max_position_embeddings": 1}, "original_max_position"),
        ("llama", YARN | {"factor": None}, "factor"),
        ("llama", YARN | {"beta_fast": 0}, "beta_fast"),
        ("phi3", LONG | {"short_factor": [1.0]}, "short_factor"),
        ("phi3", LONG | {"short_factor": [1.0, 2.0, "3", 1.0]}, "short_factor"),
        ("phi3", LONG | {"short_factor": [1.0, 2.0, float("nan"), 1.0]}, "short_factor"),
        ("phi3", LONG | {"original_max_position_embeddings": 1}, "original_max_position"),
        ("phi3", LONG | {"attention_factor": -1}, "attention_factor"),
        ("phi3", {"rope_type": "default", "partial_rotary_factor": 1.5}, "not 12 of 8"),
        ("stablelm", {"rope_type": "default", "partial_rotary_factor": 0.1}, "not 0 of 8"),
        ("stablelm", {"rope_type": "default", "partial_rotary_factor": -1}, "partial_rotary"),
    ],
)
def test_scaling_that_cannot_be_is_one_readable_line(family, scaling, field):
    with pytest.raises(CheckpointError, match=field) as caught:
        read(family, **{"head_dim": None, "rope_parameters": {"rope_theta": 1e4} | scaling})
    assert "\n" not in str(caught.value)


def test_longrope_is_served_up_to_its_original_context_unless_more_is_asked_for():
    _, config = read("phi3: LongRoPE over a part of a head")
    assert config.max_position_embeddings == 256
    rope = config.ropes["full"]
    assert (rope.dim, rope.factors) == (6, (1.0, 1.5, 2.0))
    assert rope.scale > 1
    assert for_context(config, None) == for_context(config, 256) == config
    longer = for_context(config, 257)
    assert longer.max_position_embeddings == 1024
    assert longer.ropes["full"].factors == (2.0, 4.0, 8.0)
    assert longer.ropes["full"].scale == rope.scale
    _, llama = read("llama")
    assert for_context(llama, 10**6) == llama


def test_every_family_is_looked_at():
    assert set(NAMES) == {family.name for family in FAMILIES}


HOSTILE = (None, 0, -1, 1, 10**400, 1.5, 1e-300, float("nan"), float("inf"), "x", True, [], [0], {})


@pytest.mark.parametrize("variant", TINY)
def test_any_value_in_any_field_is_read_or_refused_in_one_line(variant):
    """And what is read has shapes: no size is left that cannot be."""
    whole = raw(variant)
    for field in whole:
        for value in HOSTILE:
            refusal = refusal_of(whole | {field: value})
            assert "\n" not in refusal
            assert len(refusal) < 500


def refusal_of(fields):
    try:
        family, config = read_config(Fields(fields, "config.json"))
    except CheckpointError as error:
        return str(error)
    return "" if family.shapes(config) else "no shapes\n"
