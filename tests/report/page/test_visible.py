from __future__ import annotations

import pytest
from markupsafe import Markup

from instructmining_report.page.visible import cut, plain, visible


def test_markup_is_escaped_and_plain_text_stays() -> None:
    assert visible("a <b> & \"c\" 'd'\n\te é 漢 🙂") == Markup("a &lt;b&gt; &amp; &#34;c&#34; &#39;d&#39;\n\te é 漢 🙂")


@pytest.mark.parametrize("code", [0x00, 0x1B, 0x7F, 0x85, 0x200B, 0x202E, 0x2028, 0x2066, 0xFEFF, 0xD800, 0xE0041])
def test_what_is_not_seen_is_written_as_its_code_point(code: int) -> None:
    assert visible(f"a{chr(code)}b") == f'a<span class="code">U+{code:04X}</span>b'
    assert plain(f"a{chr(code)}b") == f"a[U+{code:04X}]b"
    visible(f"a{chr(code)}b").encode()


def test_windows_line_ends_are_line_ends() -> None:
    assert visible("a\r\nb\rc") == 'a\nb<span class="code">U+000D</span>c'


@pytest.mark.parametrize("text", ["x" * 1000, "<" * 1000, "\x00" * 1000, "é<\x00" * 300])
def test_a_cut_text_fits_and_counts_what_is_left_out(text: str) -> None:
    shown, hidden = cut(text, 300)
    assert len(shown.encode()) <= 300
    assert shown == visible(text[: len(text) - hidden])
    assert hidden > 0


def test_a_short_text_is_not_cut() -> None:
    assert cut("abc", 300) == (Markup("abc"), 0)
    assert cut("", 300) == (Markup(""), 0)
