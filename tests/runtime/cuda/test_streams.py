"""Streams and events by PyTorch's names."""

import pytest

import onnxgrad as og

pytestmark = pytest.mark.usefixtures("two_devices")


def test_the_current_stream():
    first = og.cuda.current_stream()
    assert first == og.cuda.default_stream() and first.device == "cuda:0" and first.cuda_stream == 0
    s = og.cuda.Stream(priority=-1)
    assert s != first and hash(s) != hash(first) and "cuda:0" in repr(s) and s.__cuda_stream__() == (0, s.cuda_stream)
    with og.cuda.stream(s):
        assert og.cuda.current_stream() is s
        with og.cuda.stream(None):
            assert og.cuda.current_stream() is s
    assert og.cuda.current_stream() == first and not og.cuda.is_current_stream_capturing()


def test_a_stream_of_another_device_brings_that_along():
    s = og.cuda.Stream("cuda:1")
    with og.cuda.stream(s):
        assert og.cuda.current_device() == 1 and og.cuda.current_stream() is s
        assert og.ones(1, device="cuda").device == "cuda:1"
    assert og.cuda.current_device() == 0 and og.cuda.current_stream(1) == og.cuda.default_stream(1)


def test_events():
    s, other = og.cuda.Stream(), og.cuda.Stream()
    begin, end = (og.cuda.Event(enable_timing=True) for _ in range(2))
    assert begin.query()
    with pytest.raises(RuntimeError, match="must be recorded"):
        begin.elapsed_time(end)
    begin.record(s)
    assert s.record_event(end) is end and begin.elapsed_time(end) == 0.5
    other.wait_stream(s)
    other.wait_event(end)
    end.wait(s)
    assert len(other._stream.waited) == 2 and s._stream.waited == [end._event]
    end.synchronize()
    s.synchronize()
    assert s.query() and end.query()
    with pytest.raises(RuntimeError, match="enable_timing=True"):
        og.cuda.Event().elapsed_time(end)
