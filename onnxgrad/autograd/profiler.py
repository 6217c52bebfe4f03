"""Profiles, by the name that they had before `onnxgrad.profiler`."""

from ..runtime.profiler import EventList, FunctionEvent, FunctionEventAvg, profile, record_function

__all__ = ["EventList", "FunctionEvent", "FunctionEventAvg", "profile", "record_function"]
