"""What the manifest says in words: rules for whoever drives the graphs, and where they differ from the originals."""

from __future__ import annotations

from collections.abc import Sequence

from samonnx.models.sam2 import Sam2
from samonnx.models.tracker import TrackedModel
from samonnx.programs.program import Program
from samonnx.recipe import MemorySpec

__all__ = ["manifest_notes"]

BANK = (
    "bank.memory_conditioning and bank.pointer_conditioning mark frames that had a prompt; slots may be permuted "
    "freely, together with their frame and flags",
    "visit frames in increasing frame_index; of more conditioning frames than conditioning_slots the closest are "
    "attended",
    "to correct a frame that was tracked already, give the graph the bank from before that frame",
    "an object with an empty bank and no prompt is not tracked: its bank stays empty",
    "a program with filled: k gives what the one that it specialises gives while bank.memory_frame[:, k:] is -1 for "
    "all objects; it takes and gives the whole bank. A new frame takes the first empty slot, so this holds for the k "
    "frames after an object's first",
    "memory is kept in float32 (upstream's predictor rounds it to bfloat16)",
)

DETECTOR = (
    "words fill token_ids as CLIP's tokeniser does; an image, a text and examples give 'queries' detections, of which "
    "those with a score above detection.score_threshold are shown",
    "step: outputs of the detector are called detection.…, since masks of tracked objects go by the name masks",
)

RECENT = (
    "pointer places: conditioning_slots + pointer_slots - 1, so that conditioning frames never push out recent ones",
    "a conditioning frame that is not among the closest counts as a recent frame while it is among them",
)

SELECTION = (
    "policy selection (SAM 3's use_memory_selection): a frame is accepted by presence times predicted IoU, per object, "
    "where upstream takes the mean over objects; attended are the newest accepted frames and the previous one",
)

SAMURAI = (
    "policy samurai, as in the original: only calls that choose among candidates touch the Kalman filter, so that a "
    "box or a mask prompt on frame 0 starts it on frame 1, a single click on frame 0 itself",
    "policy samurai, as in the original: memories of accepted frames are those from frame 2 on, so that frame 1 is "
    "attended by frame 2 alone; object pointers are those of recent frames",
    "policy samurai, as in the original: an empty mask is measured as the box 0, 0, 0, 0 like any other",
    "policy samurai, mended: the filter's state is part of the bank, so an empty bank starts anew (the original keeps "
    "it on the model from video to video), and every object has its own (the original looks at the first)",
    "policy samurai, mended: a second conditioning frame, or a first prompt after frame 0, is passed over in the walk "
    "back (the original raises KeyError)",
    "policy samurai, mended: a correction starts from the filter's state before the frame (in the original every click "
    "call moves it on)",
)

SAM2 = (
    "of more conditioning frames than conditioning_slots only the closest are attended, where upstream attends all: "
    "give the recipe as many slots as prompted frames are expected",
    "upstream's video predictor, as here: a mask prompt's output and memory go by its low-resolution logits enlarged "
    "again, the memory by those thresholded (pin mask_prompt_round_trip)",
    "a correction click stays: its memory replaces the frame's (upstream's predictor tracks the frame again without "
    "the click unless add_all_frames_to_correct_as_cond is set)",
    "holes in masks are not filled (upstream's predictor does on CUDA alone, up to 8 pixels)",
)

SAM3 = (
    "mask prompts of the tracker are taken as upstream's track_step takes them (its predictor resizes to 16 x grid and "
    "thresholds)",
)

PRESENCE_BELOW_ZERO = (
    "an object score in (-1, 0] keeps mask and pointer, and marks the memory as an absent object's, as in SAMURAI "
    "(pins presence_threshold and memory_presence_threshold)",
)


def manifest_notes(programs: Sequence[Program], memory: MemorySpec, model: TrackedModel) -> tuple[str, ...]:
    """The notes that concern these programs."""
    notes: tuple[str, ...] = ()
    if any(program.bank for program in programs):
        by_policy = {"recent": RECENT, "selection": SELECTION, "samurai": SAMURAI}
        notes += BANK + by_policy[memory.policy] + (SAM2 if isinstance(model, Sam2) else SAM3)
        if model.tracker.presence_threshold < model.tracker.memory_presence_threshold:
            notes += PRESENCE_BELOW_ZERO
    if any(component.name == "decode" for program in programs for component in program.components):
        notes += DETECTOR
    return notes
