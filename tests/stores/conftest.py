"""What the tests of stores share."""

from __future__ import annotations

from pretended_store import store

__all__ = ["store"]
