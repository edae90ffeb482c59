"""Runs every command of docs/method.md in a folder and compares what it prints, or with ``--write`` writes it there.

``python examples/method.py FOLDER`` needs the three sets in FOLDER and the demo bundle. Scoring takes a quarter of an
hour on two cores; a scored file that is there already is taken as it is.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

PAGE = Path(__file__).parents[1] / "docs" / "method.md"
_BLOCK = re.compile(r"```sh\n(?P<commands>.*?)```(?:\n\n```text\n(?P<text>.*?)```)?", re.DOTALL)


def printed(commands: str, folder: Path) -> str:
    """What commands print, standard error included, in a folder where the examples can be seen."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    shown = []
    for command in commands.splitlines():
        out = re.search(r"\bscore \S+ -o (\S+)", command)
        if out is not None and (folder / out[1]).exists():
            continue
        overwrite = " --overwrite" if " -o " in command and out is None else ""
        done = subprocess.run(
            f"{command}{overwrite}",
            shell=True,
            cwd=folder,
            env={**{name: value for name, value in os.environ.items() if name != "COLUMNS"}, "PATH": path},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        if done.returncode:
            raise SystemExit(f"{command}: exit code {done.returncode}\n{done.stdout}")
        shown += [
            line for line in done.stdout.splitlines(keepends=True) if not line.startswith("rescored ")
        ]  # its time
    return "".join(shown)


def main(folder: Path, *, write: bool) -> int:
    """Run, compare or write; the number of blocks that differ."""
    examples = folder / "examples"
    if not examples.exists():
        examples.symlink_to(PAGE.parents[1] / "examples")
    different = 0

    def block(found: re.Match[str]) -> str:
        nonlocal different
        shown = printed(found["commands"], folder)
        if found["text"] is None:
            return found[0]
        if shown != found["text"]:
            different += 1
            if not write:
                print(f"differs: {found['commands']}{shown}", file=sys.stderr)
        return f"```sh\n{found['commands']}```\n\n```text\n{shown}```"

    text = _BLOCK.sub(block, PAGE.read_text(encoding="utf-8"))
    if write:
        PAGE.write_text(text, encoding="utf-8")
    return different


if __name__ == "__main__":
    differences = main(Path(sys.argv[1]), write="--write" in sys.argv[2:])
    sys.exit(0 if "--write" in sys.argv[2:] else min(differences, 1))
