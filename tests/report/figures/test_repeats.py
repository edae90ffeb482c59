from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from scored_rows import write_scored

from instructmining_report.figures.repeats import repeats_of
from instructmining_report.gathering.scored_set import ScoredSet


def row(prompt: str, response: str, knn: float | None = 1.0) -> dict[str, object]:
    return {"instruction": prompt, "output": response, "knn_1": knn}


def test_equal_rows_and_equal_prompts_are_counted(read: Callable[..., ScoredSet]) -> None:
    rows = [row("a", "1"), row("b", "1"), row("a", "1", 0.5), row("a", "2"), row("", "3"), row("", "4"), row("b", "1")]
    found = repeats_of(read(rows))
    assert (found.whole.extra, found.whole.clusters) == (2, 2)  # columns of score do not make rows different
    assert [(cluster.rows, cluster.first, cluster.others) for cluster in found.whole.largest] == [
        (2, 0, (2,)),
        (2, 1, (6,)),
    ]
    assert found.prompts is not None
    assert (found.prompts.extra, found.prompts.clusters) == (3, 2)  # rows without a prompt have none in common
    assert found.prompts.largest[0].others == (2, 3)


def test_distances_are_counted_by_the_fewest_neighbours(read: Callable[..., ScoredSet]) -> None:
    rows = [row("a", str(number), value) for number, value in enumerate((0.0, 0.0002, 0.06, 0.4, 1.0, None))]
    neighbours = repeats_of(read(rows)).neighbours
    assert neighbours is not None
    assert (neighbours.column, neighbours.rows, neighbours.same) == ("knn_1", 5, 2)
    assert dict(neighbours.below) == {0.05: 2, 0.1: 3, 0.2: 3, 0.3: 3, 0.5: 4}


def test_nothing_repeats_in_an_empty_set(read: Callable[..., ScoredSet], tmp_path: Path) -> None:
    found = repeats_of(read(write_scored(tmp_path / "none.jsonl", [])))
    assert (found.whole.extra, found.prompts, found.neighbours) == (0, None, None)
