from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from pretended_triton import PretendedTriton

from instructmining import Bundle, Rule, Scorer
from instructmining_serving.triton.repository import Repository

RULE = Rule("mine", 1.0, {"reward": -0.5, "mtld": 0.01})
INDICATORS = "perplexity,ifd,output_length"


@pytest.fixture(scope="session")
def repository(small_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("triton") / "models"
    Repository.of(Bundle.open(small_bundle), RULE, INDICATORS, device_kind="cpu").write(out)
    return out


@pytest.fixture
def server(repository: Path) -> PretendedTriton:
    return PretendedTriton(repository)


@pytest.fixture(scope="session")
def scorer(small_bundle: Path) -> Iterator[Scorer]:
    with Scorer.open(small_bundle, rule=RULE, indicators=INDICATORS, device="cpu") as opened:
        yield opened
