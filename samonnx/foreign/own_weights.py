"""Own weights: those that a foreign model's constructor drew, kept as they are."""

from __future__ import annotations

from dataclasses import replace

from torch import nn

from samonnx.weights import SEEDED_NOTE, WHOLE_MODEL, Components, WeightsReport, load_weights

__all__ = ["keep_own"]


def keep_own(module: nn.Module, seed: int, components: Components = WHOLE_MODEL) -> WeightsReport:
    """A report on the weights of `module`, which its constructor drew after `torch.manual_seed(seed)`.

    Raises WeightsError where they are not all finite, or not there (the meta device).
    """
    own = {key: value.clone() for key, value in module.state_dict().items()}
    report = load_weights(module, own, components, file="the model's own constructor")
    return replace(report, source=f"own(seed={seed})", file=None, notes=(SEEDED_NOTE,))
