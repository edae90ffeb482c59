from __future__ import annotations

import math
import re

import pytest
from balanced_html import read_html

from instructmining.tables import Bar, Facts, Line, Scatter, Spread, Table
from instructmining.tables.html import as_html

HOSTILE = "<script>alert(1)</script><img src=x onerror=alert(1)> \"'& </td></table> \u202eabc\x1b[2J \u05d0\udcff"


def test_a_table_is_rows_with_heads_and_nothing_else() -> None:
    table = Table("the caption", ("column", "mean"), (("mtld", "3.5"),), units=("words",), marks=(Bar(0.5, 1.0),))
    html = as_html([Line("2 rows", "a.jsonl"), table])
    plain = re.sub(r' style="[^"]*"', "", html)
    drawing = re.compile(r"<svg.*?</svg>")
    assert drawing.sub("(bar)", plain).splitlines() == [
        '<div dir="ltr">',
        "<p><strong><bdi>a.jsonl</bdi></strong>: 2 rows</p>",
        "<div><table><caption>the caption</caption>",
        '<thead><tr><th scope="col">column</th><td></td><th scope="col"><bdi>mean</bdi></th></tr></thead>',
        "<tbody>",
        '<tr><th scope="row"><bdi>mtld</bdi> <small>words</small></th><td>(bar)</td><td>3.5</td></tr>',
        "</tbody>",
        "</table></div>",
        "</div>",
    ]
    assert read_html(html).tables == [[["column", "", "mean"], ["mtld words", "", "3.5"]]]


def test_every_text_is_escaped_wherever_it_stands() -> None:
    blocks = [
        Line(HOSTILE, HOSTILE),
        Facts(HOSTILE, ((HOSTILE, HOSTILE),)),
        Table(HOSTILE, (HOSTILE, HOSTILE), ((HOSTILE, HOSTILE),), units=(HOSTILE,)),
        Scatter(HOSTILE, (1.0,), (1.0,), (HOSTILE,)),
    ]
    html = as_html(blocks)
    found = read_html(html)
    assert not {"script", "img"} & set(found.elements)
    assert not [name for _, name, _ in found.attributes if name.startswith("on")]
    assert not re.search("[\x00-\x08\x1b\u202a-\u202e\u2066-\u2069]", html)
    html.encode()  # the half of a surrogate pair is written out
    shown = HOSTILE.replace("\u202e", "\\u202e").replace("\x1b", "\\u001b").replace("\udcff", "\\udcff")
    assert found.text.count(shown) == 13
    assert found.tables[0][0] == [shown, shown]


def test_nothing_is_loaded_run_or_painted_in_a_colour_of_its_own() -> None:
    spread = Spread((0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0))
    table = Table("t", ("a", "b"), (("x", "1"), ("y", "2")), marks=(spread, Bar(-1.0, 1.0)))
    html = as_html([table, Scatter("s", (1.0, 2.0), (-1.0, 1.0), ("p", "q"))])
    found = read_html(html)
    assert not {"script", "style", "link", "img", "iframe", "a", "image", "use"} & set(found.elements)
    assert not {name for _, name, _ in found.attributes} & {"src", "href", "id", "class", "bgcolor"}
    assert "url(" not in html
    assert "background" not in html
    assert set(re.findall(r'(?:fill|stroke)="([^"]*)"', html)) == {"currentColor"}
    assert "color:inherit" in html
    assert not re.search(r"#[0-9a-f]{3}", html)


@pytest.mark.parametrize(
    "mark",
    [
        None,
        Bar(math.nan, 1.0),
        Bar(math.inf, 1.0),
        Bar(1.0, 0.0),
        Bar(1.0, math.inf),
        Spread((1.0,) * 7),
        Spread((math.nan,) * 7),
        Spread((-math.inf, *(1.0,) * 6)),
    ],
)
def test_what_cannot_be_drawn_leaves_its_cell_empty(mark: Bar | Spread | None) -> None:
    html = as_html([Table("t", ("a", "b"), (("x", "nan"),), marks=(mark,))])
    assert "<svg" not in html
    assert read_html(html).tables == [[["a", "", "b"], ["x", "", "nan"]]]


def test_a_bar_starts_at_zero_and_a_box_keeps_the_order_of_its_quantiles() -> None:
    html = as_html([Table("t", ("a",), (("x",), ("y",)), marks=(Bar(-2.0, 2.0), Spread((0, 1, 2, 5, 6, 9, 10))))])
    boxes = [tuple(map(float, box)) for box in re.findall(r'<rect x="([\d.]+)" y="[\d.]+" width="([\d.]+)"', html)]
    assert boxes[0] == (1.0, 59.0)  # from the left border to the middle of 120
    (low, wide), (quarter, narrow) = boxes[1:]
    assert (low, wide, quarter, narrow) == pytest.approx((12.8, 94.4, 24.6, 47.2))


def test_points_that_are_not_finite_are_left_out_and_many_are_thinned() -> None:
    assert "<circle" not in as_html([Scatter("none", (), (), ())])
    html = as_html([Scatter("s", (1.0, math.nan, 2.0), (0.0, 1.0, math.inf), ("a", "b", "c"))])
    assert html.count("<circle") == 1
    numbers = tuple(map(float, range(5001)))
    assert as_html([Scatter("s", numbers, numbers, tuple(map(str, numbers)))]).count("<circle") == 1667
