"""Graphs of ops, their plans, and the loop that runs a plan."""
