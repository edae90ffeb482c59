"""The report in a real browser: it renders, logs nothing, asks for nothing, and its controls work."""

from __future__ import annotations

import importlib.util
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from scored_rows import pair_rows, scored_rows, write_run, write_scored

from instructmining import Extras, Rule, select
from instructmining_report import ReportOptions, report

if TYPE_CHECKING:
    from browser import Browser

IS_THERE = all(map(shutil.which, ("chromium", "chromedriver"))) and importlib.util.find_spec("selenium") is not None
pytestmark = pytest.mark.skipif(not IS_THERE, reason="needs chromium, chromedriver and selenium")
WORST = '<img src="https://example.com/x.png"><script>document.title = "taken"</script>'


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report of a whole set, its best half and a random half; one row holds markup that would load and run."""
    folder = tmp_path_factory.mktemp("report")
    rows = scored_rows(90)
    rows[0] |= {"output": WORST, "reward": 40.0}
    rows[0]["predicted_log_loss"] = (
        Rule.load("paper-v1")
        .predict({name: np.array(float(str(rows[0][name]))) for name in ("reward", "output_length", "knn_6")})
        .item()
    )
    scored = write_scored(folder / "scored.jsonl", rows)
    write_run(scored)
    select(scored, folder / "half.jsonl", fraction=0.5, extras=Extras(random_baseline=folder / "drawn.jsonl"))
    out = folder / "report.html"
    report([scored, folder / "half.jsonl", folder / "drawn.jsonl"], out)
    return out


@pytest.fixture(scope="module")
def shown() -> Iterator[Browser]:
    from browser import browser  # noqa: PLC0415 - selenium may be missing

    with browser() as opened:
        yield opened


def check_quiet(shown: Browser, page: Path) -> None:
    assert shown.logged() == []
    asked = [address for address in shown.requested() if not address.startswith("data:")]
    assert asked == [page.resolve().as_uri()]


def test_the_page_renders_without_a_message_or_a_request_and_its_slider_works(shown: Browser, page: Path) -> None:
    shown.show(page)
    assert shown.count("main > section") == 10
    assert shown.count("figure svg") > 20
    assert shown.run("return document.title") == "scored, half, drawn – scored rows"
    assert WORST in shown.text("#examples")
    assert shown.text("#cut-rows") == "45 of 90"
    shown.run(
        "const slider = document.getElementById('share'); slider.value = 10; slider.dispatchEvent(new Event('input'))"
    )
    assert shown.text("#cut-rows") == "9 of 90"
    assert shown.text("#share-out") == "10 %"
    assert not shown.run("return document.getElementById('cut-table').open")
    check_quiet(shown, page)


@pytest.mark.slow
def test_search_and_sort_work_on_the_table_and_the_conversations(shown: Browser, page: Path) -> None:
    shown.show(page)
    assert shown.count("#example-table tbody tr") == shown.count(".talk") == 15
    shown.find("#search").send_keys("example.com")
    assert shown.count("#example-table tbody tr") == shown.count(".talk") == 1
    assert shown.text("#found") == "1 of 15 found"
    shown.find("#search").clear()
    shown.find("#search").send_keys("x\b")
    assert shown.count(".talk") == 15
    head = "#example-table thead th:nth-child(1) button"
    for expected in ("1", "90"):
        shown.run("document.querySelector(arguments[0]).click()", head)
        assert shown.text("#example-table tbody tr td") == expected
        assert shown.run("return document.querySelector('.talk').dataset.example") == expected
    assert shown.run("return document.querySelector('#example-table th').getAttribute('aria-sort')") == "descending"
    check_quiet(shown, page)


@pytest.mark.slow
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_light_and_dark_follow_the_system_and_the_button(shown: Browser, page: Path, dark: bool) -> None:
    def ground() -> str:
        return str(shown.run("return getComputedStyle(document.body).backgroundColor"))

    shown.show(page, dark=dark)
    light, black = "rgb(247, 247, 245)", "rgb(19, 21, 24)"
    assert ground() == (black if dark else light)
    assert shown.text("#theme") == ("Light" if dark else "Dark")
    shown.find("#theme").click()
    assert ground() == (light if dark else black)
    ink = shown.run("return getComputedStyle(document.querySelector('figure svg text')).fill")
    assert ink == ("rgb(92, 99, 109)" if dark else "rgb(160, 167, 177)")
    check_quiet(shown, page)


@pytest.mark.slow
def test_the_keyboard_reaches_everything_in_the_order_of_the_page(shown: Browser, page: Path) -> None:
    shown.show(page)
    assert shown.tab().startswith("A  Skip to the figures")
    assert shown.tab().startswith("BUTTON theme")
    order = [shown.tab() for _ in range(9)]
    assert [one.split()[0] for one in order] == ["A"] * 9
    reached = []
    for _ in range(120):
        reached.append(shown.tab())
        if reached[-1].startswith("INPUT search"):
            break
    names = " | ".join(reached)
    assert "INPUT share" in names
    assert "SUMMARY" in names
    assert reached[-1].startswith("INPUT search")
    styles = shown.run(
        "const found = getComputedStyle(document.activeElement); return [found.outlineStyle, found.outlineWidth]"
    )
    assert styles == ["solid", "2px"]


@pytest.mark.slow
@pytest.mark.parametrize("width", [320, 390, 800, 1600])
def test_no_width_makes_the_page_scroll_sideways(shown: Browser, page: Path, width: int) -> None:
    shown.show(page, width=width)
    shown.run("document.querySelectorAll('details').forEach((one) => { one.open = true; })")
    assert shown.run("return document.documentElement.scrollWidth") <= width


@pytest.mark.slow
def test_every_plot_and_control_has_a_name(shown: Browser, page: Path) -> None:
    shown.show(page)
    script = """
        const named = (one) => one.getAttribute('aria-label') || one.textContent.trim() || (one.labels || []).length;
        return [...document.querySelectorAll('button, input, svg[role=img], [role=region], summary, a')]
          .filter((one) => !named(one)).map((one) => one.outerHTML.slice(0, 200));
    """
    assert shown.run(script) == []


@pytest.mark.slow
def test_without_a_script_the_tables_stand_there(shown: Browser, page: Path) -> None:
    shown.driver.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    try:
        shown.show(page)
        assert shown.find("#cut-table table").is_displayed()
        assert not shown.find("#slider").is_displayed()
        assert not shown.find("#theme").is_displayed()
        assert shown.find("#example-table").is_displayed()
    finally:
        shown.driver.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["pairs", "empty", "one", "without texts"])
def test_other_pages_are_quiet_too(shown: Browser, tmp_path: Path, kind: str) -> None:
    rows = {"pairs": pair_rows(), "empty": [], "one": scored_rows(1)}.get(kind, scored_rows(20))
    out = tmp_path / "report.html"
    rule = "paper-v1" if kind == "pairs" else None
    report(write_scored(tmp_path / "s.jsonl", rows), out, ReportOptions(rule=rule, texts=kind != "without texts"))
    shown.show(out, width=390)
    assert shown.run("return document.documentElement.scrollWidth") <= 390
    check_quiet(shown, out)
