"""Pictures of graphs.

Only what is named here is public: `draw` and `make_dot` make a `Drawing`. Inside, a graph becomes a `Picture` of boxes
and edges (`backward.py`, `forward.py`), which is laid out in rows (`layout.py`) and written (`svg.py`, `raster.py`,
`dot.py`).
"""

from .drawing import Drawing, draw, make_dot

__all__ = ["Drawing", "draw", "make_dot"]
