"""The inference server's protocol and its answers to bad input, through the web application."""

import gzip
import json
import sys
import threading
import zlib

import msgspec
import numpy as np
import pytest
from hypothesis import given, strategies as st
from starlette.testclient import TestClient

from onnxgrad.ops.errors import MissingExtraError, ServeError
from onnxgrad.ops.types import STRING, SequenceType, TensorType
from onnxgrad.tools.serve import protocol, serve
from onnxgrad.tools.serve.app import create_app
from onnxgrad.tools.serve.datatypes import DTYPES, from_bytes, from_json, to_bytes, to_json

from .serving import Port, Stub, broken, echo, port, shout, sums

LIMIT = 1 << 16
HEADER = "Inference-Header-Content-Length"


def models():
    return {
        "echo": echo(np.float32, "n", 3),
        "sums": sums(),
        "shout": shout(),
        "flags": echo(np.bool_, "n"),
        "half": echo(DTYPES["FP16"], "n"),
        "bytes": echo(np.int8, "n"),
        "scalar": echo(np.float64),
        "wide": echo(np.float32, "n", "m"),
        "broken": broken(),
        "sequence": Stub([port("x", np.float32, 1)], [Port("y", SequenceType(TensorType(DTYPES["FP32"], ())))], dict),
    }


@pytest.fixture(scope="module")
def client():
    app = create_app(models(), limit_bytes=LIMIT, workers=2)
    with TestClient(app, raise_server_exceptions=False) as client:
        yield client


def tensor(name="x", shape=(1, 3), datatype="FP32", **rest):
    return {"name": name, "shape": list(shape), "datatype": datatype, **rest}


def infer(client, model="echo", *, body=None, **request):
    content = json.dumps(request) if body is None else body
    return client.post(f"/v2/models/{model}/infer", content=content)


def refused(response, *words, status=400):
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/json"
    (error,) = response.json().values()
    assert set(response.json()) == {"error"}
    assert all(word in error for word in words), error
    assert "Traceback" not in error
    return True


def test_server_metadata_and_health(client):
    server = client.get("/v2").json()
    assert server["name"] == "onnxgrad" and server["version"]
    assert server["extensions"] == ["binary_tensor_data", "classification"]
    assert client.get("/v2/health/live").json() == {"live": True}
    assert client.get("/v2/health/ready").json() == {"ready": True}
    assert client.get("/v2/models").json() == {"models": list(models())}


@pytest.mark.parametrize("path", ["/v2/models/sums", "/v2/models/sums/versions/1"])
def test_model_metadata(client, path):
    assert client.get(path).json() == {
        "name": "sums",
        "versions": ["1"],
        "platform": "onnxgrad_onnx",
        "inputs": [
            {"name": "a", "datatype": "FP32", "shape": [-1, 2]},
            {"name": "b", "datatype": "INT64", "shape": [-1]},
        ],
        "outputs": [
            {"name": "sum", "datatype": "FP32", "shape": [-1]},
            {"name": "twice", "datatype": "INT64", "shape": [-1]},
        ],
    }
    assert client.get(path + "/ready").json() == {"name": "sums", "ready": True}


@pytest.mark.parametrize("data", [[1, 2, 3, 4, 5, 6.5], [[1, 2, 3], [4, 5, 6.5]]], ids=["flat", "nested"])
def test_json_in_and_out(client, data):
    answer = infer(client, inputs=[tensor(shape=[2, 3], data=data)], id="q7", parameters={"unknown": 1}).json()
    assert answer == {
        "model_name": "echo",
        "model_version": "1",
        "id": "q7",
        "outputs": [{"name": "y", "datatype": "FP32", "shape": [2, 3], "data": [1, 2, 3, 4, 5, 6.5]}],
    }


def test_several_inputs_and_chosen_outputs(client):
    inputs = [tensor("b", [2], "INT64", data=[10, 20]), tensor("a", [2, 2], data=[1, 2, 3, 4])]
    answer = infer(client, "sums", inputs=inputs).json()
    assert [(o["name"], o["data"]) for o in answer["outputs"]] == [("sum", [13, 27]), ("twice", [20, 40])]
    answer = infer(client, "sums", inputs=inputs, outputs=[{"name": "twice"}]).json()
    assert [(o["name"], o["data"]) for o in answer["outputs"]] == [("twice", [20, 40])]
    assert "id" not in answer


def binary_request(arrays, **request):
    raw = [bytes(to_bytes(a)) for a in arrays.values()]
    names = {dtype: name for name, dtype in DTYPES.items()}
    inputs = [
        tensor(n, a.shape, names[a.dtype], parameters={"binary_data_size": len(b)})
        for (n, a), b in zip(arrays.items(), raw, strict=True)
    ]
    head = json.dumps({"inputs": inputs, **request}).encode()
    return head + b"".join(raw), {HEADER: str(len(head))}


def binary_answer(response):
    assert response.status_code == 200, response.text
    length = int(response.headers[HEADER])
    head, rest = json.loads(response.content[:length]), memoryview(response.content)[length:]
    out = {}
    for o in head["outputs"]:
        if "data" in o:
            out[o["name"]] = np.array(o["data"], DTYPES[o["datatype"]]).reshape(o["shape"])
            continue
        size = o["parameters"]["binary_data_size"]
        out[o["name"]] = from_bytes(rest[:size], DTYPES[o["datatype"]], tuple(o["shape"]))
        rest = rest[size:]
    assert not rest
    return out


@pytest.mark.parametrize("padding", range(4))
def test_binary_in_and_out(client, padding):
    arrays = {"a": np.arange(4, dtype=np.float32).reshape(2, 2), "b": np.array([-1, 2**40])}
    body, headers = binary_request(arrays, parameters={"binary_data_output": True}, id="i" * padding)
    out = binary_answer(client.post("/v2/models/sums/infer", content=body, headers=headers))
    np.testing.assert_array_equal(out["twice"], 2 * arrays["b"])
    np.testing.assert_array_equal(out["sum"], arrays["a"].sum(1) + arrays["b"].astype(np.float32))


def test_binary_is_chosen_per_output(client):
    inputs = [tensor("b", [1], "INT64", data=[10]), tensor("a", [1, 2], data=[1, 2])]
    outputs = [{"name": "twice", "parameters": {"binary_data": True}}, {"name": "sum"}]
    response = infer(client, "sums", inputs=inputs, outputs=outputs)
    assert response.headers["content-type"] == "application/octet-stream"
    out = binary_answer(response)
    assert list(out) == ["twice", "sum"] and out["twice"] == [20] and out["sum"] == [13]


def test_a_raw_body_is_the_one_input(client):
    x = np.arange(6, dtype=np.float32).reshape(2, 3)
    send = lambda model, body: client.post(f"/v2/models/{model}/infer", content=body, headers={HEADER: "0"})  # noqa: E731
    np.testing.assert_array_equal(binary_answer(send("echo", x.tobytes()))["y"], x)
    assert binary_answer(send("shout", "grüße".encode()))["y"].tolist() == ["GRÜSSE"]
    assert refused(send("echo", x.tobytes()[:-1]), "'x'", "23 bytes")
    assert refused(send("wide", x.tobytes()), "at most one unknown dimension")
    assert refused(send("sums", x.tobytes()), "one input")
    assert refused(send("shout", b"\xff"), "UTF-8")


def test_classification(client):
    inputs = [tensor(shape=[2, 3], data=[0.5, 0.25, 2, 9, 8, 7])]
    ask = lambda n: infer(client, inputs=inputs, outputs=[{"name": "y", "parameters": {"classification": n}}])  # noqa: E731
    (output,) = ask(2).json()["outputs"]
    assert output == {
        "name": "y",
        "datatype": "BYTES",
        "shape": [2, 2],
        "data": ["2:2", "0.5:0", "9:0", "8:1"],
    }
    assert ask(10**6).json()["outputs"][0]["shape"] == [2, 3]
    for wrong in (0, -1, 1.5, "3", True):
        assert refused(ask(wrong), "classification")


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "identity"])
def test_compressed_bodies(client, encoding):
    pack = {"gzip": gzip.compress, "deflate": zlib.compress, "identity": bytes}[encoding]
    body = pack(json.dumps({"inputs": [tensor(data=[1, 2, 3])]}).encode())
    send = lambda body: client.post(  # noqa: E731
        "/v2/models/echo/infer", content=body, headers={"Content-Encoding": encoding}
    )
    assert send(body).json()["outputs"][0]["data"] == [1, 2, 3]
    assert refused(send(b"x" + body))
    assert refused(send(body[:-4]))
    assert refused(send(body + body))
    if encoding != "identity":
        assert refused(send(pack(b" " * (LIMIT + 1))), "expands", status=413)


def test_an_unknown_encoding_is_refused(client):
    response = client.post("/v2/models/echo/infer", content=b"", headers={"Content-Encoding": "br"})
    assert refused(response, "'br'", "gzip", status=415)


@pytest.mark.parametrize(
    ("model", "wrong", "words"),
    [
        ("echo", tensor(shape=[2, 4], data=[1] * 8), ["'x'", "found FP32 (2, 4)", "wanted FP32 (n, 3)"]),
        ("echo", tensor(shape=[3], data=[1] * 3), ["found FP32 (3,)", "wanted FP32 (n, 3)"]),
        ("echo", tensor(datatype="INT32", data=[1] * 3), ["found INT32", "wanted FP32"]),
        ("echo", tensor(datatype="FP31", data=[1] * 3), ["'FP31'", "FP32"]),
        ("echo", tensor(shape=[-1, 3], data=[1] * 3), ["shape[0]"]),
        ("echo", tensor(shape=[2**70, 3], data=[1] * 3), ["not an inference request"]),
        ("echo", tensor(shape=[2**62, 3], data=[1] * 3), ["too large"]),
        ("wide", tensor(shape=[0, 2**40], data=[]), ["too large"]),
        ("wide", tensor(shape=[2**40, 2**40], data=[]), ["too large"]),
        ("echo", tensor(shape=[1] * 100, data=[1] * 3), ["wanted FP32 (n, 3)"]),
        ("echo", tensor(data=[1, 2]), ["2 elements", "wants 3"]),
        ("echo", tensor(data=[[1], [2], [3]]), ["nested as (3, 1)", "(1, 3)"]),
        ("echo", tensor(shape=[2, 3], data=[[1, 2, 3], [4, 5]]), ["ragged"]),
        ("echo", tensor(data=[[[1, 2, 3]]]), ["nested 3 deep"]),
        ("echo", tensor(data=7), ["nested 0 deep"]),
        ("echo", tensor(data=["a", "b", "c"]), ["Expected `float`"]),
        ("echo", tensor(data=[1, None, 3]), ["Expected `float`, got `null`"]),
        ("echo", tensor(data=[1, 2, 1e39]), ["a number that FP32 does not"]),
        ("echo", tensor(data=None), ["'x'"]),
        ("echo", tensor(data={}), ["'x'"]),
        ("echo", tensor(), ["data is missing"]),
        ("echo", tensor("z", data=[1] * 3), ["no input 'z'", "'x'"]),
        ("echo", tensor(parameters={"shared_memory_region": "r"}), ["shared memory"]),
        ("echo", tensor(parameters={"binary_data_size": 12}), ["only 0 bytes are left"]),
        ("echo", tensor(parameters={"binary_data_size": -1}), ["binary_data_size"]),
        ("echo", tensor(parameters={"binary_data_size": True}), ["binary_data_size"]),
        (
            "echo",
            tensor(data=[1] * 3, parameters={"binary_data_size": 0}),
            ["both data and binary_data_size"],
        ),
        ("half", tensor(shape=[1], datatype="FP16", data=[1e5]), ["FP16"]),
        ("bytes", tensor(shape=[1], datatype="INT8", data=[128]), ["INT8"]),
        ("bytes", tensor(shape=[1], datatype="INT8", data=[1.5]), ["Expected `int`, got `float`"]),
        ("flags", tensor(shape=[1], datatype="BOOL", data=[2]), ["'x'"]),
        ("shout", tensor(shape=[1], datatype="BYTES", data=[2]), ["Expected `str`"]),
        ("shout", tensor(shape=[2], datatype="BYTES", data=[["a"], ["b", "c"]]), ["nested 2 deep"]),
        ("scalar", tensor(shape=[], datatype="FP64", data=[1, 2]), ["2 elements"]),
        ("sums", tensor("a", [1, 2], data=[1, 2]), ["'b'"]),
    ],
)
def test_wrong_inputs_are_explained(client, model, wrong, words):
    assert refused(infer(client, model, inputs=[wrong]), *words)


@pytest.mark.parametrize("data", [7, [7]])
def test_scalars(client, data):
    answer = infer(client, "scalar", inputs=[tensor(shape=[], datatype="FP64", data=data)]).json()
    assert answer["outputs"] == [{"name": "y", "datatype": "FP64", "shape": [], "data": [7]}]


@pytest.mark.parametrize("data", [[], [[], []]])
def test_empty_tensors(client, data):
    answer = infer(client, "wide", inputs=[tensor(shape=[2, 0], data=data)]).json()
    assert answer["outputs"] == [{"name": "y", "datatype": "FP32", "shape": [2, 0], "data": []}]


@pytest.mark.parametrize(
    "request_",
    [
        {},
        {"inputs": {}},
        {"inputs": [{}]},
        {"inputs": [1]},
        {"inputs": [tensor(data=[1] * 3)] * 2},
        {"inputs": [tensor(data=[1] * 3)], "id": 5},
        {"inputs": [tensor(data=[1] * 3)], "outputs": [{"name": "q"}]},
        {"inputs": [tensor(data=[1] * 3)], "outputs": [{"name": "y"}] * 2},
        {"inputs": [tensor(data=[1] * 3)], "outputs": [{"name": "y", "parameters": {"binary_data": "yes"}}]},
        {
            "inputs": [tensor(data=[1] * 3)],
            "outputs": [{"name": "y", "parameters": {"shared_memory_region": "r"}}],
        },
        {"inputs": [tensor(data=[1] * 3)], "parameters": {"binary_data_output": 1}},
    ],
)
def test_wrong_requests_are_refused(client, request_):
    assert refused(infer(client, **request_))


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"null",
        b"[]",
        b"{",
        b"\xff\xfe",
        b"<xml/>",
        b"a=1&b=2",
        b"[" * 30_000,
        b'{"inputs": ' + b"[" * 30_000,
        b'{"inputs": [{"name": "x", "shape": [1, 3], "datatype": "FP32", "data": ' + b"[" * 30_000,
        b'{"inputs": [{"name":"x","shape":[1,3],"datatype":"FP32","data":' + b"[" * 9_000 + b"]" * 9_000 + b"}]}",
        b'{"inputs": [{"name": "x", "shape": [1, 3], "datatype": "FP32", "data": [NaN, 1, 2]}]}',
        b'{"inputs": [{"name": "x", "shape": [1, 3], "datatype": "FP32", "data": [1e999, 1, 2]}]}',
        b'{"inputs": [{"name": "x", "shape": [1, 3], "datatype": "FP32", "data": [1, 2, 3]}]} trailing',
        b'{"inputs": [{"name": "\xff", "shape": [1, 3], "datatype": "FP32", "data": [1, 2, 3]}]}',
        b'{"inputs": [{"name": "\\ud800", "shape": [1, 3], "datatype": "FP32", "data": [1, 2, 3]}]}',
    ],
)
def test_malformed_bodies_are_refused(client, body):
    assert refused(infer(client, body=body))


@pytest.mark.parametrize("length", ["-1", "1e2", "x", "", " ", "9999999999999999999999", "1000", "1_0", "٣"])
def test_wrong_header_lengths_are_refused(client, length):
    body, _ = binary_request({"x": np.zeros((1, 3), np.float32)})
    headers = {HEADER: length.encode()}
    assert refused(client.post("/v2/models/echo/infer", content=body, headers=headers))


def test_bytes_and_announcement_must_agree(client):
    body, headers = binary_request({"x": np.zeros((1, 3), np.float32)})
    post = lambda body, headers: client.post("/v2/models/echo/infer", content=body, headers=headers)  # noqa: E731
    assert refused(post(body + b"1", headers), "1")
    assert refused(post(body[:-1], headers), "11 bytes are left")
    assert refused(post(body, {}), "not an inference request")
    twice = [(HEADER, headers[HEADER]), (HEADER, "3")]
    assert refused(post(body, twice), "twice")


@pytest.mark.parametrize("raw", [b"", b"\1\0", b"\4\0\0\0abc", b"\1\0\0\0abc", b"\xff\xff\xff\xffabc", b"\1\0\0\0\xff"])
def test_wrong_string_bytes_are_refused(client, raw):
    head = json.dumps({"inputs": [tensor(shape=[1], datatype="BYTES", parameters={"binary_data_size": len(raw)})]})
    response = client.post("/v2/models/shout/infer", content=head.encode() + raw, headers={HEADER: str(len(head))})
    assert refused(response, "'x'")


def test_unknown_paths_models_versions_and_methods(client):
    assert refused(client.get("/v2/models/nope"), "'nope'", "echo", status=404)
    assert refused(infer(client, "nope"), "'nope'", status=404)
    assert refused(client.get("/v2/models/echo/versions/2"), "'2'", status=404)
    assert refused(client.get("/v2/models/..%2fecho/ready"), status=404)
    assert refused(client.get("/v3"), status=404)
    assert refused(client.get("/v2/models/echo/infer"), "GET", status=405)
    assert refused(client.post("/v2/health/live"), "POST", status=405)
    assert refused(client.delete("/v2/models/echo"), "DELETE", status=405)


def test_large_bodies_are_refused(client):
    assert refused(infer(client, body=b" " * (LIMIT + 1)), str(LIMIT), status=413)
    assert refused(infer(client, body=(b" " * 4096 for _ in range(100))), str(LIMIT), status=413)
    assert infer(client, body=b" " * LIMIT).status_code == 400


def test_a_bug_is_an_internal_error_that_tells_the_client_nothing(client):
    for _ in range(3):
        response = infer(client, "broken", inputs=[tensor(shape=[1], data=[1])])
        assert refused(response, "internal error", status=500)
        assert "secret" not in response.text
    assert client.get("/v2/health/live").status_code == 200


def test_what_the_protocol_cannot_carry(client):
    response = infer(client, "sequence", inputs=[tensor(shape=[1], data=[1])])
    assert refused(response, "'y' is a sequence<float32()>", status=501)
    assert client.get("/v2/models/sequence").json()["outputs"][0]["shape"] == [-1]


def test_nan_and_infinity_go_out_as_triton_writes_them():
    x = np.array([np.nan, np.inf, -np.inf, 1.5], np.float32)
    assert bytes(to_json(x)) == b"[NaN, Infinity, -Infinity, 1.5]"


def test_health_is_answered_while_all_workers_compute():
    go = threading.Event()

    def wait(x):
        assert go.wait(20)
        return {"y": x}

    slow = Stub([port("x", np.float32, 1)], [port("y", np.float32, 1)], wait)
    with TestClient(create_app({"slow": slow}, workers=1)) as client:
        ask = lambda: infer(client, "slow", inputs=[tensor(shape=[1], data=[1])]).status_code  # noqa: E731
        found = []
        threads = [threading.Thread(target=lambda: found.append(ask())) for _ in range(3)]
        for t in threads:
            t.start()
        for _ in range(5):
            assert client.get("/v2/health/ready").status_code == 200
        assert not found
        go.set()
        for t in threads:
            t.join()
    assert found == [200] * 3


def test_a_missing_package_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    with pytest.raises(MissingExtraError, match=r"uvicorn: pip install 'onnxgrad\[serve\]'"):
        serve({})


def test_too_many_waiting_requests_are_told_to_come_back(monkeypatch):
    monkeypatch.setattr("onnxgrad.tools.serve.app.WAITING_LIMIT", 0)
    with TestClient(create_app(models())) as client:
        response = infer(client, inputs=[tensor(data=[1, 2, 3])])
    assert refused(response, "waiting", status=503)
    assert response.headers["retry-after"] == "1"


@pytest.mark.parametrize("name", [n for n in DTYPES if n != "BYTES"])
def test_every_datatype_survives_both_ways(name):
    dtype = DTYPES[name]
    x = np.array([[0, 1, 2], [3, 100, 7]]).astype(dtype)
    for values in (
        to_json(x),
        msgspec.json.encode(x.astype(float if dtype.kind in "fV" else dtype).tolist()),
    ):
        found = from_json(bytes(values), dtype, x.shape)
        assert found.dtype == dtype
        np.testing.assert_array_equal(found, x)
    for pad in range(8):  # unaligned views are copied
        found = from_bytes(memoryview(b" " * pad + bytes(to_bytes(x)))[pad:], dtype, x.shape)
        assert found.dtype == dtype and found.flags.aligned
        np.testing.assert_array_equal(found, x)


@given(st.lists(st.text(), max_size=5))
def test_strings_survive_both_ways(texts):
    try:
        "".join(texts).encode()
    except UnicodeEncodeError:
        return
    x = np.array(texts, object)
    assert from_json(bytes(to_json(x)), STRING, x.shape).tolist() == texts
    assert from_bytes(memoryview(to_bytes(x)), STRING, x.shape).tolist() == texts


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner, max_size=4),
    max_leaves=10,
)


AS_JSON = {
    "id": "1",
    "parameters": {"binary_data_output": True},
    "inputs": [{"name": "x", "shape": [1, 3], "datatype": "FP32", "data": [1, 2, 3]}],
    "outputs": [{"name": "y", "parameters": {"classification": 1, "binary_data": False}}],
}
AS_BYTES = {
    "inputs": [{"name": "x", "shape": [1, 3], "datatype": "FP32", "parameters": {"binary_data_size": 12}}],
}


def places(value):
    """Yield every (container, key) within a request."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield value, key
        yield from places(inner)


@st.composite
def bodies(draw):
    """Draw a request with up to two places spoilt, and its header length."""
    request, tail = draw(st.sampled_from([(AS_JSON, b""), (AS_BYTES, bytes(12))]))
    request = json.loads(json.dumps(request))
    for _ in range(draw(st.integers(0, 2))):
        container, key = draw(st.sampled_from(list(places(request))))
        if draw(st.booleans()):
            container[key] = draw(JSON)
        else:
            del container[key]
        if not request:
            break
    head = json.dumps(request).encode()
    shift = draw(st.just(0) | st.integers(-8, 8))
    return head + draw(st.just(tail) | st.binary(max_size=16)), {HEADER: str(len(head) + shift)}


@given(bodies())
def test_spoilt_requests_are_a_client_error_or_an_answer(client, request_):
    body, headers = request_
    response = client.post("/v2/models/echo/infer", content=body, headers=headers)
    if response.status_code == 200:
        head = response.content[: int(response.headers.get(HEADER, len(response.content)))]
        assert json.loads(head)["model_name"] == "echo"
    else:
        assert refused(response, status=400)
    assert client.get("/v2/health/live").status_code == 200


@given(st.binary(max_size=60), st.sampled_from(["0", "5", None]))
def test_random_bytes_are_a_client_error_or_an_answer(body, length):
    for model in (echo(np.float32, "n"), shout(), echo(np.bool_, "n")):
        try:
            protocol.infer("m", model, body, length)
        except ServeError as error:
            assert 400 <= error.status < 500
