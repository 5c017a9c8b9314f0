"""MobileCLIP's text transformer against a plain definition in float64, and what each pin changes."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from samonnx.models.mobileclip import MOBILECLIP_SIZES, VOCABULARY, MobileCLIPTextEncoder, TextLayer
from samonnx.models.mobileclip_repmixer import RepMixerBlock
from samonnx.pins import UnpinnedBranchError, apply_pins
from samonnx.weights import fill_seeded

POSITIONS = 24


def unpinned(name: str) -> MobileCLIPTextEncoder:
    encoder = MobileCLIPTextEncoder(MOBILECLIP_SIZES[name], POSITIONS).eval().requires_grad_(False)
    fill_seeded(encoder)
    return encoder


ENCODERS = {name: unpinned(name) for name in MOBILECLIP_SIZES if name.endswith("_tiny")}
"""Filling the embeddings takes longer than all tests; each test pins anew."""


def encoder_of(name: str, *, causal: bool = False, padding: bool = True) -> MobileCLIPTextEncoder:
    apply_pins(ENCODERS[name], {"causal_masking": causal, "attend_padding": padding})
    return ENCODERS[name]


def tokens(*texts: list[int], length: int = 12) -> Tensor:
    return torch.tensor([text + [0] * (length - len(text)) for text in texts])


WORDS = st.lists(st.integers(1, VOCABULARY - 1), min_size=1, max_size=10)
DOG = [49406, 320, 1929, 49407]
UMBRELLA = [49406, 736, 12865, 2761, 17143, 49407]


def relative(found: Tensor, expected: Tensor) -> float:
    return float((found - expected).abs().max() / expected.abs().max())


# A plain definition, one text and one head at a time.


def normed(x: Tensor, state: dict[str, Tensor], prefix: str) -> Tensor:
    deviation = x - x.mean(1, keepdim=True)
    scale = torch.sqrt((deviation**2).mean(1, keepdim=True) + 1e-5)
    return deviation / scale * state[f"{prefix}.weight"] + state[f"{prefix}.bias"]


def linear(x: Tensor, state: dict[str, Tensor], prefix: str) -> Tensor:
    return torch.einsum("li,oi->lo", x, state[f"{prefix}.weight"]) + state[f"{prefix}.bias"]


def attended(x: Tensor, allowed: Tensor, state: dict[str, Tensor], prefix: str, heads: int) -> Tensor:
    width = x.shape[1]
    packed = linear(x, state, f"{prefix}.qkv_proj")
    outputs = []
    for head in range(heads):
        size = width // heads
        q, k, v = (packed[:, part * width + head * size :][:, :size] for part in range(3))
        weights = torch.exp(q @ k.T / size**0.5) * allowed
        outputs.append(weights @ v / weights.sum(1, keepdim=True))
    return linear(torch.cat(outputs, dim=1), state, f"{prefix}.out_proj")


def plain_encoder(encoder: MobileCLIPTextEncoder, text: Tensor, allowed: Tensor, heads: int) -> Tensor:
    """text i64 [L], allowed bool [L, L] (query, key) → f64 [L, width]; an encoder without RepMixer blocks."""
    state = {key: value.double() for key, value in encoder.state_dict().items()}
    table = state["positional_embedding.pos_embed.pos_embed"][0, 0]
    x = torch.stack([state["embedding_layer.weight"][token] + table[place] for place, token in enumerate(text)])
    for index in range(len(encoder.transformer)):
        prefix = f"transformer.{index}.pre_norm_"
        y = normed(x, state, f"{prefix}mha.0")
        x = x + attended(y, allowed, state, f"{prefix}mha.1", heads)
        hidden = linear(normed(x, state, f"{prefix}ffn.0"), state, f"{prefix}ffn.1")
        hidden = hidden * 0.5 * (1 + torch.erf(hidden / 2**0.5))
        x = x + linear(hidden, state, f"{prefix}ffn.4")
    return normed(x, state, "final_layer_norm")


@pytest.mark.parametrize("name", ["mobileclip_s1_tiny", "mobileclip2_l_tiny"])
@pytest.mark.parametrize(("causal", "padding"), [(False, True), (True, True), (False, False), (True, False)])
def test_the_encoder_is_the_plain_definition_under_each_pin(name: str, causal: bool, padding: bool) -> None:
    encoder, ids = encoder_of(name, causal=causal, padding=padding), tokens(DOG, UMBRELLA)
    found = encoder(ids)
    for row, text in enumerate(ids):
        allowed = torch.ones(12, 12, dtype=torch.bool)
        if causal:
            allowed = allowed.tril()
        elif not padding:
            allowed = (text != 0).expand(12, 12)
        expected = plain_encoder(encoder, text, allowed, MOBILECLIP_SIZES[name].heads)
        assert relative(found[row], expected) < 2e-6


def test_each_pin_changes_the_features_of_words() -> None:
    ids = tokens(DOG)
    released = encoder_of("mobileclip_s1_tiny")(ids)[:, :4]
    for pins in ({"causal": True}, {"padding": False}):
        assert relative(encoder_of("mobileclip_s1_tiny", **pins)(ids)[:, :4], released) > 1e-2


def test_repmixer_blocks_stand_before_and_behind_the_attention_layers_of_s0_alone() -> None:
    kinds = {name: [type(layer) for layer in encoder.transformer] for name, encoder in ENCODERS.items()}
    assert kinds == {
        "mobileclip_s0_tiny": [RepMixerBlock, TextLayer, TextLayer, RepMixerBlock],
        "mobileclip_s1_tiny": [TextLayer, TextLayer],
        "mobileclip2_l_tiny": [TextLayer, TextLayer],
    }


def test_the_encoder_of_s0_runs_its_blocks_in_their_order() -> None:
    encoder, ids = encoder_of("mobileclip_s0_tiny"), tokens(DOG)
    first, second, third, last = encoder.transformer
    x = encoder.embedding_layer.weight[ids] + encoder.positional_embedding.pos_embed.pos_embed[0, :, :12]
    expected = encoder.final_layer_norm(last(third(second(first(x), None), None)))
    assert torch.equal(encoder(ids), expected)


@settings(max_examples=20, deadline=None)
@given(WORDS, WORDS, st.integers(0, 9))
def test_under_causal_masking_a_token_does_not_see_those_after_it(start: list[int], end: list[int], cut: int) -> None:
    cut = min(cut, len(start))
    first, second = tokens(start), tokens([*start[:cut], *end][:12])
    encoder = encoder_of("mobileclip_s1_tiny", causal=True)
    assert torch.allclose(encoder(first)[:, :cut], encoder(second)[:, :cut], atol=1e-5, rtol=0)


@settings(max_examples=20, deadline=None)
@given(WORDS, st.integers(0, 12))
def test_padding_that_is_not_attended_is_inert(words: list[int], more: int) -> None:
    encoder = encoder_of("mobileclip_s1_tiny", padding=False)
    short = encoder(torch.tensor([words]))
    padded = encoder(tokens(words, length=len(words) + more))
    assert torch.allclose(padded[:, : len(words)], short, atol=1e-5, rtol=0)


def test_repmixer_blocks_mix_padding_in_whatever_the_pins_say() -> None:
    encoder = encoder_of("mobileclip_s0_tiny", padding=False)
    short, padded = encoder(tokens(DOG, length=4)), encoder(tokens(DOG, length=8))
    assert relative(padded[:, :4], short) > 1e-2


@settings(max_examples=20, deadline=None)
@given(st.permutations(range(12)))
def test_without_positions_attention_layers_know_no_order(order: list[int]) -> None:
    encoder = encoder_of("mobileclip_s1_tiny")
    ids = tokens(UMBRELLA)
    ids[0, len(UMBRELLA) :] = torch.arange(100, 106)
    table = encoder.positional_embedding.pos_embed.pos_embed
    kept = table.clone()
    try:
        table.zero_()
        assert torch.allclose(encoder(ids[:, order]), encoder(ids)[:, order], atol=1e-5, rtol=0)
    finally:
        table.copy_(kept)


@pytest.mark.parametrize("name", ENCODERS)
def test_texts_of_a_batch_are_independent(name: str) -> None:
    encoder, ids = encoder_of(name), tokens(DOG, UMBRELLA)
    alone = torch.cat([encoder(ids[row : row + 1]) for row in range(2)])
    assert torch.allclose(encoder(ids), alone, atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", MOBILECLIP_SIZES)
def test_the_heads_divide_the_width(name: str) -> None:
    size = MOBILECLIP_SIZES[name]
    assert size.width % size.heads == 0
    assert name.endswith("_tiny") or size.width // size.heads == 64


def test_an_unpinned_encoder_does_not_run() -> None:
    encoder = MobileCLIPTextEncoder(MOBILECLIP_SIZES["mobileclip_s1_tiny"], POSITIONS)
    with pytest.raises(UnpinnedBranchError, match=r"MobileCLIPTextEncoder\.causal_masking"):
        encoder(tokens(DOG))
