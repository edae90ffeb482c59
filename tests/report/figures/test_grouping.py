from __future__ import annotations

from collections.abc import Callable

from instructmining_report.figures.grouping import group_field, grouping_of
from instructmining_report.gathering.scored_set import ScoredSet


def test_groups_have_their_rows_in_each_set_and_their_means(read: Callable[..., ScoredSet]) -> None:
    rows = [
        {"output": "a", "source": source, "reward": value}
        for source, value in (("x", 1.0), ("y", 5.0), ("x", 2.0), ("x", None), (None, 7.0))
    ]
    sets = [read(rows), read(rows[1:3])]
    assert group_field(sets, None) == "source"
    found = grouping_of(sets, "source", "reward", named=False)
    assert [(group.name, group.rows, group.means["reward"]) for group in found.groups] == [
        ("x", (3, 1), 1.5),
        ("y", (1, 1), 5.0),
        ("null", (1, 0), 7.0),
    ]
    assert found.groups[0].quantiles[2] == 1.5


def test_a_field_with_one_value_or_many_is_taken_only_if_it_is_named(read: Callable[..., ScoredSet]) -> None:
    rows = [{"output": "a", "source": "same", "category": f"c{row}", "reward": 1.0} for row in range(150)]
    assert group_field([read(rows)], None) is None
    one = read(rows, group_by="category")
    assert group_field([one], "category") == "category"
    found = grouping_of([one], "category", None, named=True)
    assert (len(found.groups), found.others, found.other_rows) == (20, 130, (130,))
