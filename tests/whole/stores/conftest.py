"""Stores of this machine that only these tests need."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from other_stores import Store, missing, serving_azure, serving_gcs


@pytest.fixture(scope="session", params=["gs", "az"])
def other_server(request: pytest.FixtureRequest) -> Iterator[Store]:
    """Google's store, then Azure's."""
    if reason := missing(request.param):
        pytest.skip(reason)
    with {"gs": serving_gcs, "az": serving_azure}[request.param]() as store:
        yield store


@pytest.fixture
def other_store(other_server: Store) -> Store:
    """Google's store, then Azure's; empty, and all requests pass."""
    other_server.reset()
    return other_server
