from __future__ import annotations

from collections.abc import Callable, Generator, Iterable
from pathlib import Path

import numpy as np
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from instructmining.errors import RowError, RuleError, SelectionError
from instructmining.scored.selection import Selection, select
from instructmining.scored.selection.near_duplicates import Distinct, KeptVectors
from instructmining.scored.selection.options import Extras, SelectionOptions
from instructmining.scorer.scorer import Scorer
from instructmining.types import Example


class GivenVectors:
    """An embedder that knows the vectors: a prompt says which one is its own."""

    def __init__(self, vectors: NDArray[np.float32], window: int = 3) -> None:
        self.vectors = vectors
        self.window = window
        self.asked: list[int] = []

    def embeddings(self, examples: Iterable[Example], /) -> Generator[NDArray[np.float32], None, None]:
        window: list[int] = []
        for example in examples:
            window.append(int(example.prompt_texts[0]))
            self.asked.append(window[-1])
            if len(window) == self.window:
                yield self.vectors[window]
                window = []
        if window:
            yield self.vectors[window]


def unit(rng: np.random.Generator, rows: int, size: int) -> NDArray[np.float32]:
    vectors = rng.normal(size=(rows, size))
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), dtype=np.float32)


def on_a_circle(*degrees: float) -> NDArray[np.float32]:
    angles = np.radians(degrees)
    return np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)


def scored_file(folder: Path, losses: Iterable[float | None], **more: object) -> Path:
    path = folder / "scored.jsonl"
    rows = [
        {"n": n, "instruction": str(n), "output": "a", "predicted_log_loss": loss, **more}
        for n, loss in enumerate(losses)
    ]
    path.write_bytes(b"".join(orjson.dumps(row) + b"\n" for row in rows))
    return path


def chosen(out: Path) -> list[int]:
    return [orjson.loads(line)["n"] for line in out.read_bytes().splitlines()]


def greedy(vectors: NDArray[np.float32], order: Iterable[int], distance: float) -> list[int]:
    """By the definition, in float64."""
    kept: list[int] = []
    for row in order:
        apart = np.linalg.norm(vectors[kept].astype(np.float64) - vectors[row].astype(np.float64), axis=1)
        if not (apart < distance).any():
            kept.append(row)
    return kept


def through(
    vectors: NDArray[np.float32], distance: float, window: int
) -> tuple[list[int], dict[int, tuple[float, int]]]:
    """Rows kept in order, and of the others the nearest kept one with its distance."""
    kept = KeptVectors(distance)
    left_out = {}
    for first in range(0, len(vectors), window):
        kept.begin(vectors[first : first + window])
        for at, row in enumerate(range(first, min(first + window, len(vectors)))):
            near = kept.near(at)
            if near is None:
                kept.keep(at, row)
            else:
                left_out[row] = near
    return kept.rows, left_out


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    rows=st.integers(1, 60),
    size=st.integers(2, 6),
    distance=st.floats(0.01, 2.0),
    window=st.integers(1, 20),
    copies=st.booleans(),
)
def test_the_rows_kept_are_those_of_the_definition(
    seed: int, rows: int, size: int, distance: float, window: int, copies: bool
) -> None:
    rng = np.random.default_rng(seed)
    vectors = unit(rng, rows, size)
    if copies:
        vectors = vectors[rng.integers(rows, size=rows)]
    kept, left_out = through(vectors, distance, window)
    assert kept == greedy(vectors, range(rows), distance)
    exact = vectors.astype(np.float64)
    apart = np.linalg.norm(exact[:, None] - exact[None], axis=2)
    assert all(apart[a, b] >= distance for a in kept for b in kept if a < b)
    for row, (said, nearest) in left_out.items():
        assert said == pytest.approx(min(apart[row, other] for other in kept if other < row), abs=1e-12)
        assert said == pytest.approx(apart[row, nearest], abs=1e-12)
        assert said < distance


def test_many_kept_rows_over_several_tiles_are_compared_exactly() -> None:
    rng = np.random.default_rng(5)
    first = unit(rng, 9000, 16)  # more than one tile of kept vectors
    near = first[rng.integers(9000, size=200)] + rng.normal(scale=0.01, size=(200, 16))
    near /= np.linalg.norm(near, axis=1, keepdims=True)
    vectors = np.concatenate([first, near.astype(np.float32)])
    kept, left_out = through(vectors, 0.05, 512)
    assert kept[:9000] == list(range(9000))
    assert len(left_out) > 50
    for row in range(9000, 9200):
        before = [other for other in kept if other < row]
        apart = np.linalg.norm(vectors[before].astype(np.float64) - vectors[row].astype(np.float64), axis=1)
        assert (apart.min() < 0.05) == (row in left_out)
        if row in left_out:
            assert left_out[row] == (pytest.approx(apart.min(), abs=1e-12), before[int(apart.argmin())])


def test_a_distance_of_exactly_the_limit_is_apart() -> None:
    vectors = np.array([[1, 0], [0, 1], [-1, 0]], dtype=np.float32)
    limit = float(np.sqrt(2.0))
    assert through(vectors, limit, 3)[0] == [0, 1, 2]
    assert through(vectors, np.nextafter(limit, 2), 3)[0] == [0, 2]


def test_distances_that_float32_products_cannot_tell_apart_are_decided_exactly() -> None:
    vectors = on_a_circle(0, 0.01, 0.0201)  # distances 1.745e-4 and 1.763e-4: products differ by 3e-10
    exact = vectors.astype(np.float64)
    to_first = float(np.linalg.norm(exact[1] - exact[0]))
    assert through(vectors, to_first, 1)[0][:2] == [0, 1]
    assert through(vectors, np.nextafter(to_first, 1), 1)[0][:2] == [0, 2]


def test_the_nearest_kept_row_is_named_where_products_in_float32_name_another() -> None:
    rng = np.random.default_rng(2)
    misled = 0
    for _ in range(60):
        middle, *away = np.linalg.qr(rng.normal(size=(384, 3)))[0].T
        vectors = np.array([middle + 0.2 * away[0], middle + (0.2 - 1e-8) * away[1], middle])
        vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
        apart = np.linalg.norm(vectors[:2].astype(np.float64) - vectors[2].astype(np.float64), axis=1)
        misled += int((vectors[2:] @ vectors[:2].T).argmax()) != int(apart.argmin())
        kept, left_out = through(vectors, 0.25, 1)
        assert kept == [0, 1]
        assert left_out == {2: (pytest.approx(apart.min(), abs=1e-14), int(apart.argmin()))}
    assert misled > 5


def test_a_near_duplicate_makes_room_for_the_next_row(tmp_path: Path) -> None:
    vectors = on_a_circle(0, 3, 90, 94, 180)
    scored = scored_file(tmp_path, [0.1, 0.0, 0.3, 0.2, 0.4])  # order 1, 0, 3, 2, 4
    why = tmp_path / "why.jsonl"
    found = select(
        scored,
        tmp_path / "best.jsonl",
        SelectionOptions(top=2, distinct=Distinct(0.1, GivenVectors(vectors))),
        extras=Extras(explain=why),
    )
    assert chosen(tmp_path / "best.jsonl") == [1, 3]
    left_out = {"near duplicate of a row that was kept": 1, "below the cut": 2}
    assert found == Selection(5, 0, 2, 0.2, left_out, None, found.remarks)
    reasons = [orjson.loads(line)["reason"] for line in why.read_bytes().splitlines()]
    chord = 2 * np.sin(np.radians(3) / 2)  # 0.0524
    assert reasons[0] == f"{chord:.4f} from row 2, which was kept"
    assert reasons[1:] == [None, "rank 4, 2 were wanted", None, "rank 5, 2 were wanted"]


def test_only_as_many_rows_are_embedded_as_are_wanted(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    embedder = GivenVectors(unit(rng, 3000, 8), window=16)
    choice = SelectionOptions(top=10, distinct=Distinct(1e-6, embedder))
    select(scored_file(tmp_path, rng.random(3000).tolist()), tmp_path / "best.jsonl", choice)
    assert len(embedder.asked) <= 32


def test_the_file_is_read_again_where_many_rows_are_near_duplicates(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    groups = unit(rng, 6, 8)
    of_row = np.sort(rng.integers(6, size=2500))  # the first groups fill more than one reading
    losses = (np.arange(2500) / 2500).tolist()
    choice = SelectionOptions(top=6, distinct=Distinct(1e-3, GivenVectors(groups[of_row], window=64)))
    select(scored_file(tmp_path, losses), tmp_path / "best.jsonl", choice)
    assert chosen(tmp_path / "best.jsonl") == [int(np.flatnonzero(of_row == group)[0]) for group in range(6)]


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 1000), top=st.integers(1, 12), window=st.integers(1, 7))
def test_a_selection_is_the_first_rows_of_the_definition(
    tmp_path_factory: pytest.TempPathFactory, seed: int, top: int, window: int
) -> None:
    folder = tmp_path_factory.mktemp("select")
    rng = np.random.default_rng(seed)
    vectors = unit(rng, 20, 3)
    losses = rng.integers(0, 5, size=20) / 4
    choice = SelectionOptions(top=top, distinct=Distinct(0.5, GivenVectors(vectors, window)))
    select(scored_file(folder, losses.tolist()), folder / "best.jsonl", choice)
    order = np.argsort(losses, kind="stable").tolist()
    assert chosen(folder / "best.jsonl") == greedy(vectors, order, 0.5)[:top]


def test_near_duplicates_count_neither_in_their_group_nor_in_the_budget(tmp_path: Path) -> None:
    vectors = on_a_circle(0, 1, 90, 180)
    scored = scored_file(tmp_path, [0.0, 0.1, 0.2, 0.3], source="a", input_length=1, output_length=1)
    distinct = Distinct(0.1, GivenVectors(vectors))
    select(scored, tmp_path / "best.jsonl", SelectionOptions(tokens=4, top=3, group_by="source", distinct=distinct))
    assert chosen(tmp_path / "best.jsonl") == [0, 2]


# What cannot be


@pytest.mark.parametrize("distance", [0.0, -1.0, 2.1, float("nan")])
def test_a_distance_out_of_range_is_a_selection_error(distance: float) -> None:
    with pytest.raises(SelectionError, match="wanted more than 0 and at most 2"):
        Distinct(distance, GivenVectors(on_a_circle(0)))


def test_vectors_that_are_no_unit_vectors_are_refused() -> None:
    with pytest.raises(SelectionError, match="wanted unit vectors"):
        KeptVectors(0.1).begin(np.array([[1, 1]], dtype=np.float32))


def test_a_row_that_holds_no_example_is_named_by_its_line(tmp_path: Path) -> None:
    scored = scored_file(tmp_path, [0.5, 0.25])
    scored.write_bytes(scored.read_bytes() + b'{"n":2,"instruction":"2","output":" ","predicted_log_loss":0.0}\n')
    choice = SelectionOptions(top=1, distinct=Distinct(0.1, GivenVectors(on_a_circle(0, 1, 2))))
    with pytest.raises(RowError, match=r"scored\.jsonl, line 3: the response is empty"):
        select(scored, tmp_path / "best.jsonl", choice)
    assert not (tmp_path / "best.jsonl").exists()


def test_an_embedder_that_loses_rows_is_noticed(tmp_path: Path) -> None:
    class Forgetful(GivenVectors):
        def embeddings(self, examples: Iterable[Example], /) -> Generator[NDArray[np.float32], None, None]:
            yield from (block[:1] for block in super().embeddings(examples))

    choice = SelectionOptions(where=["n>=0"], distinct=Distinct(0.1, Forgetful(on_a_circle(0, 90, 180))))
    with pytest.raises(SelectionError, match="the embedder gave 1 vectors for 3 examples"):
        select(scored_file(tmp_path, [0.1, 0.2, 0.3]), tmp_path / "best.jsonl", choice)


# With a bundle


def examples(*responses: str) -> list[Example]:
    return [Example.of("Name a colour.", response) for response in responses]


def test_a_scorers_embeddings_are_unit_vectors_in_order_and_a_text_has_its_own(small_bundle: Path) -> None:
    with Scorer.open(small_bundle, indicators=["knn_6"], device="cpu") as scorer:
        (found,) = scorer.embeddings(examples("Green.", "Red and blue.", "Green."))
        (alone,) = scorer.embeddings(examples("Red and blue."))
        assert np.linalg.norm(found, axis=1) == pytest.approx(np.ones(3), abs=1e-5)
        assert np.array_equal(found[0], found[2])
        assert np.abs(found[1] - alone[0]).max() < 1e-5
        assert np.abs(found[1] - found[0]).max() > 1e-3
        assert list(scorer.embeddings([])) == []


def test_a_scorers_embeddings_give_the_distances_of_its_neighbour_column(small_bundle: Path) -> None:
    texts = [f"The train leaves at {hour} and sails at {hour * 7}." for hour in range(9)]
    with Scorer.open(small_bundle, indicators=["knn_6"], device="cpu") as scorer:
        vectors = np.concatenate(list(scorer.embeddings(examples(*texts)))).astype(np.float64)
        apart = np.linalg.norm(vectors[:, None] - vectors[None], axis=2)
        column = [row.columns["knn_6"] for row in scorer.score(examples(*texts))]
    assert column == pytest.approx(np.sort(apart, axis=1)[:, 6].tolist(), abs=1e-6)


def test_a_scorer_without_embeddings_says_how_to_open_it(small_bundle: Path) -> None:
    with (
        Scorer.open(small_bundle, indicators=["mtld"], device="cpu") as scorer,
        pytest.raises(RuleError, match=r"open the scorer with roles=\['embedding'\]"),
    ):
        next(scorer.embeddings(examples("Green.")))


def test_the_command_leaves_out_rows_that_say_the_same(
    run: Callable[..., int], small_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said = ["Green.", "Bread rises because yeast gives off gas.", "Green.", "The ferry sails at three; come at noon."]
    rows = [{"n": n, "instruction": "Say it.", "output": text, "predicted_log_loss": n} for n, text in enumerate(said)]
    scored = tmp_path / "scored.jsonl"
    scored.write_bytes(b"".join(orjson.dumps(row) + b"\n" for row in rows))
    out = tmp_path / "best.jsonl"
    arguments = ("--top", 3, "--distinct", 1e-4, "--bundle", small_bundle, "--device", "cpu")
    assert run("select", scored, "-o", out, *arguments) == 0
    assert chosen(out) == [0, 1, 3]
    assert "left out: 1, near duplicate of a row that was kept" in capsys.readouterr().err
    distinct = orjson.loads(Path(f"{out}.selection.json").read_bytes())["choice"]["distinct"]
    assert distinct["distance"] == 1e-4
    assert distinct["encoder"]["bundle"] == "small"
    first = out.read_bytes()
    assert run("select", scored, "-o", out, *arguments, "--overwrite") == 0
    assert out.read_bytes() == first
