"""Renders the page: one HTML document that loads nothing, with its style and script allowed by their digests."""

from __future__ import annotations

import base64
import hashlib
import math
import re
from collections.abc import Mapping
from functools import cache
from importlib import resources

import orjson
from jinja2 import Environment, FunctionLoader, StrictUndefined
from markupsafe import Markup

from instructmining_report.drawing.numbers import fixed, number, percent, signed
from instructmining_report.page.visible import cut, plain, visible
from instructmining_report.page.words import counted, words_of


def render(values: Mapping[str, object], data: Mapping[str, object]) -> bytes:
    """Return the page.

    Args:
        values: what the template shows.
        data: figures for the script.
    """
    style, script = _file("page.css"), _file("page.js")
    policy = (
        f"default-src 'none'; img-src data:; style-src {_digest(style)}; script-src {_digest(script)}; "
        "base-uri 'none'; form-action 'none'"
    )
    page = (
        _environment()
        .get_template("page.html.j2")
        .render(
            **values,
            style=Markup(style),
            script=Markup(script),
            policy=policy,
            data=_json(data),
        )
    )
    return page.encode("utf-8", "backslashreplace")


def _digest(text: str) -> str:
    """Return the digest of an element's text as a content security policy names it."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _json(data: Mapping[str, object]) -> Markup:
    """Return JSON that can stand in a script element: it holds no <, and no line separators."""
    text = orjson.dumps(data, option=orjson.OPT_SERIALIZE_NUMPY).decode()
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return Markup(text)  # escaped above


def _breakable(name: str) -> Markup:
    """Return a name that may be broken after underscores and dots."""
    return Markup("").join([piece + Markup("<wbr>") if piece in "_." else piece for piece in re.split("([_.])", name)])


@cache
def _environment() -> Environment:
    made = Environment(
        loader=FunctionLoader(_file),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    made.filters.update(
        number=number, percent=percent, fixed=fixed, signed=signed, visible=visible, plain=plain, counted=counted
    )
    made.filters.update(cut_to=cut, breakable=_breakable, plus_one=lambda value: number(value + 1))
    made.globals.update(words_of=words_of, infinite=math.inf)
    return made


def _file(name: str) -> str:
    return (resources.files("instructmining_report.page") / name).read_text(encoding="utf-8")
