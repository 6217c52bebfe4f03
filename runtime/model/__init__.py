"""Imported models."""
