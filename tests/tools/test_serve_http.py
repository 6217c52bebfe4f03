"""The inference server on a real port, with Triton's client and with clients that misbehave."""

import json
import socket
import threading
import time

import numpy as np
import pytest

from onnxgrad.ops.dims import Dim
from onnxgrad.ops.types import TensorType
from onnxgrad.tools.serve.app import create_app
from onnxgrad.tools.serve.datatypes import DTYPES
from onnxgrad.tools.serve.server import announcement, listen

from .serving import Port, Stub, broken, echo, port, running, shout, sums

triton = pytest.importorskip("tritonclient.http")

LIMIT = 1 << 20
NUMBERS = [name for name in DTYPES if name != "BYTES"]
TEXTUAL = [name for name in NUMBERS if name not in ("FP16", "BF16")]  # the client sends those two as bytes only


def gated(gate):
    def wait(x):
        gate.count += 1
        assert gate.wait(20)
        return {"y": x}

    return Stub([port("x", np.float32, 1)], [port("y", np.float32, 1)], wait)


@pytest.fixture(scope="module")
def gate():
    gate = threading.Event()
    gate.count = 0
    return gate


@pytest.fixture(scope="module")
def address(gate):
    models = {name: echo(dtype, "n", 2) for name, dtype in DTYPES.items()}
    models |= {
        "sums": sums(),
        "shout": shout(),
        "broken": broken(),
        "a name": echo(np.float32, "n"),
        "gated": gated(gate),
    }
    with running(create_app(models, limit_bytes=LIMIT, workers=1)) as address:
        yield address


@pytest.fixture
def client(address):
    with triton.InferenceServerClient(address) as client:
        yield client


def given(name, array, datatype, binary):
    x = triton.InferInput(name, list(array.shape), datatype)
    x.set_data_from_numpy(array, binary_data=binary)
    return x


def test_health_and_metadata(client):
    assert client.is_server_live() and client.is_server_ready() and client.is_model_ready("sums")
    assert not client.is_model_ready("nope") and not client.is_model_ready("sums", "2")
    assert client.get_server_metadata()["name"] == "onnxgrad"
    assert client.get_model_metadata("sums", "1")["inputs"][0] == {
        "name": "a",
        "datatype": "FP32",
        "shape": [-1, 2],
    }
    assert client.get_model_metadata("a name")["name"] == "a name"


@pytest.mark.parametrize("binary_out", [True, False])
@pytest.mark.parametrize(("name", "binary_in"), [*((n, True) for n in NUMBERS), *((n, False) for n in TEXTUAL)])
def test_numbers(client, name, binary_in, binary_out):
    x = np.array([[0, 1], [2, 3], [100, 1]]).astype(DTYPES[name])
    wanted = [triton.InferRequestedOutput("y", binary_data=binary_out)]
    found = client.infer(name, [given("x", x, name, binary_in)], outputs=wanted, request_id="7")
    y = found.as_numpy("y")
    assert y.dtype == x.dtype and found.get_response()["id"] == "7"
    np.testing.assert_array_equal(y, x)


@pytest.mark.parametrize("binary", [True, False])
def test_strings(client, binary):
    x = np.array([b"a", "ß".encode(), b""], object)
    wanted = [triton.InferRequestedOutput("y", binary_data=binary)]
    y = client.infer("shout", [given("x", x, "BYTES", binary)], outputs=wanted).as_numpy("y")
    assert [v if isinstance(v, str) else v.decode() for v in y] == ["A", "SS", ""]


@pytest.mark.parametrize("compression", [None, "gzip", "deflate"])
def test_several_tensors_by_the_defaults(client, compression):
    a, b = np.ones((3, 2), np.float32), np.arange(3)
    inputs = [given("a", a, "FP32", True), given("b", b, "INT64", False)]
    found = client.infer(
        "sums", inputs, request_compression_algorithm=compression, response_compression_algorithm="gzip"
    )
    np.testing.assert_array_equal(found.as_numpy("sum"), b + 2)
    np.testing.assert_array_equal(found.as_numpy("twice"), 2 * b)


def test_classification(client):
    x = np.array([[1, 2], [4, 3]], np.float32)
    wanted = [triton.InferRequestedOutput("y", class_count=1)]
    found = client.infer("FP32", [given("x", x, "FP32", True)], outputs=wanted)
    assert found.as_numpy("y").tolist() == [[b"2:1"], [b"4:0"]]


def test_small_answers_are_not_held_back(client):
    x = given("x", np.zeros((1, 2), np.float32), "FP32", True)
    times = []
    for _ in range(10):
        started = time.perf_counter()
        client.infer("FP32", [x])
        times.append(time.perf_counter() - started)
    assert min(times) < 0.03  # Nagle's algorithm and delayed acknowledgement would make it 0.04


def test_errors_reach_the_client_and_the_server_goes_on(client):
    x = given("x", np.zeros((1, 3), np.float32), "FP32", True)
    with pytest.raises(triton.InferenceServerException, match=r"found FP32 \(1, 3\), wanted FP32 \(n, 2\)"):
        client.infer("FP32", [x])
    with pytest.raises(triton.InferenceServerException, match="no model 'nope'"):
        client.infer("nope", [x])
    with pytest.raises(triton.InferenceServerException, match="internal error"):
        client.infer("broken", [given("x", np.zeros(1, np.float32), "FP32", True)])
    assert client.is_server_live()


def test_a_body_over_the_limit_is_refused(client):
    x = given("x", np.zeros((LIMIT, 2), np.float32), "FP32", True)
    with pytest.raises(triton.InferenceServerException, match=f"limit of {LIMIT} bytes"):
        client.infer("FP32", [x])
    assert client.is_server_live()


def connect(address):
    host, number = address.split(":")
    return socket.create_connection((host, int(number)), timeout=20)


def answer(connection):
    data = b""
    while piece := connection.recv(65536):
        data += piece
    head, _, body = data.partition(b"\r\n\r\n")
    return int(head.split()[1]), json.loads(body)


def test_an_endless_chunked_body_is_refused_while_it_arrives(address):
    with connect(address) as connection:
        connection.sendall(b"POST /v2/models/FP32/infer HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")
        for _ in range(LIMIT // 65536 + 1):
            connection.sendall(b"10000\r\n" + b" " * 65536 + b"\r\n")
        started = time.monotonic()
        status, error = answer(connection)
    assert status == 413 and str(LIMIT) in error["error"]
    assert time.monotonic() - started < 10


def test_an_announced_large_body_is_refused_before_it_is_sent(address):
    with connect(address) as connection:
        connection.sendall(
            b"POST /v2/models/FP32/infer HTTP/1.1\r\nHost: x\r\n"
            b"Content-Length: 99999999999\r\nExpect: 100-continue\r\n\r\n"
        )
        status, error = answer(connection)
    assert status == 413 and str(LIMIT) in error["error"]


@pytest.mark.parametrize(
    "start",
    [
        b"",
        b"\0\0\0\0\r\n\r\n",
        b"GET /v2",
        b"POST /v2/models/FP32/infer HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{",
        b"POST /v2/models/FP32/infer HTTP/1.1\r\nHost: x\r\nContent-Length: -5\r\n\r\n{",
    ],
)
def test_clients_that_leave_in_the_middle_do_no_harm(client, address, start):
    with connect(address) as connection:
        connection.sendall(start)
    assert client.is_server_live()


def test_requests_still_waiting_when_their_client_leaves_are_dropped(client, address, gate):
    body = json.dumps({"inputs": [{"name": "x", "shape": [1], "datatype": "FP32", "data": [1]}]}).encode()
    request = b"POST /v2/models/gated/infer HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body) + body
    with connect(address) as first, connect(address) as second:
        first.sendall(request)
        while gate.count < 1:
            time.sleep(0.01)
        second.sendall(request)  # waits: there is one worker
        assert client.is_server_ready()
    time.sleep(0.2)
    gate.set()
    y = client.infer("gated", [given("x", np.zeros(1, np.float32), "FP32", True)]).as_numpy("y")
    assert y == [0] and gate.count == 2


def test_the_announcement_says_what_is_where():
    text = announcement({"sums": sums()}, "127.0.0.1", 8000)
    assert "http://127.0.0.1:8000/v2/models/sums" in text
    assert "in  a: FP32 (n, 2)" in text and "out twice: INT64 (n,)" in text
    unnamed = Stub([Port("x", TensorType(DTYPES["FP32"], (Dim.fresh(), 2)))], [port("y", np.uint8)], dict)
    assert "in  x: FP32 (?, 2)" in announcement({"m": unnamed}, "::1", 1)


def test_a_taken_port_is_a_clear_error():
    with listen("127.0.0.1", 0) as taken, pytest.raises(OSError, match="cannot listen on"):
        listen("127.0.0.1", taken.getsockname()[1])
    with pytest.raises(OSError, match=r"cannot listen on 127\.0\.0\.1:99999"):
        listen("127.0.0.1", 99999)
