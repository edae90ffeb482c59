from __future__ import annotations

import math

import pytest

from instructmining_report.drawing.numbers import fixed, number, percent, short, signed


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "–"),
        (math.nan, "–"),
        (math.inf, "∞"),
        (-math.inf, "−∞"),
        (0.0, "0"),
        (-0.0, "0"),
        (12345678, "12,345,678"),
        (-3, "−3"),
        (1.5, "1.500"),
        (1234.5678, "1,235"),
        (0.0123456, "0.01235"),
        (-0.00001234, "−1.234e−05"),
        (1.5e20, "1.500e+20"),
    ],
)
def test_a_number_has_four_significant_digits(value: float | None, text: str) -> None:
    assert number(value) == text


def test_axes_have_short_numbers() -> None:
    assert [short(value) for value in (0, 1500, -2_000_000, 0.25)] == ["0", "1.5k", "−2M", "0.25"]


def test_fixed_and_signed_numbers_have_no_minus_0() -> None:
    assert [fixed(-0.001), fixed(-0.5), fixed(None)] == ["0.00", "−0.50", "–"]
    assert [signed(0.5), signed(-0.5), signed(-0.001)] == ["+0.50", "−0.50", "0.00"]
    assert percent(0.1234) == "12.3 %"
