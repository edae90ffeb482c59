"""A Ray cluster of several nodes on this machine."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest
from paths import ROOT
from ray_workers import STORE

if TYPE_CHECKING:
    from ray.cluster_utils import Cluster


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """A head without room for workers, and two nodes for one worker each."""
    from ray.cluster_utils import Cluster as Started  # noqa: PLC0415 - peer

    os.environ.setdefault("RAY_memory_monitor_refresh_ms", "0")  # else it kills workers where a machine is full
    os.environ["PYTHONPATH"] = os.pathsep.join([str(ROOT / "tests" / "helpers"), os.environ.get("PYTHONPATH", "")])
    started = Started(initialize_head=True, head_node_args={"num_cpus": 0, "object_store_memory": STORE})
    for _ in range(2):
        started.add_node(num_cpus=1, object_store_memory=STORE)
    started.wait_for_nodes()
    yield started
    started.shutdown()
