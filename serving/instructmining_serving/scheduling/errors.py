"""Why a request is not computed."""

from __future__ import annotations

from instructmining.errors import InstructMiningError


class ClosingError(InstructMiningError):
    """The service is shutting down; another one may take the request."""


class HangingError(InstructMiningError):
    """A batch does not end; only the end of the process stops it."""


class OverloadedError(InstructMiningError):
    """More waits than may wait; the request can be repeated after some seconds."""

    def __init__(self, message: str, retry_after_s: float) -> None:
        """Take the seconds after which there should be room."""
        super().__init__(message)
        self.retry_after_s = retry_after_s
