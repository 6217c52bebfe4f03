"""ai.onnx.ml against onnxruntime."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from .both import agree, model, ours, same, theirs

rng = np.random.default_rng(0)
ML = "ai.onnx.ml"
X = rng.standard_normal((6, 4)).astype(np.float32)
TRANSFORMS = ["NONE", "SOFTMAX", "LOGISTIC", "SOFTMAX_ZERO"]


def texts(*values):
    out = np.empty(len(values), object)
    out[:] = values
    return out


def build(op, feeds, n_out=1, *, version=1, outputs=None, **attrs):
    attrs = {k: v for k, v in attrs.items() if v is not None}
    names = outputs or [f"y{i}" for i in range(n_out)]
    made = helper.make_node(op, list(feeds), [o if isinstance(o, str) else o.name for o in names], domain=ML, **attrs)
    return model([made], feeds, names, opset=17, domains=[(ML, version)])


def check(op, *inputs, tol=1e-5, **how):
    feeds = {f"x{i}": x for i, x in enumerate(inputs)}
    return agree(build(op, feeds, **how), feeds, tol=tol)


@pytest.mark.parametrize("transform", [*TRANSFORMS, "PROBIT"])
def test_linear_regressor(transform):
    low = transform == "PROBIT"
    check(
        "LinearRegressor",
        np.abs(X) / 10 if low else X,
        targets=2,
        post_transform=transform,
        coefficients=np.abs(rng.standard_normal(8)) / 10 if low else rng.standard_normal(8),
        intercepts=[0.2, 0.3],
    )


@pytest.mark.parametrize("transform", TRANSFORMS)
@pytest.mark.parametrize("classes", [1, 2, 3])
@pytest.mark.parametrize("text", [False, True])
def test_linear_classifier(transform, classes, text):
    n = max(classes, 2)
    labels = {"classlabels_strings": ["a", "b", "c"][:n]} if text else {"classlabels_ints": [4, 5, 6][:n]}
    check(
        "LinearClassifier",
        X,
        n_out=2,
        post_transform=transform,
        coefficients=rng.standard_normal(4 * classes),
        intercepts=rng.standard_normal(classes),
        **labels,
    )


@pytest.mark.parametrize("norm", ["MAX", "L1", "L2"])
def test_normalizer(norm):
    x = np.abs(X) if norm == "MAX" else X.copy()
    x[2] = 0
    check("Normalizer", x, norm=norm)


@pytest.mark.parametrize("dtype", [np.float32, np.int64])
def test_scaler(dtype):
    check("Scaler", (X * 5).astype(dtype), offset=[1.0, 2.0, 3.0, 4.0], scale=[0.5, 1.0, 2.0, 4.0])
    check("Scaler", (X * 5).astype(dtype), offset=[1.0], scale=[0.5])


def test_imputer():
    x = X.copy()
    x[1, 2] = x[3, 0] = np.nan
    check("Imputer", x, imputed_value_floats=[1.0, 2.0, 3.0, 4.0], replaced_value_float=float("nan"))
    check("Imputer", np.round(X), imputed_value_floats=[9.0], replaced_value_float=0.0)
    check("Imputer", np.round(X).astype(np.int64), imputed_value_int64s=[9], replaced_value_int64=1)


def test_binarizer():
    check("Binarizer", X, threshold=0.25)


def test_feature_vectorizer():
    check("FeatureVectorizer", X, np.arange(12, dtype=np.float32).reshape(6, 2), inputdimensions=[4, 2])


def test_array_feature_extractor():
    check("ArrayFeatureExtractor", X, np.array([[2, 0, 2]]))
    check("ArrayFeatureExtractor", np.arange(5.0), np.array([3, 1]))
    check("ArrayFeatureExtractor", texts(*"abcdef").reshape(2, 3), np.array([1]))


def test_label_encoder_1():
    names = ["cat", "dog", "eel"]
    check("LabelEncoder", texts("eel", "ox", "cat"), classes_strings=names, default_int64=-5)
    check("LabelEncoder", np.array([[2, 0], [7, 1]]), classes_strings=names, default_string="none")


@pytest.mark.parametrize("version", [2, 4])
@pytest.mark.parametrize("keys", ["strings", "int64s", "floats"])
@pytest.mark.parametrize("values", ["strings", "int64s", "floats"])
def test_label_encoder(version, keys, values):
    if version == 2 and keys == values and keys != "strings":
        pytest.skip("version 2 of the reference has no such pair")
    listed = {"strings": ["a", "b", "c"], "int64s": [3, 1, 2], "floats": [0.5, 2.5, 1.5]}
    x = {
        "strings": texts("c", "x", "a"),
        "int64s": np.array([2, 9, 3]),
        "floats": np.array([1.5, 9, 0.5], np.float32),
    }
    check(
        "LabelEncoder",
        x[keys],
        version=version,
        **{f"keys_{keys}": listed[keys], f"values_{values}": listed[values]},
    )


def test_label_encoder_takes_tensors():
    made = onnx.numpy_helper.from_array
    check(
        "LabelEncoder",
        np.array([2.0, 5.0, np.nan]),
        version=4,
        keys_tensor=made(np.array([np.nan, 2.0])),
        values_tensor=made(np.array([7.0, 8.0])),
        default_tensor=made(np.array([-3.0])),
    )
    check(
        "LabelEncoder",
        texts("b", "z"),
        version=4,
        keys_tensor=made(texts("a", "b")),
        values_tensor=made(np.array([7, 8], np.int16)),
        default_tensor=made(np.array([-3], np.int16)),
    )


def test_category_mapper():
    how = {"cats_strings": ["a", "b"], "cats_int64s": [5, 6]}
    check("CategoryMapper", texts("b", "z"), default_int64=-2, **how)
    check("CategoryMapper", np.array([6, 1]), default_string="none", **how)


def test_one_hot_encoder():
    check("OneHotEncoder", np.array([[1, 3], [2, 9]]), cats_int64s=[1, 2, 3])
    check("OneHotEncoder", texts("b", "z", "a"), cats_strings=["a", "b"])


def mapped(op, feed, key, value, **attrs):
    made = helper.make_node(op, ["x"], ["y"], domain=ML, **attrs)
    proto = model([made], {}, ["y"], opset=17, domains=[(ML, 1)])
    kind = helper.make_map_type_proto(key, helper.make_tensor_type_proto(value, []))
    proto.graph.input.append(helper.make_value_info("x", kind))
    return agree(proto, {"x": feed})


def test_dict_vectorizer():
    mapped(
        "DictVectorizer",
        {"a": 1.5, "c": 2.5},
        TensorProto.STRING,
        TensorProto.FLOAT,
        string_vocabulary=["b", "a", "c"],
    )
    mapped("DictVectorizer", {3: 1.5}, TensorProto.INT64, TensorProto.FLOAT, int64_vocabulary=[2, 3])


def test_cast_map():
    mapped("CastMap", {3: 0.5, 1: 2.0}, TensorProto.INT64, TensorProto.FLOAT, cast_to="TO_FLOAT")
    mapped(
        "CastMap",
        {3: 0.5, 1: 2.0},
        TensorProto.INT64,
        TensorProto.FLOAT,
        cast_to="TO_INT64",
        map_form="SPARSE",
        max_map=5,
    )


@pytest.mark.parametrize("keys", [{"classlabels_strings": ["a", "b", "c", "d"]}, {"classlabels_int64s": [4, 3, 2, 1]}])
def test_zip_map(keys):
    key = TensorProto.STRING if "classlabels_strings" in keys else TensorProto.INT64
    kind = helper.make_map_type_proto(key, helper.make_tensor_type_proto(TensorProto.FLOAT, []))
    out = helper.make_value_info("y", helper.make_sequence_type_proto(kind))
    check("ZipMap", X, outputs=[out], **keys)


def trees(prefix, targets, *, modes=("BRANCH_LEQ",), depth=3, count=4, positive=False, seed=0, tensors=None):
    """Return the attributes of random complete trees."""
    r = np.random.default_rng(seed)
    nodes = {
        k: []
        for k in (
            "treeids",
            "nodeids",
            "featureids",
            "values",
            "modes",
            "truenodeids",
            "falsenodeids",
            "missing_value_tracks_true",
        )
    }
    votes = {k: [] for k in ("treeids", "nodeids", "ids", "weights")}
    inner = 2**depth - 1
    for t in range(count):
        for i in range(2 * inner + 1):
            leaf = i >= inner
            row = (
                t,
                i,
                0 if leaf else int(r.integers(4)),
                0.0 if leaf else float(np.round(r.standard_normal(), 1)),
                "LEAF" if leaf else modes[int(r.integers(len(modes)))],
                0 if leaf else 2 * i + 1,
                0 if leaf else 2 * i + 2,
                int(r.integers(2)),
            )
            for k, v in zip(nodes, row, strict=True):
                nodes[k].append(v)
            if leaf:
                for k in range(targets):
                    w = float(np.float32(r.uniform(0, 0.3) if positive else r.standard_normal()))
                    for name, v in zip(votes, (t, i, k, w), strict=True):
                        votes[name].append(v)
    attrs = {f"nodes_{k}": v for k, v in nodes.items()} | {f"{prefix}_{k}": v for k, v in votes.items()}
    for name in tensors or ():
        attrs[f"{name}_as_tensor"] = onnx.numpy_helper.from_array(np.array(attrs.pop(name), np.float64), name)
    return attrs


ROWS = np.round(np.random.default_rng(3).standard_normal((50, 4)), 1).astype(np.float32)
HOLES = np.where(np.random.default_rng(4).uniform(size=ROWS.shape) < 0.2, np.float32(np.nan), ROWS)


@pytest.mark.parametrize("aggregate", ["SUM", "AVERAGE", "MIN", "MAX"])
@pytest.mark.parametrize("version", [1, 3])
def test_tree_ensemble_regressor(aggregate, version):
    check(
        "TreeEnsembleRegressor",
        ROWS,
        version=version,
        n_targets=2,
        aggregate_function=aggregate,
        base_values=[0.5, -0.5],
        **trees("target", 2),
    )


@pytest.mark.parametrize("mode", ["BRANCH_LEQ", "BRANCH_LT", "BRANCH_GTE", "BRANCH_GT", "BRANCH_EQ", "BRANCH_NEQ"])
def test_tree_modes_and_missing_values(mode):
    check("TreeEnsembleRegressor", HOLES, n_targets=1, **trees("target", 1, modes=(mode,)))


def test_tree_modes_may_differ():
    check("TreeEnsembleRegressor", HOLES, n_targets=1, **trees("target", 1, modes=("BRANCH_LT", "BRANCH_GTE")))


def test_tree_doubles():
    attrs = trees("target", 1, tensors=("nodes_values", "target_weights"))
    check("TreeEnsembleRegressor", ROWS.astype(np.float64), version=3, n_targets=1, **attrs)


@pytest.mark.parametrize("transform", TRANSFORMS)
@pytest.mark.parametrize("text", [False, True])
@pytest.mark.parametrize("version", [1, 3])
def test_tree_ensemble_classifier(transform, text, version):
    labels = {"classlabels_strings": ["a", "b", "c"]} if text else {"classlabels_int64s": [4, 5, 6]}
    check(
        "TreeEnsembleClassifier",
        ROWS,
        version=version,
        n_out=2,
        post_transform=transform,
        base_values=[0.1, 0.2, 0.3],
        **labels,
        **trees("class", 3, positive=True),
    )


@pytest.mark.parametrize("transform", TRANSFORMS)
def test_tree_ensemble_classifier_of_two_scores(transform):
    """The reference only compares the second score with 0; the standard wants the top class."""
    feeds = {"x0": ROWS}
    proto = build(
        "TreeEnsembleClassifier",
        feeds,
        2,
        post_transform=transform,
        classlabels_int64s=[4, 5],
        **trees("class", 2),
    )
    (label, scores), (_, wanted) = ours(proto, feeds), theirs(proto, feeds)
    same(scores, wanted)
    np.testing.assert_array_equal(label, np.array([4, 5])[wanted.argmax(1)])


@pytest.mark.parametrize("transform", TRANSFORMS)
@pytest.mark.parametrize("positive", [False, True])
@pytest.mark.parametrize("voted,base", [(0, None), (0, [0.25]), (1, None)])
def test_tree_ensemble_classifier_of_one_score(transform, positive, voted, base):
    attrs = trees("class", 1, positive=positive)
    attrs["class_ids"] = [voted] * len(attrs["class_ids"])
    check(
        "TreeEnsembleClassifier",
        ROWS,
        n_out=2,
        post_transform=transform,
        classlabels_int64s=[4, 5],
        base_values=base,
        **attrs,
    )


def test_tree_ensemble_5():
    made = onnx.numpy_helper.from_array
    proto = build(
        "TreeEnsemble",
        {"x0": ROWS},
        version=5,
        n_targets=2,
        aggregate_function=1,
        post_transform=0,
        nodes_featureids=[0, 1, 2],
        nodes_splits=made(np.array([0.1, -0.2, 0.3], np.float32)),
        nodes_modes=made(np.array([0, 1, 2], np.uint8)),
        nodes_truenodeids=[1, 0, 2],
        nodes_trueleafs=[0, 1, 1],
        nodes_falsenodeids=[2, 1, 3],
        nodes_falseleafs=[0, 1, 1],
        tree_roots=[0],
        leaf_targetids=[0, 1, 0, 1],
        leaf_weights=made(np.array([1, 2, 3, 4], np.float32)),
    )
    agree(proto, {"x0": ROWS})


def test_tree_ensemble_5_with_sets():
    made = onnx.numpy_helper.from_array
    proto = build(
        "TreeEnsemble",
        {"x0": ROWS},
        version=5,
        n_targets=1,
        aggregate_function=1,
        post_transform=0,
        nodes_featureids=[0, 1],
        nodes_splits=made(np.array([0, 0.2], np.float32)),
        nodes_modes=made(np.array([6, 0], np.uint8)),
        nodes_truenodeids=[0, 1],
        nodes_trueleafs=[1, 1],
        nodes_falsenodeids=[1, 2],
        nodes_falseleafs=[0, 1],
        tree_roots=[0],
        leaf_targetids=[0, 0, 0],
        leaf_weights=made(np.array([1, 2, 3], np.float32)),
        membership_values=made(np.array([0.5, -0.3, 1.0, np.nan], np.float32)),
    )
    (y,) = ours(proto, {"x0": ROWS})
    member = np.isin(ROWS[:, 0], np.array([0.5, -0.3, 1.0], np.float32))
    np.testing.assert_array_equal(y[:, 0], np.where(member, 1, np.where(ROWS[:, 1] <= np.float32(0.2), 2, 3)))
