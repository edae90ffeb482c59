"""Write the demo bundle's recipe from a bundle that was exported with PyTorch; for maintainers.

After a change of a graph, a template or the reference texts::

    python -m instructmining_export.demo.write_recipe

exports the demo with PyTorch, which checks it against transformers, and replaces the files in ``recipe/``. A test
repeats it and compares.
"""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from pathlib import Path

import numpy as np
import onnx_ir as ir

from instructmining.bundle import MANIFEST
from instructmining_export.demo.preset import export_demo
from instructmining_export.demo.recipe import (
    AS_THEY_WERE,
    CONSTANTS,
    DATA,
    ENCODER,
    LANGUAGE_MODEL,
    RECIPE,
    SHIPPED,
    TOKENIZER,
)
from instructmining_export.roles import Settings


def main() -> None:
    """Export the demo and write its recipe."""
    with tempfile.TemporaryDirectory() as temporary:
        bundle = Path(temporary) / "demo"
        export_demo(bundle, settings=Settings(report=lambda message: print(message, file=sys.stderr)))  # noqa: T201
        write_recipe(bundle, SHIPPED)


def write_recipe(bundle: Path, folder: Path) -> None:
    """Write the recipe of an exported demo bundle into a folder."""
    for name in (*AS_THEY_WERE, MANIFEST):
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(bundle / name, target)
    names = {graph: _tensors(bundle / graph, folder / graph) for graph in (LANGUAGE_MODEL, ENCODER)}
    (folder / RECIPE).write_text(json.dumps(names, indent=0) + "\n", encoding="utf-8")
    for graph in (LANGUAGE_MODEL, ENCODER):
        content = json.loads((bundle / graph / TOKENIZER).read_bytes())
        content["model"]["vocab"] = {}
        if "merges" in content["model"]:
            content["model"]["merges"] = []
        (folder / graph / TOKENIZER).write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", "utf-8")


def _tensors(exported: Path, folder: Path) -> list[str]:
    """Return the names of the tensors in a graph's data, in order; writes those that are no weights."""
    found = ir.load(exported / "model.onnx").graph.initializers.values()
    stored = [value.const_value for value in found if isinstance(value.const_value, ir.ExternalTensor)]
    whole = sorted((tensor for tensor in stored if ".rows_" not in tensor.name), key=lambda tensor: tensor.offset or 0)
    end = 0
    for tensor in whole:
        assert tensor.offset == end, f"{tensor.name} begins at {tensor.offset}, wanted {end}"
        end += tensor.nbytes
    assert end == (exported / DATA).stat().st_size
    constants = {tensor.name: tensor.numpy() for tensor in whole if not _is_weight(tensor)}
    if constants:
        np.savez_compressed(folder / CONSTANTS, allow_pickle=False, **constants)
    return [tensor.name for tensor in whole]


def _is_weight(tensor: ir.ExternalTensor) -> bool:
    """Tell the checkpoint's tensors from rotary tables, and from the reward head, which is in float64."""
    return tensor.dtype == ir.DataType.FLOAT and tensor.name.removesuffix(".T").endswith((".weight", ".bias"))


if __name__ == "__main__":
    main()
