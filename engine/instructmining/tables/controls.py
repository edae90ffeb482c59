"""Makes control characters visible, for terminals and for HTML."""

from __future__ import annotations

import re

# Control characters except tab and newline, and characters that change the text direction.
_CONTROLS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


def visible(text: str) -> str:
    r"""Return the text with control characters escaped as in JSON, so that a file cannot control what shows it."""
    return _CONTROLS.sub(lambda found: f"\\u{ord(found[0]):04x}", text)
