"""docs/troubleshooting.md is true: its commands print what it quotes, and what it quotes without one is in the code."""

from __future__ import annotations

import ast
import re
import shlex
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import pytest
from paths import ROOT
from troubles import make_folder

PAGE = (ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
ENTRIES = dict(re.findall(r"^### `(.+)`\n\n((?:(?!^##).*\n)*)", PAGE, re.MULTILINE))
RUN = {name: entry for name, entry in ENTRIES.items() if "```console" in entry}
QUOTED = {name: entry for name, entry in ENTRIES.items() if "```text" in entry}
VARIES = "…"
OF_THE_SYSTEM = {"Killed", "No space left on device"}  # not in the code; tests/writing and `make faults` fill disks


def block(entry: str, kind: str) -> list[str]:
    (found,) = re.findall(rf"```{kind}\n(.*?)```", entry, re.DOTALL)
    return found.splitlines()


def steps(entry: str) -> Iterator[tuple[list[str], list[str]]]:
    """Yield each command with the lines that it prints, among others."""
    for step in "\n".join(block(entry, "console")).split("$ ")[1:]:
        command, *lines = step.strip().splitlines()
        yield shlex.split(command)[1:], lines


def pattern(line: str) -> re.Pattern[str]:
    return re.compile(".*".join(map(re.escape, line.split(VARIES))))


@pytest.mark.parametrize("name", RUN)
def test_the_command_prints_what_the_page_says(
    name: str,
    run: Callable[..., int],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    small_bundle: Path,
) -> None:
    for secret in ("AZURE_STORAGE_ACCOUNT_NAME", "AZURE_STORAGE_ACCOUNT_KEY"):
        monkeypatch.delenv(secret, raising=False)
    make_folder(tmp_path, small_bundle)
    monkeypatch.chdir(tmp_path)
    entry = RUN[name]
    for command, lines in steps(entry):
        code = run(*command)
        printed = capsys.readouterr()
        said = (printed.out + printed.err).splitlines()
        assert [line for line in lines if not any(pattern(line).fullmatch(one) for one in said)] == [], said
    assert lines
    wanted = re.search(r"Exit code (\d+)", entry)
    assert code == (int(wanted[1]) if wanted else 1)


@pytest.mark.parametrize("name", QUOTED)
def test_a_message_without_a_command_is_one_of_the_code(name: str) -> None:
    for line in block(QUOTED[name], "text"):
        message = line.removeprefix("error: ")
        assert len(message.replace(VARIES, "").strip(" :;")) >= 9
        known = [one for one in messages() if pattern(message).fullmatch(one) or message in one]
        assert known, message


@pytest.mark.parametrize("name", ENTRIES)
def test_a_heading_is_found_by_searching_for_what_is_printed(name: str) -> None:
    entry = ENTRIES[name]
    if name in OF_THE_SYSTEM:
        return
    text = "\n".join(block(entry, "console" if name in RUN else "text"))
    words = [part for part in re.split(rf"{VARIES}|''", name.replace("caution: ", "").replace("warning: ", "")) if part]
    assert [part for part in words if part.strip(" ',?;") not in text] == [], text


def test_the_page_has_no_heading_twice_and_each_entry_quotes_a_message() -> None:
    names = re.findall(r"^### `(.+)`$", PAGE, re.MULTILINE)
    assert len(names) == len(set(names)) == len(ENTRIES)
    assert len(RUN) >= 40
    assert len(QUOTED) >= 25
    assert set(ENTRIES) - set(RUN) - set(QUOTED) == OF_THE_SYSTEM


def test_the_exit_codes_are_those_of_the_command_line() -> None:
    from instructmining_cli.main import main  # noqa: PLC0415 - its text is what is compared

    table = re.findall(r"^\| (\d+) \|", PAGE, re.MULTILINE)
    assert table == ["0", "1", "2", "3", "130", "143", "141"]
    assert set(table) == set(re.findall(r"\b\d+\b", main.__doc__ or ""))


@cache
def messages() -> frozenset[str]:
    """Every text in the code, with what varies as one sign; constants of the same module are put in."""
    found: set[str] = set()
    for root in ("engine", "cli", "scale", "serving", "export"):
        for path in (ROOT / root).rglob("*.py"):
            tree = ast.parse(path.read_text(encoding="utf-8"))
            constants = {
                target.id: node.value.value
                for node in tree.body
                if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant)
                for target in node.targets
                if isinstance(target, ast.Name) and isinstance(node.value.value, str)
            }
            for node in ast.walk(tree):
                if isinstance(node, ast.JoinedStr):
                    found.add(_collapsed("".join(_part(part, constants) for part in node.values)))
                elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                    found.add(node.value)
    return frozenset(found)


def _part(part: ast.expr, constants: dict[str, str]) -> str:
    if isinstance(part, ast.Constant):
        return str(part.value)
    if isinstance(part, ast.FormattedValue) and isinstance(part.value, ast.Name) and part.value.id in constants:
        return constants[part.value.id]
    return VARIES


def _collapsed(text: str) -> str:
    return re.sub(f"{VARIES}+", VARIES, text)
