"""XMem's similarity and softmaxes: the formulas, and what happens where the original stops or gives NaN."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from samonnx.models.xmem_affinity import masked, similarity, softmax_over, top_weights, weights_of

ALL = torch.ones(1, dtype=torch.bool)


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_the_similarity_is_the_selected_and_shrunk_squared_distance() -> None:
    key, shrinkage = random(7, 5), 1 + random(7, seed=1).square()
    query, selection = random(3, 5, seed=2), random(3, 5, seed=3).sigmoid()
    distance = (selection[:, None] * (key[None] - query[:, None]).square()).sum(2)
    torch.testing.assert_close(similarity(key, shrinkage, query, selection), -shrinkage * distance / math.sqrt(5))


def test_top_weights_are_the_softmax_of_the_best() -> None:
    similarities = random(4, 9)
    weight, index = top_weights(similarities, ALL, 3)
    for q in range(4):
        best = sorted(range(9), key=lambda n: -similarities[q, n])[:3]
        assert index[q].tolist() == best
        torch.testing.assert_close(weight[q], similarities[q, best].softmax(0))


def test_all_elements_share_where_k_is_larger_than_their_number() -> None:
    similarities = random(4, 5)
    weight, index = top_weights(similarities, ALL, 30)
    assert weight.shape == (4, 5)
    dense = torch.zeros_like(similarities).scatter(1, index, weight)
    torch.testing.assert_close(dense, similarities.softmax(1))


def test_fewer_valid_elements_than_k_share_the_weight_and_the_others_get_none() -> None:
    valid = torch.tensor([True, False, False, True, False])
    weight, index = top_weights(random(4, 5), valid, 4)
    assert weight.shape == (4, 4)
    assert not weight[:, 2:].any()
    assert {frozenset(row) for row in index[:, :2].tolist()} == {frozenset({0, 3})}
    torch.testing.assert_close(weight.sum(1), torch.ones(4, dtype=torch.float64))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_similarities_below_the_range_of_the_exponential_are_no_nan(dtype: torch.dtype) -> None:
    """The original is 0/0 where all of the best are below about -103."""
    far = (random(2, 6) - 1e5).to(dtype)
    weight, _ = top_weights(far, ALL, 3)
    torch.testing.assert_close(weight.sum(1), torch.ones(2, dtype=dtype))
    torch.testing.assert_close(weight, far.topk(3).values.softmax(1))


@pytest.mark.parametrize("softmax", [lambda s, v: top_weights(s, v, 4).weight, softmax_over])
def test_without_a_valid_element_the_weights_are_zero(softmax: object) -> None:
    assert callable(softmax)
    assert not softmax(random(3, 6), torch.zeros(6, dtype=torch.bool)).any()


@given(st.integers(1, 6), st.integers(0, 6), st.sampled_from([0.0, -3e38, 3e38, math.inf, math.nan]), st.integers(1, 9))
def test_padded_elements_get_no_weight_and_what_they_hold_changes_no_bit(
    count: int, padding: int, junk: float, k: int
) -> None:
    similarities = random(3, count).float()
    padded = torch.cat([similarities, torch.full((3, padding), junk)], 1)
    other = torch.cat([similarities, torch.full((3, padding), 7.0)], 1)
    valid = torch.arange(count + padding) < count
    weight, index = top_weights(similarities, ALL, k)
    found, found_index = top_weights(padded, valid, k)
    there = min(k, count)
    torch.testing.assert_close(found[:, :there], weight)
    assert torch.equal(found_index[:, :there], index)
    assert not found[:, there:].any()
    assert torch.equal(found, top_weights(other, valid, k).weight)
    assert torch.equal(softmax_over(padded, valid), softmax_over(other, valid))
    torch.testing.assert_close(softmax_over(padded, valid)[:, :count], softmax_over(similarities, ALL))
    assert not softmax_over(padded, valid)[:, count:].any()


def test_the_full_softmax_is_the_softmax() -> None:
    similarities = 200 * random(3, 6)
    torch.testing.assert_close(softmax_over(similarities, ALL), similarities.softmax(1))


def test_an_element_that_is_not_valid_has_the_lowest_similarity_whatever_it_holds() -> None:
    """Exactly, so that it can be told apart; the others keep theirs."""
    key, query = random(6, 5), random(3, 5)
    shrinkage, selection = 1 + random(6).square(), random(3, 5).sigmoid()
    valid = torch.tensor([True, False, True, True, False, True])
    expected = similarity(key, shrinkage, query, selection)
    key[~valid], shrinkage[~valid] = 1e30, -1e30
    found = similarity(key, shrinkage, query, selection, valid)
    torch.testing.assert_close(found[:, valid], expected[:, valid])
    assert (found[:, ~valid] == torch.finfo(found.dtype).min).all()
    torch.testing.assert_close(found, masked(expected, valid))


def test_weights_of_similarities_that_are_all_the_lowest_are_zero() -> None:
    lowest = torch.finfo(torch.float64).min
    assert not weights_of(torch.full((2, 3), lowest, dtype=torch.float64)).any()
    weight = weights_of(torch.tensor([[1.0, 0.0, lowest]], dtype=torch.float64))
    torch.testing.assert_close(weight[0, :2], torch.tensor([1.0, 0.0], dtype=torch.float64).softmax(0))
    assert weight[0, 2] == 0


def test_similarities_that_are_masked_already_need_no_flags() -> None:
    similarities, valid = random(4, 5), torch.tensor([True, False, True, True, False])
    expected, found = top_weights(similarities, valid, 4), top_weights(masked(similarities, valid), None, 4)
    assert torch.equal(found.weight, expected.weight)
    assert torch.equal(found.element, expected.element)
