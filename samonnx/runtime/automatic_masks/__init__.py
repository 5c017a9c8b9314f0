"""Masks of everything in a picture: a grid of points, one prompt each, and what filters leave of their masks.

The original's algorithm with its parameters, filters and their order (Kirillov et al., "Segment Anything", section 5;
upstream `segment_anything/automatic_mask_generator.py` and `segment_anything/utils/amg.py`). A file for each step:

    parameters      what may be chosen, and the presets
    point_grid      the points
    crops           the parts of the picture that are looked at one by one
    mask_cutting    low-resolution logits → pixels of the crop, and the counts for the stability score
    mask_runs       masks as run-length codes
    crop_masks      what is kept of a batch of masks
    suppression     of boxes that overlap
    small_regions   holes filled and islands dropped
    found_masks     the result
    generator       all of it together
"""
