from __future__ import annotations

import re

from page_parser import Page

from instructmining_report.drawing.svg import INK, SETS, plot


def drawn(name: str = "one", label: str = 'a "label" <b>', text: str = "<i>&") -> str:
    with plot(100) as made:
        made.axes.plot([0, 1], [0, 1], color=SETS[0], marker="o")
        made.axes.text(0, 0, text, color=INK)
        return str(made.svg(name, label))


def test_a_drawing_has_the_pages_colours_and_no_style() -> None:
    svg = drawn()
    assert 'stroke="var(--set-1)"' in svg
    assert 'fill="currentColor"' in svg
    assert "style" not in svg
    assert "metadata" not in svg
    assert "DejaVu" not in svg
    assert not re.search(r"#0[1-9a]0", svg)


def test_texts_and_labels_are_escaped() -> None:
    page = Page(drawn())
    assert page.tags <= {"svg", "g", "path", "text", "defs", "use", "clippath", "rect"}
    assert "<i>&" in page.text
    assert page.elements[0][1]["aria-label"] == 'a "label" <b>'


def test_ids_are_of_the_plot_so_that_a_page_has_each_once() -> None:
    one, two = Page(drawn("one")), Page(drawn("two"))
    assert one.ids
    assert not set(one.ids) & set(two.ids)
    assert all(name.startswith("one-") for name in one.ids)


def test_the_same_plot_has_the_same_bytes() -> None:
    assert drawn() == drawn()
