"""SAM 3's text encoder: a plain definition, what a token can see, what is never read."""

from __future__ import annotations

import math
from functools import cache

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from samonnx.errors import SamonnxError
from samonnx.graph_session import GraphSession
from samonnx.models.clip_text import CLIP_TEXT_SIZES, ClipTextEncoder
from samonnx.models.mobileclip import VOCABULARY
from samonnx.models.text_encoders import build_language_backbone
from samonnx.pins import UnpinnedBranchError, apply_pins
from samonnx.programs.program import Component
from samonnx.trace import trace
from samonnx.weights import fill_seeded

TINY = CLIP_TEXT_SIZES["sam3_text_tiny"]
LENGTH, HIDDEN, POSITIONS = 6, 12, 8
START, END = VOCABULARY - 2, VOCABULARY - 1
token = st.integers(0, VOCABULARY - 1)


@cache
def encoder_of(causal: bool = True) -> ClipTextEncoder:
    encoder = ClipTextEncoder(TINY, LENGTH, HIDDEN, POSITIONS).eval().requires_grad_(False)
    fill_seeded(encoder)
    apply_pins(encoder, {"encoder.causal_masking": causal})
    return encoder


IDS = torch.tensor([[START, 320, 1929, END, 0, 0], [START, 7, 0, 40000, 5, END]])


def relative(found: Tensor, expected: Tensor) -> float:
    return float((found - expected).abs().max() / expected.abs().max())


# The plain definition: one text, token by token, in float64.


def plain_norm(x: Tensor, state: dict[str, Tensor], name: str) -> Tensor:
    deviation = torch.sqrt(((x - x.mean(-1, keepdim=True)) ** 2).mean(-1, keepdim=True) + 1e-5)
    return (x - x.mean(-1, keepdim=True)) / deviation * state[f"{name}.weight"] + state[f"{name}.bias"]


def plain_attention(x: Tensor, state: dict[str, Tensor], name: str, causal: bool) -> Tensor:
    width, heads = TINY.width, TINY.heads
    q, k, v = (x @ state[f"{name}.in_proj_weight"].T + state[f"{name}.in_proj_bias"]).split(width, dim=1)
    rows = []
    for index in range(len(x)):
        seen = index + 1 if causal else len(x)
        row = []
        for part in torch.arange(width).chunk(heads):
            logits = k[:seen][:, part] @ q[index, part] / math.sqrt(width // heads)
            row.append(torch.softmax(logits, dim=0) @ v[:seen][:, part])
        rows.append(torch.cat(row))
    return torch.stack(rows) @ state[f"{name}.out_proj.weight"].T + state[f"{name}.out_proj.bias"]


def plain_features(encoder: ClipTextEncoder, ids: Tensor, causal: bool) -> Tensor:
    state = {key: value.double() for key, value in encoder.state_dict().items()}
    x = state["encoder.token_embedding.weight"][ids] + state["encoder.positional_embedding"][: len(ids)]
    for index in range(TINY.depth):
        name = f"encoder.transformer.resblocks.{index}"
        x = x + plain_attention(plain_norm(x, state, f"{name}.ln_1"), state, f"{name}.attn", causal)
        hidden = plain_norm(x, state, f"{name}.ln_2") @ state[f"{name}.mlp.c_fc.weight"].T
        hidden = hidden + state[f"{name}.mlp.c_fc.bias"]
        hidden = hidden * 0.5 * (1 + torch.erf(hidden / math.sqrt(2)))
        x = x + hidden @ state[f"{name}.mlp.c_proj.weight"].T + state[f"{name}.mlp.c_proj.bias"]
    normed = plain_norm(x, state, "encoder.ln_final")
    resized: Tensor = normed @ state["resizer.weight"].T + state["resizer.bias"]
    return resized.float()


@pytest.mark.parametrize("causal", [True, False])
def test_it_equals_the_plain_definition(causal: bool) -> None:
    encoder = encoder_of(causal)
    found, _ = encoder(IDS)
    expected = torch.stack([plain_features(encoder, ids, causal) for ids in IDS])
    assert found.shape == (2, LENGTH, HIDDEN)
    assert relative(found, expected) < 2e-6


@given(st.lists(token, min_size=LENGTH, max_size=LENGTH), st.integers(1, LENGTH - 1), st.data())
def test_with_the_causal_mask_no_token_sees_a_later_one(ids: list[int], place: int, data: st.DataObject) -> None:
    other = ids[:place] + data.draw(st.lists(token, min_size=LENGTH - place, max_size=LENGTH - place))
    found, _ = encoder_of()(torch.tensor([ids, other]))
    assert torch.equal(found[0, :place], found[1, :place])


def test_without_it_every_token_sees_every_other() -> None:
    changed = IDS.clone()
    changed[:, -1] = 99
    before, _ = encoder_of(causal=False)(IDS)
    after, _ = encoder_of(causal=False)(changed)
    assert ((before - after).abs().amax(-1) > 1e-4).all()


@given(st.lists(token, min_size=LENGTH, max_size=LENGTH))
def test_a_token_is_valid_unless_its_id_is_zero(ids: list[int]) -> None:
    _, valid = encoder_of()(torch.tensor([ids]))
    assert valid.tolist() == [[bool(i) for i in ids]]


def test_equal_tokens_differ_by_their_place() -> None:
    found, _ = encoder_of()(torch.full((1, LENGTH), 320))
    assert all(relative(found[0, i], found[0, i - 1]) > 1e-3 for i in range(1, LENGTH))


def test_later_rows_of_the_position_table_and_the_projection_of_clip_are_never_read() -> None:
    encoder = ClipTextEncoder(TINY, LENGTH, HIDDEN, POSITIONS).eval().requires_grad_(False)
    fill_seeded(encoder)
    apply_pins(encoder, {"encoder.causal_masking": True})
    encoder.encoder.positional_embedding[LENGTH:] = torch.nan
    encoder.encoder.text_projection[:] = torch.nan
    assert torch.equal(encoder(IDS)[0], encoder_of()(IDS)[0])


def test_another_number_of_tokens_is_refused_with_the_argument_that_sets_it() -> None:
    with pytest.raises(SamonnxError) as caught:
        encoder_of()(IDS[:, :4])
    assert str(caught.value) == (
        f"token_ids: 4 tokens a text found, {LENGTH} expected: cut or zero-pad the texts, "
        "or change model.args.context_length"
    )


def test_an_unpinned_encoder_does_not_run() -> None:
    with pytest.raises(UnpinnedBranchError, match=r"ClipTextTransformer\.causal_masking"):
        ClipTextEncoder(TINY, LENGTH, HIDDEN, POSITIONS)(IDS)


def test_the_released_encoder_has_the_published_figures() -> None:
    with torch.device("meta"):
        encoder = ClipTextEncoder(CLIP_TEXT_SIZES["sam3_text"], 32, 256, 32)
    shapes = {key: tuple(value.shape) for key, value in encoder.state_dict().items()}
    assert sum(map(math.prod, shapes.values())) == 353_724_672
    assert shapes["encoder.token_embedding.weight"] == (49408, 1024)
    assert shapes["encoder.positional_embedding"] == (32, 1024)
    assert shapes["encoder.text_projection"] == (1024, 512)
    assert shapes["encoder.transformer.resblocks.23.attn.in_proj_weight"] == (3072, 1024)
    assert shapes["encoder.transformer.resblocks.23.mlp.c_proj.weight"] == (1024, 4096)
    assert shapes["resizer.weight"] == (256, 1024)


def test_it_is_built_by_name_with_the_rows_of_the_checkpoints_table() -> None:
    encoder = build_language_backbone("sam3_text_tiny", LENGTH, HIDDEN, positions=POSITIONS)
    assert isinstance(encoder, ClipTextEncoder)
    assert {k: v.shape for k, v in encoder.state_dict().items()} == {
        k: v.shape for k, v in encoder_of().state_dict().items()
    }


@pytest.mark.parametrize("causal", [True, False])
def test_onnx_runtime_gives_the_same_features(causal: bool) -> None:
    encoder, ids = encoder_of(causal), IDS[:1]
    traced = trace(Component("words", encoder, {"token_ids": ids}, ("text_features", "text_valid")))
    found = GraphSession(traced.model, threads=1).run({"token_ids": IDS[1:].numpy()})
    features, valid = encoder(IDS[1:])
    assert relative(torch.from_numpy(found["text_features"]), features) < 2e-6
    assert found["text_valid"].tolist() == valid.tolist()
