"""If, Loop and Scan against onnxruntime: captures, nesting, sizes that only run time knows."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from onnxgrad.importers.onnx.translate import Translator

from .both import agree, info, model, ours

rng = np.random.default_rng(0)
node = helper.make_node
FLOAT, INT, BOOL = TensorProto.FLOAT, TensorProto.INT64, TensorProto.BOOL


def f32(*shape):
    return rng.standard_normal(shape).astype(np.float32)


def value(name, kind=FLOAT, shape=None):
    return helper.make_tensor_value_info(name, kind, shape)


def branch(*nodes, out="z", initializers=()):
    return helper.make_graph(list(nodes), "branch", [], [value(out)], list(initializers))


THEN = branch(node("Mul", ["x", "w"], ["z"]))
ELSE = branch(
    node("Sub", ["x", "one"], ["z"]),
    initializers=[onnx.numpy_helper.from_array(np.float32(1).reshape(()), "one")],
)


def choice(opset=17, then=THEN, orelse=ELSE, x=None):
    x = f32(2, 3) if x is None else x
    proto = model(
        [node("If", ["p"], ["y"], then_branch=then, else_branch=orelse), node("Relu", ["y"], ["r"])],
        {"p": np.array(True), "x": x},
        ["r"],
        opset=opset,
        initializers={"w": f32(3)},
    )
    return proto, x


@pytest.mark.parametrize("opset", [1, 11, 13, 16, 19, 21, 23, 24, 25])
@pytest.mark.parametrize("p", [True, False])
def test_if_takes_the_branch_that_the_predicate_says(opset, p):
    opset = max(opset, 7)
    proto, x = choice(opset)
    agree(proto, {"p": np.array(p), "x": x})


def test_if_with_branches_of_different_rank():
    first = branch(node("ReduceSum", ["x"], ["z"], keepdims=0))
    for p in (True, False):
        proto, x = choice(then=first)
        agree(proto, {"p": np.array(p), "x": x})


def test_a_node_after_branches_of_different_rank_waits_for_run_time():
    squeezed = branch(node("Squeeze", ["x", "last"], ["z"]))
    kept = branch(node("Identity", ["x"], ["z"]))
    proto = model(
        [
            node("Shape", ["x"], ["s"]),
            node("Gather", ["s", "last"], ["n"]),
            node("Equal", ["n", "one"], ["p"]),
            node("If", ["p"], ["y"], then_branch=squeezed, else_branch=kept),
            node("Softmax", ["y"], ["soft"], axis=-1),
            node("Transpose", ["soft"], ["t"]),
        ],
        {"x": f32(2, 3, 1)},
        ["t"],
        opset=17,
        initializers={"last": np.array([-1]), "one": np.array([1])},
    )
    proto.graph.input[0].CopyFrom(info("x", f32(1), ["a", "b", "c"]))
    for shape in ((2, 3, 1), (2, 3, 4), (5, 1, 1), (2, 3, 1)):
        agree(proto, {"x": f32(*shape)})


def test_a_decided_predicate_leaves_one_branch():
    proto = model(
        [
            node("Shape", ["x"], ["s"]),
            node("Size", ["s"], ["rank"]),
            node("Equal", ["rank", "two"], ["p"]),
            node("If", ["p"], ["y"], then_branch=THEN, else_branch=ELSE),
        ],
        {"x": f32(2, 3)},
        ["y"],
        opset=17,
        initializers={"w": f32(3), "two": np.array(2)},
    )
    from onnxgrad.importers.onnx.read import strip

    graph = Translator(strip(proto, None)).run().graph
    assert "if" not in [n.op.name for n in graph.nodes]
    agree(proto, {"x": f32(2, 3)})


def test_nested_branches_capture_through_both():
    inner = branch(node("If", ["q"], ["z"], then_branch=THEN, else_branch=ELSE))
    proto = model(
        [node("If", ["p"], ["y"], then_branch=inner, else_branch=ELSE)],
        {"p": np.array(True), "q": np.array(True), "x": f32(2, 3)},
        ["y"],
        opset=17,
        initializers={"w": f32(3)},
    )
    for p in (True, False):
        for q in (True, False):
            agree(proto, {"p": np.array(p), "q": np.array(q), "x": f32(2, 3)})


def loop_body(*nodes, carried=("a",), scans=(), keep="c", kinds=None):
    kinds = kinds or {}
    ins = [value("i", INT, []), value("c", BOOL, []), *(value(n, kinds.get(n, FLOAT)) for n in carried)]
    outs = [
        value(keep, BOOL, []),
        *(value(f"{n}_next", kinds.get(n, FLOAT)) for n in carried),
        *map(value, scans),
    ]
    return helper.make_graph(list(nodes), "body", ins, outs)


STEP = (
    node("Identity", ["c"], ["go"]),
    node("Mul", ["a", "w"], ["aw"]),
    node("Sin", ["aw"], ["a_next"]),
    node("Neg", ["a"], ["e"]),
)


@pytest.mark.parametrize("opset", [7, 11, 13, 16, 19, 21, 23, 24, 25])
@pytest.mark.parametrize("m", [0, 1, 3])
def test_loop_carries_and_stacks(opset, m):
    proto = model(
        [node("Loop", ["m", "", "x"], ["last", "all"], body=loop_body(*STEP, scans=["e"], keep="go"))],
        {"m": np.array(m), "x": f32(2, 3)},
        ["last", "all"],
        opset=opset,
        initializers={"w": f32(3)},
    )
    feeds = {"m": np.array(m), "x": f32(2, 3)}
    if m:
        agree(proto, feeds)
    else:
        last, every = ours(proto, feeds)
        np.testing.assert_array_equal(last, feeds["x"])
        assert every.shape == (0, 2, 3) and every.dtype == np.float32


def test_loop_stops_at_its_condition():
    body = loop_body(
        node("Add", ["a", "a"], ["a_next"]),
        node("ReduceMax", ["a_next"], ["top"], keepdims=0),
        node("Less", ["top", "limit"], ["go"]),
        keep="go",
    )
    proto = model(
        [node("Loop", ["", "yes", "x"], ["last"], body=body)],
        {"x": f32(3), "yes": np.array(True)},
        ["last"],
        opset=17,
        initializers={"limit": np.float32(50).reshape(())},
    )
    agree(proto, {"x": np.abs(f32(3)) + 1, "yes": np.array(True)})
    agree(proto, {"x": np.abs(f32(3)) + 1, "yes": np.array(False)})


def test_loop_grows_what_it_carries():
    body = loop_body(
        node("Identity", ["c"], ["go"]),
        node("Concat", ["a", "x"], ["a_next"], axis=0),
        node("Shape", ["a"], ["n"]),
        node("Cast", ["n"], ["e"], to=FLOAT),
        scans=["e"],
        keep="go",
    )
    proto = model(
        [
            node("Loop", ["m", "", "x"], ["last", "sizes"], body=body),
            node("Softmax", ["last"], ["soft"], axis=-1),
            node("Shape", ["soft"], ["s"]),
            node("Reshape", ["last", "flat"], ["y"]),
        ],
        {"m": np.array(3), "x": f32(2, 3)},
        ["y", "sizes", "s"],
        opset=17,
        initializers={"flat": np.array([-1])},
    )
    for m in (1, 4):
        agree(proto, {"m": np.array(m), "x": f32(2, 3)})


def test_loop_carries_a_sequence():
    sequence = helper.make_tensor_sequence_value_info
    body = helper.make_graph(
        [
            node("Identity", ["c"], ["go"]),
            node("Cast", ["i"], ["k"], to=FLOAT),
            node("Mul", ["x", "k"], ["xk"]),
            node("SequenceInsert", ["s", "xk"], ["s_next"]),
        ],
        "body",
        [value("i", INT, []), value("c", BOOL, []), sequence("s", FLOAT, None)],
        [value("go", BOOL, []), sequence("s_next", FLOAT, None)],
    )
    proto = model(
        [
            node("SequenceEmpty", [], ["none"]),
            node("Loop", ["m", "", "none"], ["s"], body=body),
            node("ConcatFromSequence", ["s"], ["y"], axis=0),
            node("SequenceLength", ["s"], ["n"]),
        ],
        {"m": np.array(3), "x": f32(2, 3)},
        ["y", "n"],
        opset=17,
    )
    agree(proto, {"m": np.array(3), "x": f32(2, 3)})


def scan_body():
    return helper.make_graph(
        [
            node("Mul", ["s", "w"], ["sw"]),
            node("Add", ["sw", "x"], ["s_next"]),
            node("Mul", ["s", "x"], ["e"]),
        ],
        "body",
        [value("s", shape=[3]), value("x", shape=[3])],
        [value("s_next", shape=[3]), value("e", shape=[3])],
    )


@pytest.mark.parametrize("opset", [9, 11, 16, 19, 21, 23, 24, 25])
@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("back", [0, 1])
def test_scan(opset, axis, back):
    x = f32(*((5, 3) if axis == 0 else (3, 5)))
    proto = model(
        [
            node(
                "Scan",
                ["s0", "xs"],
                ["last", "all"],
                body=scan_body(),
                num_scan_inputs=1,
                scan_input_axes=[axis],
                scan_input_directions=[back],
                scan_output_axes=[1 - axis],
                scan_output_directions=[1 - back],
            )
        ],
        {"s0": f32(3), "xs": x},
        ["last", "all"],
        opset=opset,
        initializers={"w": f32(3)},
    )
    agree(proto, {"s0": f32(3), "xs": x})


@pytest.mark.parametrize("lengths", [None, np.array([4, 2], np.int64)], ids=["whole", "lengths"])
@pytest.mark.parametrize("back", [0, 1])
def test_scan_8_has_a_batch(lengths, back):
    feeds = {"s0": f32(2, 3), "xs": f32(2, 4, 3)} | ({} if lengths is None else {"n": lengths})
    proto = model(
        [
            node(
                "Scan",
                ["" if lengths is None else "n", "s0", "xs"],
                ["last", "all"],
                body=scan_body(),
                num_scan_inputs=1,
                directions=[back],
            )
        ],
        feeds,
        ["last", "all"],
        opset=8,
        initializers={"w": f32(3)},
    )
    agree(proto, feeds)
