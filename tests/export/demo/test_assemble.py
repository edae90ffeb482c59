from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import orjson
import pytest
from demo_weights import link_weights

from instructmining.errors import ExportError
from instructmining_export.demo.assemble import check_files
from instructmining_export.demo.recipe import Recipe

WITHOUT = ("torch", "transformers", "onnx", "onnx_ir", "accelerate")


def test_the_demo_bundle_is_written_without_pytorch(tmp_path: Path) -> None:
    code = f"import sys; sys.modules.update(dict.fromkeys({WITHOUT}))\nfrom instructmining_cli.main import main; main()"
    link_weights(tmp_path / "cache")
    env = os.environ | {"INSTRUCTMINING_CACHE": str(tmp_path / "cache")}
    command = [sys.executable, "-c", code, "export", "--preset", "demo", "-o", str(tmp_path / "demo")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=env)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "demo/manifest.json").read_bytes() == Recipe.shipped().manifest.read_bytes()
    check_files(tmp_path / "demo")


def test_a_file_that_differs_from_the_exported_one_is_named(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(b"other")
    manifest = {"files": {"model.onnx": {"bytes": 5, "sha256": "0" * 64}}}
    (tmp_path / "manifest.json").write_bytes(orjson.dumps(manifest))
    with pytest.raises(ExportError, match=r"model\.onnx of the demo bundle: differs from the file"):
        check_files(tmp_path)
