"""Memory shared with other libraries."""

from ..runtime.tensor.dlpack import from_dlpack, to_dlpack

__all__ = ["from_dlpack", "to_dlpack"]
