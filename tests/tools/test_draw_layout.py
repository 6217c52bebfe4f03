"""The layout of pictures: rows, crossings, places, columns."""

import itertools

import numpy as np
import pytest

import onnxgrad as og
from onnxgrad.errors import InputError, InvalidGraphError
from onnxgrad.tools.draw import draw, make_dot
from onnxgrad.tools.draw.coordinates import _best, place
from onnxgrad.tools.draw.crossings import _crossings, untangle
from onnxgrad.tools.draw.layers import layered, rows_of, topological
from onnxgrad.tools.draw.layout import lay_out
from onnxgrad.tools.draw.picture import Box, Edge, Line, Picture, Section

from .drawings import VGG11, check_layout, overlaps, through_boxes


class TestLayout:
    def test_the_public_names(self):
        assert og.draw is draw and og.make_dot is make_dot

    def test_rows(self):
        #  0 -> 1 -> 2 -> 3, 4 -> 3: what can stand lower does
        assert rows_of(5, [(0, 1), (1, 2), (2, 3), (4, 3)]) == [0, 1, 2, 3, 2]
        assert topological(3, [(2, 0), (0, 1)]) == [2, 0, 1]
        with pytest.raises(InvalidGraphError, match="cycles"):
            rows_of(2, [(0, 1), (1, 0)])

    def test_long_edges_of_one_source_share_their_places(self):
        g = layered(6, [(0, 1), (1, 2), (2, 3), (3, 4), (0, 3), (0, 4), (5, 4)], [1.0] * 7)
        assert len(g.row_of) == 6 + 3
        assert g.paths[5] == [0, 6, 7, 8, 4] and g.paths[4] == [7, 3]

    @pytest.mark.parametrize("seed", range(4))
    def test_crossings_are_counted_and_become_fewer(self, seed):
        rng = np.random.default_rng(seed)
        edges = sorted(
            {(int(a), int(b)) for a, b in zip(rng.integers(0, 12, 40), rng.integers(12, 24, 40), strict=True)}
        )
        g = layered(24, edges, [1.0] * len(edges))

        def count(rows):
            at = [0] * len(g.row_of)
            for row in rows:
                for k, i in enumerate(row):
                    at[i] = k
            slow = sum((at[a] - at[c]) * (at[b] - at[d]) < 0 for (a, b), (c, d) in itertools.combinations(edges, 2))
            assert _crossings(g, at) == slow
            return slow

        before = count(g.rows)
        untangle(g)
        assert count(g.rows) < before

    @pytest.mark.parametrize(("terms", "now", "at"), [
        ([(1.0, 1.0)], None, 1.0), ([(0.0, 1.0), (4.0, 1.0)], None, 2.0), ([(0.0, 1.0), (4.0, 1.0)], 3.0, 3.0),
        ([(0.0, 1.0), (4.0, 1.0)], 9.0, 4.0), ([(0.0, 3.0), (4.0, 1.0)], None, 0.0),
        ([(0.0, 1.0), (1.0, 1.0), (9.0, 1.0)], None, 1.0),
    ])  # fmt: skip
    def test_weighted_medians(self, terms, now, at):
        assert _best(terms, now) == at

    def test_a_chain_is_straight_and_a_fork_is_even(self):
        g = layered(5, [(0, 1), (1, 2), (1, 3), (2, 4), (3, 4)], [1.0] * 5)
        untangle(g)
        x = place(g, [40.0] * 5, {}, 10.0)
        assert x[0] == x[1] == x[4] == pytest.approx((x[2] + x[3]) / 2)
        assert abs(x[2] - x[3]) == 50.0

    @pytest.mark.parametrize("columns", [1, 2, 3, 7])
    def test_columns(self, columns):
        net = VGG11()
        d = draw(net(og.randn(1, 3, 32, 32)).sum(), columns=columns)
        check_layout(d)
        whole = draw(net(og.randn(1, 3, 32, 32)).sum(), columns=1).layout.height
        assert whole / columns * 0.9 < d.layout.height < whole / columns * 1.3 + 100
        with pytest.raises(InputError, match="1 or more"):
            draw(og.ones(2, requires_grad=True) * 2, columns=0)

    def test_a_long_picture_becomes_a_page(self):
        layout = draw(VGG11()(og.randn(1, 3, 32, 32)).sum()).layout
        assert 0.7 < layout.width / layout.height < 2.5

    @pytest.mark.parametrize("seed", range(6))
    def test_random_graphs(self, seed):
        rng = np.random.default_rng(seed)
        count = int(rng.integers(2, 60))
        lines = [tuple(Line("x" * int(n)) for n in rng.integers(1, 20, int(rng.integers(1, 4)))) for _ in range(count)]
        boxes = [Box(f"b{i}", "function", (Section("#ddd", shown),)) for i, shown in enumerate(lines)]
        edges = []
        for i in range(1, count):
            for j in rng.integers(0, i, int(rng.integers(0, 4))):
                edges.append(Edge(f"b{j}", f"b{i}", float(rng.choice([1.0, 3.0, 40.0]))))
        layout = lay_out(Picture(boxes, edges))
        assert overlaps(layout) == [] and through_boxes(layout) == []
        assert len(layout.boxes) == count and len(layout.curves) == len(edges)

    def test_nothing(self):
        layout = lay_out(Picture())
        assert (layout.width, layout.height) == (0.0, 0.0)
