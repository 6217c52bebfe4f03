"""Profiles: what takes how long, how much memory, how many operations.

Only what is named here is public. `watching.py` replaces functions while a profile is under way, `recorder.py` collects
events, `events.py` and `table.py` show them, `trace_file.py` writes them.
"""

from .events import EventList, FunctionEvent, FunctionEventAvg
from .profile import profile, record_function
from .schedule import (
    ProfilerAction,
    ProfilerActivity,
    schedule,
    supported_activities,
    tensorboard_trace_handler,
)

__all__ = [
    "EventList",
    "FunctionEvent",
    "FunctionEventAvg",
    "ProfilerAction",
    "ProfilerActivity",
    "profile",
    "record_function",
    "schedule",
    "supported_activities",
    "tensorboard_trace_handler",
]
