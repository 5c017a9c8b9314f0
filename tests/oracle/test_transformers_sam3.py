"""Our SAM 3 against the transformers library's, with the same weights: every part on the same inputs, then the whole.

The library differs from the original in three things that the inputs here keep out of sight: without a box it leaves
out the geometry encoder and so its last token; it hides padding inside the text encoder, which changes tokens that are
padding alone; and it marks an empty place by the label -10.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple, cast

import pytest
import torch
from torch import Tensor

from samonnx.build_model import build_model
from samonnx.models.efficientsam3 import EfficientSAM3
from samonnx.programs.detect_components import Decode, DetectorNeck, EncodePrompts, EncodeTrunk, Fuse, SegmentQueries
from samonnx.recipe import load_recipe
from samonnx.seeded import seeded_frame
from tests.oracle.transformers_model import transformers_model

RECIPE = Path(__file__).parents[2] / "recipes" / "sam3_tiny.yaml"
TOLERANCE = 1e-5
# Of what is left of masks and boxes when the mean over queries is taken away: the queries of seeded weights nearly
# coincide, so most digits cancel, and rounding is a larger share of the rest.
APART = 1e-4

IMAGE = torch.from_numpy(seeded_frame(0, 112))[None] * 2 - 1
WORDS = torch.tensor([[49406, 320, 1929, 49407, 0, 0, 0, 0]])
# The last place is empty; the last box but one leaves the image.
BOXES = torch.tensor([[[0.31, 0.42, 0.23, 0.37], [0.9, 0.15, 0.45, 0.2], [0.6, 0.6, 0.3, 0.3]]])
LABELS = torch.tensor([[1, 0, -1]], dtype=torch.int32)
NO_POINT = (torch.zeros(1, 1, 2), torch.full((1, 1), -1, dtype=torch.int32))


class Pair(NamedTuple):
    ours: EfficientSAM3
    theirs: Any


@pytest.fixture(scope="module")
def pair() -> Pair:
    recipe = load_recipe(RECIPE)
    ours = cast(EfficientSAM3, build_model(recipe).module)
    return Pair(ours, transformers_model(recipe, ours))


def relative(found: Tensor, expected: Tensor) -> float:
    assert found.shape == expected.shape
    return float((found - expected).abs().max() / expected.abs().max())


def apart(found: Tensor, expected: Tensor, axis: int) -> float:
    """The same of what is left when the mean over an axis (the queries, the cells) is taken away."""
    return relative(found - found.mean(axis, keepdim=True), expected - expected.mean(axis, keepdim=True))


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


PROMPT, PROMPT_VALID = noise(1, 7, 32), torch.tensor([[True, True, True, False, False, True, True]])


def encoded_image(pair: Pair) -> Any:
    return pair.theirs.vision_encoder(IMAGE)


def test_trunk_and_neck_give_the_librarys_maps(pair: Pair) -> None:
    backbone = pair.ours.detector.backbone.vision_backbone
    trunk_map = EncodeTrunk(backbone)(IMAGE)
    expected = encoded_image(pair)
    assert relative(trunk_map.flatten(2).transpose(1, 2), expected.last_hidden_state) < TOLERANCE
    for level, theirs in zip(DetectorNeck(backbone)(trunk_map), expected.fpn_hidden_states[:3], strict=True):
        assert relative(level, theirs) < TOLERANCE
        assert apart(level.flatten(2), theirs.flatten(2), 2) < TOLERANCE


def test_the_text_encoder_gives_the_librarys_features(pair: Pair) -> None:
    features, valid = pair.ours.detector.backbone.language_backbone(WORDS)
    expected = pair.theirs.get_text_features(WORDS, attention_mask=WORDS != 0).pooler_output
    assert valid.tolist() == (WORDS != 0).tolist()
    assert relative(features[valid], expected[valid]) < TOLERANCE
    # Without its own mask of padding the library agrees on every token.
    whole = pair.theirs.get_text_features(WORDS).pooler_output
    assert relative(features, whole) < TOLERANCE


def test_the_geometry_encoder_gives_the_librarys_tokens(pair: Pair) -> None:
    image = encoded_image(pair)
    tokens, valid = pair.ours.detector.geometry_encoder(image.fpn_hidden_states[2], BOXES, LABELS, *NO_POINT)
    expected = pair.theirs.geometry_encoder(
        box_embeddings=BOXES,
        box_mask=LABELS != -1,
        box_labels=LABELS.clamp(min=0),
        img_feats=image.fpn_hidden_states[:3],
        img_pos_embeds=image.fpn_position_encoding[:3],
    )
    # Ours: a point, three boxes, the last token. Theirs: two boxes, the last token, an empty place.
    assert valid.tolist() == [[False, True, True, False, True]]
    assert expected.attention_mask.tolist() == [[True, True, True, False]]
    assert relative(tokens[valid], expected.last_hidden_state[expected.attention_mask]) < TOLERANCE
    assert apart(tokens[valid], expected.last_hidden_state[expected.attention_mask], 0) < TOLERANCE


def test_the_fusion_encoder_gives_the_librarys_memory(pair: Pair) -> None:
    image = encoded_image(pair)
    memory = Fuse(pair.ours.detector)(image.fpn_hidden_states[2], PROMPT, PROMPT_VALID)
    expected = pair.theirs.detr_encoder(
        vision_features=[image.fpn_hidden_states[2]],
        text_features=PROMPT,
        vision_pos_embeds=[image.fpn_position_encoding[2]],
        text_mask=PROMPT_VALID,
    ).last_hidden_state
    assert relative(memory, expected) < TOLERANCE
    assert apart(memory, expected, 1) < TOLERANCE


def test_the_decoder_gives_the_librarys_queries_boxes_and_presence(pair: Pair) -> None:
    memory = noise(1, 64, 32, seed=1)
    position = encoded_image(pair).fpn_position_encoding[2].flatten(2).transpose(1, 2)
    decoded = pair.ours.detector.transformer.decoder(memory, PROMPT, PROMPT_VALID)
    expected = pair.theirs.detr_decoder(
        vision_features=memory,
        text_features=PROMPT,
        vision_pos_encoding=position,
        text_mask=PROMPT_VALID,
        spatial_shapes=torch.tensor([[8, 8]]),
    )
    assert relative(decoded.queries, expected.intermediate_hidden_states) < TOLERANCE
    assert apart(decoded.queries, expected.intermediate_hidden_states, 2) < TOLERANCE
    assert relative(decoded.reference_boxes, expected.reference_boxes) < TOLERANCE
    assert apart(decoded.reference_boxes, expected.reference_boxes, 2) < TOLERANCE
    assert relative(decoded.presence_logits, expected.presence_logits) < TOLERANCE


@pytest.mark.parametrize("size", [1, 100])
def test_scores_are_the_librarys_within_and_beyond_the_clamp(pair: Pair, size: int) -> None:
    queries = size * noise(1, 12, 32, seed=2)
    logits = pair.ours.detector.dot_prod_scoring(queries, PROMPT, PROMPT_VALID)
    expected = pair.theirs.dot_product_scoring(queries[None], PROMPT, PROMPT_VALID)[0, :, :, 0]
    assert bool((expected.abs() == 12).any()) is (size > 1)
    assert relative(logits, expected) < TOLERANCE
    assert apart(logits, expected, 1) < TOLERANCE


def test_masks_are_the_librarys(pair: Pair) -> None:
    memory, queries = noise(1, 64, 32, seed=3), noise(1, 12, 32, seed=4)
    levels = [noise(1, 32, side, side, seed=side) for side in (32, 16, 8)]
    segment = SegmentQueries(pair.ours.detector)
    masks, semantic = segment(memory, levels[0], levels[1], queries, PROMPT, PROMPT_VALID)
    expected = pair.theirs.mask_decoder(
        decoder_queries=queries,
        backbone_features=levels,
        encoder_hidden_states=memory,
        prompt_features=PROMPT,
        prompt_mask=PROMPT_VALID,
    )
    assert relative(masks, expected.pred_masks) < TOLERANCE
    assert apart(masks, expected.pred_masks, 1) < TOLERANCE
    assert relative(semantic, expected.semantic_seg) < TOLERANCE


class Detections(NamedTuple):
    boxes: Tensor
    logits: Tensor
    presence: Tensor
    scores: Tensor
    masks: Tensor
    semantic: Tensor


def detected(pair: Pair, labels: Tensor) -> Detections:
    """From pixels, words and boxes, part after part."""
    detector = pair.ours.detector
    backbone = detector.backbone.vision_backbone
    high_res_0, high_res_1, features = DetectorNeck(backbone)(EncodeTrunk(backbone)(IMAGE))
    words = detector.backbone.language_backbone(WORDS)
    prompt, valid = EncodePrompts(detector)(features, *words, BOXES, labels, *NO_POINT)
    memory = Fuse(detector)(features, prompt, valid)
    queries, boxes, logits, presence, scores = Decode(detector)(memory, prompt, valid)
    masks, semantic = SegmentQueries(detector)(memory, high_res_0, high_res_1, queries, prompt, valid)
    return Detections(boxes, logits, presence, scores, masks, semantic)


def assert_equal(found: Detections, expected: Any) -> None:
    assert relative(found.boxes, expected.pred_boxes) < TOLERANCE
    assert relative(found.logits, expected.pred_logits) < TOLERANCE
    assert relative(found.presence, expected.presence_logits[:, 0]) < TOLERANCE
    joint = expected.pred_logits.sigmoid() * expected.presence_logits.sigmoid()
    assert relative(found.scores, joint) < TOLERANCE
    assert relative(found.masks, expected.pred_masks) < TOLERANCE
    assert relative(found.semantic, expected.semantic_seg) < TOLERANCE
    assert apart(found.boxes, expected.pred_boxes, 1) < APART
    assert apart(found.masks, expected.pred_masks, 1) < APART


def test_the_whole_model_agrees_with_words_and_boxes(pair: Pair) -> None:
    expected = pair.theirs(
        pixel_values=IMAGE,
        input_ids=WORDS,
        attention_mask=(WORDS != 0).long(),
        input_boxes=BOXES,
        input_boxes_labels=torch.where(LABELS == -1, -10, LABELS),
    )
    assert_equal(detected(pair, LABELS), expected)


def test_the_whole_model_agrees_with_words_alone(pair: Pair) -> None:
    """The library gets the geometry encoder's last token, which it would leave out, as if it were a word."""
    image = encoded_image(pair)
    geometry = pair.theirs.geometry_encoder(
        box_embeddings=BOXES,
        box_mask=torch.zeros(1, 3, dtype=torch.bool),
        box_labels=torch.zeros(1, 3, dtype=torch.long),
        img_feats=image.fpn_hidden_states[:3],
        img_pos_embeds=image.fpn_position_encoding[:3],
    )
    assert geometry.attention_mask.tolist() == [[True, False, False, False]]
    words = pair.theirs.get_text_features(WORDS, attention_mask=WORDS != 0)
    words.pooler_output = torch.cat((words.pooler_output, geometry.last_hidden_state[:, :1]), dim=1)
    mask = torch.cat((WORDS != 0, torch.ones(1, 1, dtype=torch.bool)), dim=1)
    expected = pair.theirs(pixel_values=IMAGE, text_embeds=words, attention_mask=mask)
    assert_equal(detected(pair, torch.full_like(LABELS, -1)), expected)
