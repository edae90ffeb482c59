from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest

from instructmining.inference.references import References
from instructmining_export import role_texts
from instructmining_export.demo.preset import export_demo
from instructmining_export.demo.recipe import AS_THEY_WERE, CONSTANTS, RECIPE, SHIPPED, TOKENIZER
from instructmining_export.demo.write_recipe import write_recipe
from instructmining_export.parity import parity_examples
from instructmining_export.roles import Settings

MEASURED = ("parity", "written_with")  # differ by machine and versions


def manifest(folder: Path) -> dict[str, Any]:
    content = orjson.loads((folder / "manifest.json").read_bytes())
    kept: dict[str, Any] = {key: value for key, value in content.items() if key not in MEASURED}
    for role in kept["roles"].values():
        for key in MEASURED:
            role.pop(key, None)
    kept["files"] = {name: facts for name, facts in kept["files"].items() if not name.endswith("references.json")}
    return kept


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("texts", [100, pytest.param(200, marks=pytest.mark.slow)])
def test_the_shipped_recipe_is_what_pytorch_exports(
    texts: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Graphs, tokenizers and manifest are compared whole; reference values of all texts, or of the shorter half."""
    examples = parity_examples()
    by_length = sorted(range(len(examples)), key=lambda at: sum(len(turn.text) for turn in examples[at].turns))
    shortest = sorted(by_length[:texts])
    monkeypatch.setattr(role_texts, "parity_examples", lambda: [examples[at] for at in shortest])
    export_demo(tmp_path / "demo", settings=Settings())
    recipe = tmp_path / "recipe"
    write_recipe(tmp_path / "demo", recipe)
    assert {file.relative_to(recipe) for file in recipe.rglob("*")} == {
        file.relative_to(SHIPPED) for file in SHIPPED.rglob("*")
    }
    exact = [name for name in (*AS_THEY_WERE, RECIPE) if not name.endswith("references.json")]
    for name in (*exact, f"perplexity/{TOKENIZER}", f"embedding/{TOKENIZER}"):
        assert (recipe / name).read_bytes() == (SHIPPED / name).read_bytes(), name
    made, shipped = (np.load(folder / "perplexity" / CONSTANTS) for folder in (recipe, SHIPPED))
    for name in (*made, *shipped):
        np.testing.assert_array_equal(made[name], shipped[name], err_msg=name)
    # Beside other files, it has the digests of the weights and tokenizers.
    assert manifest(recipe) == manifest(SHIPPED)
    for role in ("perplexity", "reward", "embedding"):
        _compare_references(recipe / role, SHIPPED / role, shortest)


def _compare_references(made_in: Path, shipped_in: Path, places: Sequence[int]) -> None:
    made, shipped = (References.load(folder / "references.json") for folder in (made_in, shipped_in))
    assert made.output == shipped.output
    for ours, theirs in zip(made.texts, [shipped.texts[at] for at in places], strict=True):
        np.testing.assert_array_equal(ours.ids, theirs.ids)
        np.testing.assert_array_equal(ours.scored, theirs.scored)
    for found, wanted in zip(made.values, [shipped.values[at] for at in places], strict=True):
        np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-4)
