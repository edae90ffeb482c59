"""The worked example of docs/method.md prints what it says."""

from __future__ import annotations

import io
import os
import re
import shutil
import subprocess
import sys
from contextlib import redirect_stdout
from pathlib import Path

import pytest
from paths import ROOT

from instructmining.writing.cache import cache_folder
from instructmining_export.demo.data import fetch

SETS = ("alpaca_en_demo.json", "glaive_toolcall_en_demo.json", "v1_sft_demo.jsonl")


def test_the_python_of_the_page_prints_what_it_says(
    small_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = (ROOT / "docs" / "method.md").read_text(encoding="utf-8")
    ((code, wanted),) = re.findall(r"```python\n(.*?)```\n\n```text\n(.*?)```", text, re.DOTALL)
    (tmp_path / "demo-bundle").symlink_to(small_bundle)
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    monkeypatch.chdir(tmp_path)
    with redirect_stdout(io.StringIO()) as out:
        exec(code, {})
    assert out.getvalue() == wanted


@pytest.mark.slow
def test_every_command_of_the_page_prints_what_it_says(real_bundle: Path, tmp_path: Path) -> None:
    assert real_bundle.is_dir()
    for name in SETS:
        shutil.copy(fetch(name, cache_folder() / "data"), tmp_path)
    command = [sys.executable, str(ROOT / "examples" / "method.py"), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=dict(os.environ))
    assert done.returncode == 0, done.stderr
