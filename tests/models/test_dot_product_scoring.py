"""Dot-product scoring against a plain definition token by token, its clamp, and the prompt as a set."""

from __future__ import annotations

import math
from functools import cache

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from samonnx.graph_session import GraphSession
from samonnx.models.dot_product_scoring import DotProductScoring
from samonnx.pins import UnpinnedBranchError, apply_pins
from samonnx.programs.program import Component
from samonnx.trace import trace
from samonnx.weights import fill_seeded

WIDTH, HIDDEN, QUERIES, TOKENS = 16, 24, 5, 6


@cache
def pinned(clamp_logits: bool = True) -> DotProductScoring:
    scoring = DotProductScoring(WIDTH, HIDDEN).eval().requires_grad_(False)
    fill_seeded(scoring)
    apply_pins(scoring, {"clamp_logits": clamp_logits})
    return scoring


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def inputs(batch: int = 1) -> tuple[Tensor, Tensor, Tensor]:
    """Queries, prompt, and which of its tokens are real: all but one in the middle."""
    valid = torch.ones(batch, TOKENS, dtype=torch.bool)
    valid[:, 2] = False
    return noise(batch, QUERIES, WIDTH), noise(batch, TOKENS, WIDTH, seed=1), valid


def relative(found: Tensor, expected: Tensor) -> float:
    assert found.shape == expected.shape
    return float((found - expected).abs().max() / expected.abs().max())


def test_a_logit_is_the_dot_product_of_query_and_mean_real_token_over_the_root_of_the_width() -> None:
    scoring, (queries, prompt, valid) = pinned(), inputs()
    first, second = scoring.prompt_mlp.layers
    real = []
    for token in prompt[0][valid[0]]:
        mixed = second(first(token).clamp(min=0)) + token
        real.append(F.layer_norm(mixed, (WIDTH,), scoring.prompt_mlp.out_norm.weight, scoring.prompt_mlp.out_norm.bias))
    pooled = scoring.prompt_proj(sum(real, torch.zeros(WIDTH)) / len(real))
    expected = torch.stack([torch.dot(scoring.hs_proj(query), pooled) / math.sqrt(WIDTH) for query in queries[0]])
    assert relative(scoring(queries, prompt, valid), expected[None]) < 3e-6


def test_large_logits_are_clamped_to_twelve_where_pinned_to() -> None:
    queries, prompt, valid = inputs()
    free = pinned(clamp_logits=False)(1000 * queries, prompt, valid)
    assert float(free.max()) > 12
    assert float(free.min()) < -12
    assert torch.equal(pinned()(1000 * queries, prompt, valid), free.clamp(-12, 12))
    assert torch.equal(pinned()(queries, prompt, valid), pinned(clamp_logits=False)(queries, prompt, valid))


def test_an_unpinned_scoring_does_not_run() -> None:
    with pytest.raises(UnpinnedBranchError, match=r"DotProductScoring\.clamp_logits"):
        DotProductScoring(WIDTH, HIDDEN)(*inputs())


def test_a_prompt_without_real_tokens_scores_as_the_zero_prompt() -> None:
    scoring, (queries, prompt, valid) = pinned(), inputs()
    expected = scoring.hs_proj(queries) @ scoring.prompt_proj.bias / math.sqrt(WIDTH)
    assert relative(scoring(queries, prompt, torch.zeros_like(valid)), expected) < 1e-6


@given(seed=st.integers(0, 2**31), size=st.sampled_from([0.0, 1.0, 1e6]))
@settings(max_examples=20, deadline=None)
def test_what_lies_in_an_invalid_prompt_token_changes_nothing(seed: int, size: float) -> None:
    queries, prompt, valid = inputs()
    other = torch.where(valid[..., None], prompt, noise(1, TOKENS, WIDTH, seed=seed) * size)
    assert torch.equal(pinned()(queries, other, valid), pinned()(queries, prompt, valid))


@given(order=st.permutations(range(TOKENS)))
@settings(max_examples=20, deadline=None)
def test_the_prompts_tokens_are_a_set(order: list[int]) -> None:
    queries, prompt, valid = inputs()
    found = pinned()(queries, prompt[:, order], valid[:, order])
    assert relative(found, pinned()(queries, prompt, valid)) < 3e-6


def test_images_of_a_batch_do_not_see_one_another() -> None:
    queries, prompt, valid = inputs(batch=3)
    valid[1, 4:] = False
    together = pinned()(queries, prompt, valid)
    for row in range(3):
        alone = pinned()(queries[row : row + 1], prompt[row : row + 1], valid[row : row + 1])
        assert relative(together[row : row + 1], alone) < 3e-6


@pytest.mark.parametrize("clamp_logits", [True, False])
def test_onnx_runtime_gives_the_same_logits(clamp_logits: bool) -> None:
    queries, prompt, valid = inputs()
    ports = {"queries": 20 * queries, "prompt": prompt, "prompt_valid": valid}
    traced = trace(Component("score", pinned(clamp_logits), ports, ("logits",)))
    found = GraphSession(traced.model, threads=1).run({name: port.numpy() for name, port in ports.items()})["logits"]
    assert relative(torch.from_numpy(found), pinned(clamp_logits)(*ports.values())) < 3e-6
