"""Turns matplotlib's figures into small SVG in the colours of the page, with the same bytes for the same figure."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import MappingProxyType
from xml.etree import ElementTree

import matplotlib as mpl
from markupsafe import Markup, escape
from matplotlib.axes import Axes
from matplotlib.figure import Figure

WIDTH = 330  # units of the drawing, which a phone shows as they are
_POINTS_PER_INCH = 72

# Colours that the drawing has in place of the page's own, which differ by light and dark.
INK, FAINT, GRID = "#010203", "#020304", "#030405"
SETS = ("#0a0b01", "#0a0b02", "#0a0b03", "#0a0b04", "#0a0b05", "#0a0b06", "#0a0b07", "#0a0b08")
PAPER = "#040506"
_PAGE = {
    INK: "currentColor",
    FAINT: "var(--faint)",
    GRID: "var(--line)",
    PAPER: "var(--card)",
    **{colour: f"var(--set-{place})" for place, colour in enumerate(SETS, 1)},
}
_DECIMALS = re.compile(r"-?\d+\.\d+")
_PROPERTY = re.compile(r"\s*([\w-]+)\s*:\s*([^;]+)")
_LEFT_OUT = {"font-family", "font", "stroke-linejoin", "stroke-miterlimit"}
_TEXT_TAGS = {"text", "tspan"}


@contextmanager
def plot(height: int, *, left: int = 44, right: int = 10, top: int = 10, bottom: int = 40) -> Iterator[Plot]:
    """Yield a plot to draw in; margins are in units of the drawing."""
    with mpl.rc_context():
        mpl.rcdefaults()
        _set_style()
        figure = Figure(figsize=(WIDTH / _POINTS_PER_INCH, height / _POINTS_PER_INCH), facecolor="none")
        box = (left / WIDTH, bottom / height, (WIDTH - left - right) / WIDTH, (height - bottom - top) / height)
        axes = figure.add_axes(box)
        axes.tick_params(which="both", length=0, labelsize=10)
        yield Plot(figure, axes)


def _set_style() -> None:
    """Set the style of all plots, whatever the user's own settings are."""
    mpl.rcParams.update(
        {
            "svg.fonttype": "none",
            "font.family": ["DejaVu Sans"],  # comes with matplotlib: the same widths on every machine
            "font.size": 11,
            "text.color": INK,
            "axes.labelcolor": FAINT,
            "axes.edgecolor": GRID,
            "axes.facecolor": "none",
            "axes.axisbelow": True,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.spines.left": False,
            "grid.color": GRID,
            "grid.linewidth": 0.8,
            "xtick.color": GRID,
            "ytick.color": GRID,
            "xtick.labelcolor": FAINT,
            "ytick.labelcolor": FAINT,
            "xtick.bottom": False,
            "ytick.left": False,
            "xtick.minor.bottom": False,
            "ytick.minor.left": False,
            "path.simplify": False,
        }
    )


class Plot:
    """A figure with one pair of axes."""

    def __init__(self, figure: Figure, axes: Axes) -> None:
        """Keep both."""
        self.figure = figure
        self.axes = axes

    def svg(self, name: str, label: str, texts: Mapping[str, str] = MappingProxyType({})) -> Markup:
        """Return the drawing for a page.

        Args:
            name: unique in the page, for the ids inside.
            label: what the plot shows, for readers who do not see it.
            texts: what stands in place of texts that were drawn. The user's names go this way: matplotlib takes $ for
                formulas, and warns of letters that its font lacks.
        """
        written = io.BytesIO()
        with mpl.rc_context({"svg.hashsalt": name, "svg.fonttype": "none"}):
            self.figure.savefig(written, format="svg", metadata={"Date": None})
        return _for_page(written.getvalue(), name, label, texts)


def _for_page(svg: bytes, name: str, label: str, texts: Mapping[str, str]) -> Markup:
    root = ElementTree.fromstring(svg)  # written by matplotlib
    used = {value[1:] for element in root.iter() for key, value in element.items() if _local(key) == "href"}
    used |= {found for element in root.iter() for value in element.attrib.values() for found in _urls(value)}
    names = {old: f"{name}-{number}" for number, old in enumerate(sorted(used))}
    inner = "".join(_written(child, names, texts) for child in root)
    box = root.get("viewBox", "")
    head = f'<svg viewBox="{box}" role="img" aria-label="{escape(label)}">'
    return Markup(f"{head}{inner}</svg>")  # every text in it is escaped


def _urls(value: str) -> list[str]:
    return re.findall(r"url\(#([^)]+)\)", value)


def _local(tag: str) -> str:
    return tag.rpartition("}")[2]


def _written(element: ElementTree.Element, names: Mapping[str, str], texts: Mapping[str, str]) -> str:
    """Return an element as the page has it; without what only a document of its own needs."""
    tag = _local(element.tag)
    if tag in {"metadata", "style"}:
        return ""
    inner = "".join(_written(child, names, texts) for child in element)
    if tag in _TEXT_TAGS:
        text = element.text or ""
        inner = str(escape(texts.get(text, text))) + inner
    if tag in {"g", "defs"} and not inner:
        return ""
    attributes = _attributes(element, names)
    if tag == "g" and not attributes:
        return inner
    if tag == "path" and attributes.get("fill") == "none" and "stroke" not in attributes:
        return ""
    listed = "".join(f' {key}="{escape(value)}"' for key, value in attributes.items())
    return f"<{tag}{listed}>{inner}</{tag}>"


def _attributes(element: ElementTree.Element, names: Mapping[str, str]) -> dict[str, str]:
    found: dict[str, str] = {}
    for key, value in element.items():
        match _local(key):
            case "id":
                if value in names:
                    found["id"] = names[value]
            case "style":
                for prop, given in _PROPERTY.findall(value):
                    if prop not in _LEFT_OUT:
                        found[prop] = given.strip()
            case "href" if value.startswith("#"):
                found["href"] = f"#{names[value[1:]]}"
            case "href":
                found["href"] = value
            case "clip-path":
                found["clip-path"] = f"url(#{names[_urls(value)[0]]})"
            case "d" | "transform" | "points" | "x" | "y" | "width" | "height" as name:
                found[name] = " ".join(_DECIMALS.sub(_rounded, value).split())
            case other:
                found[other] = value
    return {key: _PAGE.get(value, value) for key, value in found.items()}


def _rounded(found: re.Match[str]) -> str:
    return f"{float(found[0]):.2f}".rstrip("0").rstrip(".") or "0"
