from __future__ import annotations

from instructmining_experiments.comparing.figures import Difference, MethodFigures
from instructmining_experiments.comparing.plot import drawing

FIGURES = [
    MethodFigures(name, method, 12, 300, 200, 2, losses, difference, None)
    for name in ("first", "second")
    for method, losses, difference in (
        ("rule", (1.9, 1.95), Difference(-0.1, -0.15, -0.05)),
        ("random", (2.0, 2.05), None),
    )
]


def test_the_plot_names_methods_and_sets_and_is_the_same_each_time() -> None:
    found = drawing(FIGURES, {"first": 2.2, "second": 2.5})
    assert found == drawing(FIGURES, {"first": 2.2, "second": 2.5})
    text = found.decode()
    assert all(f">{word}</text>" in text for word in ("rule", "random", "first", "second"))
    assert "loss, nats per response token" in text
