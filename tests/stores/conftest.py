"""What the tests of stores share."""

from __future__ import annotations

from pathlib import Path

import pytest
from pretended_store import PretendedStore

from instructmining.stores import filesystems, transfers


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> PretendedStore:
    """Return a store that all addresses lead to."""
    pretended = PretendedStore(tmp_path / "store")
    pretended.folder.mkdir()
    monkeypatch.setattr(filesystems, "_opened", lambda *_: pretended)
    monkeypatch.setattr(transfers, "_PAUSE_S", 0.0)
    return pretended
