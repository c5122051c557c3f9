"""Conformance suites for what brings content in and finds it again: encoders, indexes, event sources."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import polars as pl

from endcap.core.protocols import Encoder, EventSource, VectorIndex
from endcap.core.tables import EVENTS, names
from endcap.core.types import Float32Array


class EncoderConformance:
    """contents: distinct and not empty, of the kind the encoder takes. empty: a content with nothing in it. tolerance:
    how far one content's vector may move with the batch it is encoded in (quantised and padded models move a little).
    """

    contents: Sequence[Any] = ("oat milk, 1 litre", "running shoes", "USB-C charger 30 W")
    empty: Any = ""
    tolerance: float = 1e-3

    def make(self) -> Encoder[Any]:
        """The encoder under test."""
        raise NotImplementedError

    def test_has_name_and_dim(self) -> None:
        encoder = self.make()
        assert isinstance(encoder, Encoder), "name, dim or encode is missing"
        assert isinstance(encoder.name, str), "name is no str"
        assert encoder.name, "name is empty"
        assert isinstance(encoder.dim, int), "dim is no int"
        assert encoder.dim > 0, "dim is not positive"

    def test_gives_one_unit_row_per_content(self) -> None:
        encoder = self.make()
        vectors = encoder.encode(self.contents)
        assert vectors.dtype == np.float32, f"the vectors are {vectors.dtype}"
        assert vectors.shape == (len(self.contents), encoder.dim), f"the shape is {vectors.shape}"
        np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-3, err_msg="rows are not of unit length")

    def test_no_content_gives_no_rows(self) -> None:
        encoder = self.make()
        vectors = encoder.encode([])
        assert vectors.shape == (0, encoder.dim), f"the shape is {vectors.shape}"
        assert vectors.dtype == np.float32, f"the vectors are {vectors.dtype}"

    def test_empty_content_is_a_unit_or_zero_row(self) -> None:
        vectors = self.make().encode([self.contents[0], self.empty])
        length = float(np.linalg.norm(vectors[1]))
        assert abs(length - 1) < 1e-3 or length == 0, f"the empty content's row has length {length}"

    def test_repeats_itself(self) -> None:
        encoder = self.make()
        np.testing.assert_array_equal(encoder.encode(self.contents), encoder.encode(self.contents))

    def test_row_does_not_depend_on_its_batch(self) -> None:
        encoder = self.make()
        together = encoder.encode(self.contents)
        alone = np.concatenate([encoder.encode([content]) for content in self.contents])
        np.testing.assert_allclose(together, alone, atol=self.tolerance)
        backwards = encoder.encode(list(reversed(self.contents)))[::-1]
        np.testing.assert_allclose(together, backwards, atol=self.tolerance)

    def test_tells_contents_apart(self) -> None:
        vectors = self.make().encode(self.contents)
        cosines = vectors @ vectors.T
        np.fill_diagonal(cosines, -1)
        assert cosines.max() < 1 - 1e-3, "two different contents have the same vector"


class VectorIndexConformance:
    """min_recall: the share of the true neighbours that must be found over the suite's queries; below 1 for
    approximate indexes, whose order of ties is not checked either."""

    min_recall: float = 1.0
    rows: int = 500
    dim: int = 24

    def make(self, vectors: Float32Array) -> VectorIndex:
        """An index over float32 [n, d]."""
        raise NotImplementedError

    def test_finds_the_greatest_inner_products(self) -> None:
        vectors, queries = self._vectors(), self._vectors(seed=1)[:20]
        index = self.make(vectors)
        assert isinstance(index, VectorIndex), "search, search_many or at is missing"
        found = 0
        for query in queries:
            truth = np.argsort(-(vectors.astype(np.float64) @ query))[:10]
            found += len(np.intersect1d(index.search(query, 10)[0], truth))
        assert found >= self.min_recall * 10 * len(queries), f"recall is {found / (10 * len(queries)):.3f}"

    def test_answer_is_sorted_distinct_and_typed(self) -> None:
        vectors = self._vectors()
        items, scores = self.make(vectors).search(vectors[3], 25)
        assert items.dtype == np.int32, f"positions are {items.dtype}"
        assert scores.dtype == np.float32, f"scores are {scores.dtype}"
        assert items.shape == scores.shape == (25,), f"the shapes are {items.shape} and {scores.shape}"
        assert len(np.unique(items)) == 25, "a row is given twice"
        assert (np.diff(scores) <= 0).all(), "the best does not come first"

    def test_many_at_once_find_what_each_finds_alone(self) -> None:
        vectors = self._vectors()
        index = self.make(vectors)
        items, scores = index.search_many(vectors[:6], 10)
        assert items.shape == scores.shape == (6, 10), f"the shapes are {items.shape} and {scores.shape}"
        for row, vector in enumerate(vectors[:6]):
            alone = index.search(vector, 10)
            np.testing.assert_array_equal(items[row], alone[0])
            np.testing.assert_array_equal(scores[row], alone[1])

    def test_scores_are_inner_products(self) -> None:
        vectors = self._vectors()
        index = self.make(vectors)
        items, scores = index.search(vectors[7], 10)
        np.testing.assert_allclose(scores, vectors[items] @ vectors[7], rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(index.at(vectors[7], items), scores, rtol=1e-4, atol=1e-5)

    def test_at_takes_any_rows_in_any_order(self) -> None:
        vectors = self._vectors()
        index = self.make(vectors)
        items = np.array([9, 0, 9, self.rows - 1], np.int32)
        scores = index.at(vectors[1], items)
        assert scores.dtype == np.float32, f"scores are {scores.dtype}"
        np.testing.assert_allclose(scores, vectors[items] @ vectors[1], rtol=1e-4, atol=1e-5)
        assert index.at(vectors[1], items[:0]).shape == (0,), "no rows must give no scores"

    def test_asking_for_more_than_there_is_gives_all(self) -> None:
        vectors = self._vectors()[:5]
        items, scores = self.make(vectors).search(vectors[0], 50)
        assert sorted(items.tolist()) == [0, 1, 2, 3, 4], f"the rows are {items.tolist()}"
        assert scores.shape == (5,), f"the scores are {scores.shape}"

    def test_repeats_itself(self) -> None:
        vectors = self._vectors()
        index = self.make(vectors)
        first, again = index.search(vectors[0], 10), index.search(vectors[0], 10)
        np.testing.assert_array_equal(first[0], again[0])
        np.testing.assert_array_equal(first[1], again[1])

    def test_equal_rows_come_in_row_order(self) -> None:
        if self.min_recall < 1:
            return
        vectors = np.tile(self._vectors()[:1], (self.rows, 1))
        items, scores = self.make(vectors).search(vectors[0], 10)
        assert items.tolist() == list(range(10)), f"the rows are {items.tolist()}"
        assert len(set(scores.tolist())) == 1, "equal rows have different scores"

    def _vectors(self, seed: int = 0) -> Float32Array:
        return np.random.default_rng(seed).standard_normal((self.rows, self.dim)).astype(np.float32)


class EventSourceConformance:
    """expected_rows: how many rows the source under test holds, if known."""

    expected_rows: int | None = None

    def make(self) -> EventSource:
        """A source with at least one row."""
        raise NotImplementedError

    def test_scans_lazily(self) -> None:
        source = self.make()
        assert isinstance(source, EventSource), "scan is missing"
        assert isinstance(source.scan(), pl.LazyFrame), "scan must give a LazyFrame"

    def test_numbers_its_lines_from_one(self) -> None:
        lines = self.make().scan().select("line").collect()["line"]
        assert lines.dtype.is_integer(), f"line is {lines.dtype}"
        assert lines.null_count() == 0, "a row has no line"
        assert len(lines) > 0, "the source under test is empty"
        assert min(lines.to_list()) >= 1, "lines are counted from 1"
        assert lines.n_unique() == len(lines), "two rows share a line"

    def test_uses_the_canonical_names(self) -> None:
        columns = self.make().scan().collect_schema().names()
        missing = {"event_type", "user_id", "ts_ms"}.difference(columns)
        assert not missing, f"without {sorted(missing)} no event can be made (known names: {names(EVENTS)})"

    def test_scans_again_with_the_same_rows(self) -> None:
        source = self.make()
        first, again = source.scan().collect(), source.scan().collect()
        assert first.sort("line").equals(again.sort("line")), "a second scan gives other rows"

    def test_holds_every_row(self) -> None:
        rows = self.make().scan().select(pl.len()).collect().item()
        assert self.expected_rows in (None, rows), f"{rows} rows instead of {self.expected_rows}"
