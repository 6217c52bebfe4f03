"""Drawings as files: SVG, PNG, PDF, DOT, in notebooks, from the command line."""

import importlib.util
import io
import re
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

import onnxgrad as og
from onnxgrad.errors import InputError, MissingExtraError
from onnxgrad.tools.cli import main
from onnxgrad.tools.draw import draw, make_dot, raster
from onnxgrad.tools.draw.layout import lay_out
from onnxgrad.tools.draw.picture import Box, Edge, Line, Picture, Section, elided

from .drawings import SVG, worked_example
from .small_models import cnn


class TestFiles:
    def drawing(self):
        loss, names = worked_example()
        return draw(loss, names, title="loss")

    def test_the_same_graph_is_drawn_the_same(self):
        a, b = self.drawing(), self.drawing()
        assert a.svg() == b.svg() and a.source == b.source
        assert a.png() == b.png()
        assert draw(cnn()).svg() == draw(cnn()).svg()

    def test_dot(self):
        d = self.drawing()
        lines = d.source.splitlines()
        assert lines[0] == "digraph {" and lines[-1] == "}"
        assert sum(" -> " in line for line in lines) == len(d.picture.edges)
        assert sum(bool(re.match(r"\t(leaf|function|output)\d+ \[label=", line)) for line in lines) == len(
            d.picture.boxes
        )
        assert '"#add8e6"' in d.source and '"#caff70"' in d.source and '"#d3d3d3"' in d.source

    def test_dot_quotes_names(self):
        x = og.ones(2, requires_grad=True)
        source = make_dot(x * 2, {'a "quoted" <name>\\': x}, show_saved=True).source
        assert r"a \"quoted\" <name>\\\n(2)" in source

    @pytest.mark.parametrize("scale", [1.0, 2.0, None])
    def test_png_has_the_size_of_the_page(self, scale):
        Image = pytest.importorskip("PIL.Image")
        d = self.drawing()
        root = ET.fromstring(d.svg())
        with Image.open(io.BytesIO(d.png(scale))) as image:
            for found, wanted in zip(image.size, (root.get("width"), root.get("height")), strict=True):
                assert abs(found - float(wanted) * (scale or 2.0)) <= 2
            assert len(image.convert("RGB").getcolors(1 << 20)) > 20

    def test_a_huge_picture_is_a_png_of_bearable_size(self):
        boxes = [Box(f"b{i}", "function", (Section("#dddddd", (Line(f"box {i}"),)),)) for i in range(900)]
        edges = [Edge(f"b{i}", f"b{i + 1}") for i in range(899)]
        layout = lay_out(Picture(boxes, edges), columns=1)
        assert layout.height > raster.LONGEST_SIDE
        made = raster.raster(Picture(boxes[:1], []), layout, "png")
        assert int.from_bytes(made[20:24]) <= raster.LONGEST_SIDE + 1

    @pytest.mark.parametrize(
        ("kind", "magic"), [("svg", b"<?xml"), ("png", b"\x89PNG"), ("pdf", b"%PDF"), ("dot", b"digraph")]
    )
    def test_render_writes_both_files_as_graphviz_does(self, tmp_path, kind, magic):
        path = self.drawing().render("graph", tmp_path, format=kind)
        assert path == str(tmp_path / f"graph.{kind}")
        assert Path(path).read_bytes().startswith(magic)
        assert (tmp_path / "graph").read_text().startswith("digraph")

    def test_render_and_save_follow_names(self, tmp_path):
        d = make_dot(worked_example()[0])
        d.format = "png"
        assert d.render(tmp_path / "a", cleanup=True) == str(tmp_path / "a.png") and not (tmp_path / "a").exists()
        assert d.render(tmp_path / "b.svg") == str(tmp_path / "b.svg")
        assert d.render(outfile=tmp_path / "c" / "d.pdf") == str(tmp_path / "c" / "d.pdf")
        assert Path(d.save(tmp_path / "e.svg")).read_text().startswith("<?xml")
        assert Path(d.save(tmp_path / "f.gv")).read_text() == d.source == str(d)
        assert d.pipe("dot", "utf-8") == d.source
        with pytest.raises(InputError, match="svg, png, pdf or dot"):
            d.render(tmp_path / "g", format="jpg")
        with pytest.raises(InputError, match="svg, png, pdf or dot"):
            d.format = "bmp"

    def test_view_opens_the_picture(self, tmp_path, monkeypatch):
        opened = []
        monkeypatch.setattr("webbrowser.open", opened.append)
        path = self.drawing().view("graph", tmp_path)
        assert opened == [Path(path).as_uri()]

    def test_notebooks(self):
        d = self.drawing()
        assert d._repr_svg_() == d.svg()
        assert set(d._repr_mimebundle_()) == {"image/svg+xml"}
        assert set(d._repr_mimebundle_(include={"image/png", "text/plain"})) == {"image/png", "text/plain"}
        assert repr(d) == "Drawing('loss': 14 boxes, 14 edges)"

    def test_without_matplotlib(self, monkeypatch):
        monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
        d = self.drawing()
        assert d.svg() and d.source
        with pytest.raises(MissingExtraError, match="onnxgrad\\[explain\\]"):
            d.png()

    def test_texts_are_escaped(self):
        x = og.ones(2, requires_grad=True)
        root = ET.fromstring(draw(x * 2, {'<&">\n': x}).svg())
        assert '<&"> ' in [t.text for t in root.iter(f"{SVG}text")]

    @pytest.mark.parametrize(
        ("text", "shown"), [("a" * 44, "a" * 44), ("a" * 30 + "b" * 30, "a" * 17 + "…" + "b" * 26)]
    )
    def test_long_texts_lose_their_middle(self, text, shown):
        assert elided(text) == shown and len(shown) <= 44


class TestCommand:
    @pytest.fixture
    def path(self, tmp_path):
        og.save(cnn(), tmp_path / "m.onnx")
        return tmp_path / "m.onnx"

    @pytest.mark.parametrize("name", ["a.svg", "a.dot", "a.gv", "a.png", "a.pdf"])
    def test_writes_what_the_name_says(self, path, name, capsys):
        if name.endswith(("png", "pdf")) and importlib.util.find_spec("matplotlib") is None:
            pytest.skip("needs matplotlib")
        out = path.with_name(name)
        assert main(["draw", str(path), "--out", str(out), "--columns", "1", "--attributes", "--title", "net"]) == 0
        assert out.stat().st_size > 500 and capsys.readouterr().out == f"wrote {out}\n"

    def test_the_default_is_svg_and_a_dash_is_dot_text(self, path, capsys, monkeypatch):
        monkeypatch.chdir(path.parent)
        assert main(["draw", "m.onnx"]) == 0
        ET.parse(path.with_name("m.svg"))
        capsys.readouterr()
        assert main(["draw", "m.onnx", "--out", "-", "--depth", "1"]) == 0
        assert capsys.readouterr().out.startswith("digraph {")

    def test_errors_name_the_formats(self, path, capsys):
        assert main(["draw", str(path), "--out", "a.jpg"]) == 1
        assert "svg, png, pdf or dot" in capsys.readouterr().err
        for wrong in ("0", "x"):
            with pytest.raises(SystemExit):
                main(["draw", str(path), "--depth", wrong])
