"""Measuring a model: latency, throughput, memory, FLOP/s, time to the first result, and the same of its peers."""

from .measure import Settings as Settings, bench as bench
