"""Makes the pictures of a report in docs/images: ``python examples/report_images.py [SCORED]`` (needs Chromium).

Scores 200 rows of Alpaca with the demo's models first (minutes), or takes a file that was scored so; then selects the
better half and as many rows at random.
"""

from __future__ import annotations

import io
import json
import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image

from instructmining import Extras, select
from instructmining.writing.cache import cache_folder
from instructmining_export.demo.data import fetch
from instructmining_report import report

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "tests" / "helpers"))
from browser import Browser, browser  # noqa: E402 - a helper of the tests

IMAGES = ROOT / "docs" / "images"
ROWS = 200
MOST_BYTES = 250_000


def scored_rows(folder: Path) -> Path:
    """Score the first rows of Alpaca with the demo's models."""
    rows = json.loads(fetch("alpaca_en_demo.json", cache_folder() / "data").read_bytes())
    (folder / "alpaca.json").write_text(json.dumps(rows[:ROWS]), encoding="utf-8")
    options = ["--rule", "paper-v1", "--indicators", "all"]
    command = [sys.executable, "-m", "instructmining", "score", "alpaca.json", "-o", "alpaca.jsonl", *options]
    subprocess.run(command, cwd=folder, check=True)
    return folder / "alpaca.jsonl"


def picture(shown: Browser, name: str, at: str | None) -> None:
    """Write what the browser shows of a section, or of the top."""
    if at is not None:
        script = "document.getElementById(arguments[0]).scrollIntoView({ behavior: 'instant' })"
        shown.run(script, at)
    image = Image.open(io.BytesIO(shown.driver.get_screenshot_as_png())).convert("RGB")
    out = IMAGES / f"report-{name}.png"
    image.quantize(256, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE).save(out, optimize=True)
    print(f"{out.relative_to(ROOT)}: {image.width} x {image.height}, {out.stat().st_size:,} bytes")
    assert out.stat().st_size < MOST_BYTES


def main() -> None:
    """Make all three."""
    IMAGES.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as name, browser() as shown:
        folder = Path(name)
        scored = Path(sys.argv[1]) if len(sys.argv) > 1 else scored_rows(folder)
        best, drawn, page = folder / "best-half.jsonl", folder / "random-half.jsonl", folder / "report.html"
        select(scored, best, fraction=0.5, keep_scores=True, extras=Extras(random_baseline=drawn))
        report([scored, best, drawn], page)
        shown.show(page, width=1280, height=1500)
        picture(shown, "light", None)
        shown.show(page, width=1280, height=1500, dark=True)
        picture(shown, "dark", "cut")
        shown.show(page, width=390, height=1500)
        picture(shown, "phone", "columns")


if __name__ == "__main__":
    main()
