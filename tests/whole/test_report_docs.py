"""What docs/report.md shows runs, and names only options that exist."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable
from pathlib import Path

import orjson
import pytest
from commands import commands_of
from paths import EXAMPLES, ROOT

PAGE = (ROOT / "docs" / "report.md").read_text(encoding="utf-8")


def test_the_commands_and_the_python_of_the_page_run(
    run: Callable[..., int],
    small_bundle: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("instructmining_cli.run.demo_bundle.demo_bundle", lambda _: small_bundle)
    rows = orjson.loads((EXAMPLES / "alpaca.json").read_bytes())
    with_source = [row | {"source": f"s{number % 2}"} for number, row in enumerate(rows)]
    Path("data.jsonl").write_bytes(b"".join(orjson.dumps(row) + b"\n" for row in with_source))
    (commands,) = re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL)
    lines = [shlex.split(line) for line in commands.splitlines() if line.startswith("instructmining ")]
    assert [line[1] for line in lines] == ["score", "select", "report"]
    for _, *arguments in lines:
        assert run(*arguments) == 0
    assert Path("report.html").stat().st_size > 50_000
    Path("report.html").unlink()
    (code,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    capsys.readouterr()
    exec(compile(code, "docs/report.md", "exec"), {})
    assert re.fullmatch(r"\d+ \{'scored': 8, 'best': 4\}\n", capsys.readouterr().out)


def test_the_page_names_options_and_pictures_that_exist() -> None:
    options = {name for option in commands_of()["report"].params for name in option.opts}
    table = PAGE.split("## Options", 1)[1].split("From Python", 1)[0]
    named = set(re.findall(r"^\|.*?\|", table, re.MULTILINE))
    assert {name for line in named for name in re.findall(r"--\w[\w-]*", line)} <= options
    pictures = re.findall(r"\]\((images/[\w.-]+)\)", PAGE)
    assert len(pictures) == 3
    assert all(0 < (ROOT / "docs" / picture).stat().st_size < 250_000 for picture in pictures)
