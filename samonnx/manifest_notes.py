"""What the manifest says in words: rules for whoever drives the graphs, and where they differ from the originals."""

from __future__ import annotations

from collections.abc import Sequence

from samonnx.models.sam2 import Sam2
from samonnx.models.tracker import TrackedModel
from samonnx.programs.program import Program
from samonnx.recipe import MemorySpec

__all__ = ["manifest_notes", "sam_notes"]

BANK = (
    "bank.memory_conditioning and bank.pointer_conditioning mark frames that had a prompt; slots may be permuted "
    "freely, together with their frame and flags",
    "num_frames: in a clip shorter than pointer_slots, fewer pointers are attended and their positions are scaled "
    "differently, as in the original; 0 (unknown) stands for a long clip",
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

RECENT_POINTERS = (
    "pointer places: conditioning_slots + pointer_slots - 1, so that conditioning frames never push out recent ones",
)

RECENT = (
    *RECENT_POINTERS,
    "a conditioning frame that is not among the closest counts as a recent frame while it is among them",
)

SELECTION = (
    "policy selection (SAM 3's use_memory_selection): a frame is accepted by presence times predicted IoU, per object, "
    "where upstream takes the mean over objects; attended are the newest accepted frames and the previous one",
    "policy selection, as in the original: frame 0 is never accepted, and of the pointers that the walk back collects "
    "the oldest is left out; pointer places: conditioning_slots + pointer_slots, one more to see where the walk ended",
)

SAMURAI = (
    *RECENT_POINTERS,
    "policy samurai, as in the original: only calls that choose among candidates touch the Kalman filter, so that a "
    "box or a mask prompt on frame 0 starts it on frame 1, a single click on frame 0 itself",
    "policy samurai, as in the original: memories of accepted frames are those from frame 2 on, so that frame 1 is "
    "attended by frame 2 alone; object pointers are those of recent frames",
    "policy samurai, as in the original: an empty mask is measured as the box 0, 0, 0, 0 like any other; boxes reach "
    "to the last pixel, without + 1",
    "policy samurai, mended: the filter's state is part of the bank, so an empty bank starts anew (the original keeps "
    "it on the model from video to video), and every object has its own (the original looks at the first)",
    "policy samurai, mended: a second conditioning frame, or a first prompt after frame 0, is passed over in the walk "
    "back (the original raises KeyError)",
    "policy samurai, mended: a correction starts from the filter's state before the frame (in the original every click "
    "call moves it on)",
    "policy samurai, differs: the filter computes in float32, in a form that does not cancel (the original: float64)",
)

SAM2 = (
    "of more conditioning frames than conditioning_slots only the closest are attended, where upstream attends all: "
    "give the recipe as many slots as prompted frames are expected",
    "attend_memory: upstream's video predictor has it true for a click on a frame that was tracked already, false for "
    "any other prompted frame",
    "a correction click stays: its memory replaces the frame's (upstream's predictor tracks the frame again without "
    "the click unless add_all_frames_to_correct_as_cond is set)",
    "holes in masks are not filled (upstream's predictor fills them on CUDA alone, up to 8 pixels)",
)

SAM2_MASK_PROMPTS = (
    "a mask prompt is 0 and 1: upstream's video predictor thresholds it at 0.5 after its resize to the image's size",
)

ROUND_TRIP = (
    "as upstream's video predictor: a mask prompt's output and memory go by its low-resolution logits enlarged again, "
    "the memory by those thresholded (pin mask_prompt_round_trip)",
)

SAM3_MASK_PROMPTS = (
    "mask prompts of the tracker are taken as upstream's track_step takes them (its predictor resizes to 16 x grid and "
    "thresholds)",
)

PRESENCE_BELOW_ZERO = (
    "an object score in (-1, 0] keeps mask and pointer, and marks the memory as an absent object's, as in SAMURAI "
    "(pins presence_threshold and memory_presence_threshold)",
)

SAM = (
    "point_coords are pixels of the frame: x times the picture's width in the frame over its own width, y likewise by "
    "height; the shift by half a pixel is in the graph",
    "a box takes two places, its corners with labels 2 and 3 as they are given, sorted or not; a prompt has one box",
    "the original appends an empty point to points without a box: that is in the graph, nothing is to be added",
    "ious are not confined to 0 … 1",
    "both modes are always computed: low_res_masks and ious are the original's multimask_output=True, single_mask and "
    "single_iou its multimask_output=False; the original leaves it to the caller to choose",
    "a mask prompt is low-resolution logits as predict gives them, not a binary mask; the caller chooses from the "
    "candidates",
    "a prompt without any point and without a mask is the original's empty prompt: masks come out, and mean nothing",
)

SAM_FRAME = (
    "masks are of the whole frame, padding and all: enlarge them to the frame (segment_prompt does), cut off what is "
    "right and below of the picture, resize to the picture's size, bilinear without antialiasing; a pixel belongs "
    "to the mask where the logit is above 0",
)

SAM_SYMBOLIC = (
    "prompts is any number of prompts of the one image, from 1 on; a call takes some 50 MB of memory for each at full "
    "size, so give many in portions",
)


def manifest_notes(programs: Sequence[Program], memory: MemorySpec, model: TrackedModel) -> tuple[str, ...]:
    """The notes that concern these programs."""
    notes: tuple[str, ...] = ()
    if any(program.bank for program in programs):
        by_policy = {"recent": RECENT, "selection": SELECTION, "samurai": SAMURAI}
        notes += BANK + by_policy[memory.policy] + (SAM2 if isinstance(model, Sam2) else ())
        if any(program.bank and "mask_prompt" not in program.pinned for program in programs):
            notes += SAM2_MASK_PROMPTS if isinstance(model, Sam2) else SAM3_MASK_PROMPTS
            notes += ROUND_TRIP if model.tracker.mask_prompt_round_trip else ()
        if model.tracker.presence_threshold < model.tracker.memory_presence_threshold:
            notes += PRESENCE_BELOW_ZERO
    if any(component.name == "decode" for program in programs for component in program.components):
        notes += DETECTOR
    return notes


def sam_notes(programs: Sequence[Program]) -> tuple[str, ...]:
    """The notes that concern these programs of the original SAM."""
    ports = [port for program in programs for port in program.inputs if port.name == "point_labels"]
    if not ports:
        return ()
    return SAM + SAM_FRAME + (SAM_SYMBOLIC if isinstance(ports[0].shape[0], str) else ())
