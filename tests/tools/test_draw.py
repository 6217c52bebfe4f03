"""Pictures of graphs: everything is drawn once, by its name, and nothing lies on something else."""

import pytest

import onnxgrad as og
from onnxgrad import nn
from onnxgrad.errors import InputError
from onnxgrad.tools.draw import draw, make_dot
from onnxgrad.tools.draw.scopes import scope_of

from .drawings import VGG11, Residual, check_layout, check_svg, functions_of, overlaps, texts, worked_example
from .small_models import cnn, from_nodes


class TestBackwardGraph:
    def test_the_worked_example(self):
        loss, names = worked_example()
        d = draw(loss, names)
        kinds = [b.kind for b in d.picture.boxes]
        assert (kinds.count("leaf"), kinds.count("function"), kinds.count("output")) == (4, 9, 1)
        found = texts(d)
        assert sorted(t[0] for t in found if t[0] in names) == sorted(names)
        assert [t[0] for t in found].count("MulBackward0") == 3
        assert [t[0] for t in found].count("AccumulateGrad") == 4
        assert ["input", "(2, 2)"] in found and ["()"] in found
        assert "72 bytes saved" in d.picture.note  # input, w1; l1, w3; l2, l3: four numbers each but w1 and w3
        check_layout(d)
        check_svg(d)

    @pytest.mark.parametrize("network", [VGG11, Residual])
    def test_networks(self, network):
        og.manual_seed(0)
        net = network()
        y = net(og.randn(2, 3, 32, 32)).sum()
        d = draw(y, dict(net.named_parameters()))
        boxes = d.picture.boxes
        assert sum(b.kind == "function" for b in boxes) == len(functions_of(y))
        names = {t[0] for t in texts(d)}
        assert {n for n, _ in net.named_parameters()} <= names
        check_layout(d)
        check_svg(d)

    def test_edges_are_those_of_the_tape(self):
        loss, names = worked_example()
        d = draw(loss, names)
        label = {b.key: b.sections[0].lines[0].text for b in d.picture.boxes}
        drawn = sorted((label[e.source], label[e.target]) for e in d.picture.edges)
        expected = [(before.name(), n.name()) for n in functions_of(loss) for before, _ in n.next_functions if before]
        expected += [(name, "AccumulateGrad") for name in names] + [(loss.grad_fn.name(), "()")]
        assert drawn == sorted(expected)

    def test_what_is_shown_is_chosen(self):
        x = og.randn(2, 3, requires_grad=True)
        y = (x * x).sum(dim=1)
        plain, full = make_dot(y), make_dot(y, {"x": x}, show_attrs=True, show_saved=True)
        assert not any("keepdims" in line or "saved" in line for t in texts(plain) for line in t)
        assert any("keepdims: False" in t for t in texts(full))
        assert any("a = x" in t or "x = x" in t for t in texts(full))

    def test_attributes_are_cut(self):
        y = og.randn(2, 3, requires_grad=True).sum(dim=1)
        assert any(line.endswith("...") for t in texts(make_dot(y, show_attrs=True, max_attr_chars=2)) for line in t)

    def test_it_can_be_drawn_after_backward(self):
        loss, names = worked_example()
        before = len(draw(loss, names).picture.boxes)
        loss.backward()
        after = draw(loss, names)
        assert len(after.picture.boxes) == before
        assert "freed" in after.picture.note

    def test_several_outputs_share_what_they_share(self):
        x = og.randn(3, requires_grad=True)
        d = draw([x * 2, x + 1])
        assert [b.kind for b in d.picture.boxes].count("output") == 2
        assert [b.kind for b in d.picture.boxes].count("leaf") == 1

    def test_a_function_of_ones_own(self):
        class Cube(og.autograd.Function):
            @staticmethod
            def forward(ctx, x):
                ctx.save_for_backward(x)
                return x**3

            @staticmethod
            def backward(ctx, g):
                (x,) = ctx.saved_tensors
                return 3 * x * x * g

        found = texts(draw(Cube.apply(og.randn(2, 3, requires_grad=True)).sum()))
        assert ["CubeBackward", "saved 0 (2, 3)"] in found

    def test_nothing_to_go_through(self):
        assert texts(draw(og.zeros(2, 3))) == [["(2, 3)"]]
        a = og.zeros(2, requires_grad=True)
        assert [t[0] for t in texts(draw(a))] == ["(2)", "(2)", "AccumulateGrad"]

    def test_a_leaf_that_is_read_a_thousand_times(self):
        a = og.randn(2, requires_grad=True)
        y = a
        for _ in range(1000):
            y = y + a
        d = draw(y)
        assert len(d.svg()) < 4_000_000  # what a thousand edges share is drawn once
        assert overlaps(d.layout) == []

    @pytest.mark.parametrize("wrong", [3, None, "x", [1], [], {"x": 1}])
    def test_what_cannot_be_drawn(self, wrong):
        with pytest.raises(InputError, match="found"):
            draw(wrong)

    def test_wrong_arguments(self):
        x = og.ones(2, requires_grad=True)
        with pytest.raises(InputError, match="no scopes"):
            draw(x * 2, depth=1)
        with pytest.raises(InputError, match="named_parameters"):
            draw(x * 2, params=[x])
        with pytest.raises(InputError, match="Call it"):
            draw(nn.Linear(2, 2))


class TestForwardGraph:
    def test_every_layer_once_with_its_weights(self):
        model = cnn()
        d = draw(model)
        operators = [b for b in d.picture.boxes if b.kind == "operator"]
        assert [b.sections[0].lines[0].text for b in operators] == [kind for _, kind, _ in model.layers()]
        lines = [line for t in texts(d) for line in t]
        assert all(any(name in line for line in lines) for name, _ in model.named_parameters())
        assert [b.kind for b in d.picture.boxes].count("input") == 1
        check_layout(d)
        check_svg(d)

    def test_a_compiled_function(self):
        net = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))
        f = og.compile(net)
        with pytest.raises(InputError, match="has been called"):
            draw(f)
        f(og.randn(5, 3))
        d = draw(f)
        kinds = [t[0] for t in texts(d)]
        assert kinds.count("matmul") == 2 and kinds.count("tanh") == 1
        assert [b.kind for b in d.picture.boxes].count("output") == 1  # not what is only saved for backward
        check_layout(d)

    def test_a_compiled_step_shows_what_changes(self):
        net = nn.Linear(3, 2)
        optimizer = og.optim.SGD(net.parameters(), 0.1)

        @og.compile
        def step(x):
            optimizer.zero_grad()
            loss = net(x).square().mean()
            loss.backward()
            optimizer.step()
            return loss

        step(og.randn(4, 3))
        found = [t[0] for t in texts(draw(step))]
        assert "new parameter" in found and draw(step).picture.title == "step"

    def test_a_graph(self):
        graph = cnn().graph
        assert len(draw(graph).picture.boxes) == len(draw(cnn()).picture.boxes)

    def test_depth_draws_a_scope_as_one_box(self):
        from onnx import helper

        names = ["/a/x/Relu", "/a/y/Relu", "Relu_1", "/a/y/z/Relu", "/b/Relu"]
        values = ["in", "v0", "v1", "v2", "v3", "out"]
        nodes = [helper.make_node("Relu", [a], [b], name=n) for n, a, b in zip(names, values, values[1:], strict=False)]
        model = from_nodes(nodes, [("in", [1, 2])], [("out", [1, 2])])
        found = [t[:2] for t in texts(draw(model, depth=1))]
        assert ["a", "4 nodes"] in found and ["Relu", "/b/Relu"] in found
        assert len(draw(model, depth=2).picture.boxes) == 2 + 3
        with pytest.raises(InputError, match="1 or more"):
            draw(model, depth=0)

    def test_a_scope_that_is_left_and_entered_again_is_two(self):
        from onnx import helper

        nodes = [
            helper.make_node("Relu", ["in"], ["v0"], name="/a/r0"),
            helper.make_node("Relu", ["v0"], ["v1"], name="/b/r1"),
            helper.make_node("Add", ["v0", "v1"], ["out"], name="/a/r2"),
        ]
        model = from_nodes(nodes, [("in", [1, 2])], [("out", [1, 2])])
        assert len(draw(model, depth=1).picture.boxes) == 2 + 3

    @pytest.mark.parametrize(("name", "depth", "scope"), [
        ("/layer1/conv/Conv", 1, "layer1"), ("/layer1/conv/Conv", 2, "layer1/conv"), ("a/b", 5, "a"),
        ("Conv_0", 1, None),
    ])  # fmt: skip
    def test_scopes(self, name, depth, scope):
        assert scope_of(name, depth) == scope

    @pytest.mark.parametrize("name", ["squeezenet-fp16", "kws-micro-qdq", "ort-scan-1", "silero-vad", "ppocr-cls"])
    def test_real_models(self, shared, name):
        d = draw(og.load(shared / "models" / name / "model.onnx"))
        check_layout(d)
        check_svg(d)
