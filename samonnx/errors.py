"""The one exception family of samonnx: text written for the person at the keyboard."""

from __future__ import annotations

__all__ = ["SamonnxError", "VerificationError"]


class SamonnxError(Exception):
    """Anything that a user can mend: the message says what was found, where, what was expected and what to do."""


class VerificationError(SamonnxError):
    """Something was built or run, and its numbers are not those promised (exit code `CHECK_FAILED`)."""
