"""Make `digits.npz` from scikit-learn's copy of the UCI digits.

`python -m onnxgrad.tools.demo.make_digits digits.csv.gz`; the argument is scikit-learn's file
`sklearn/datasets/data/digits.csv.gz`: 64 pixels and the class, a row a digit.
"""

from __future__ import annotations

import gzip
import sys
from pathlib import Path

import numpy as np

from .digits import DATA


def main(source: str) -> None:
    """Write `digits.npz` beside this file."""
    with gzip.open(source, "rt") as file:
        rows = np.loadtxt(file, delimiter=",").astype(np.uint8)
    np.savez_compressed(Path(DATA), images=rows[:, :64].reshape(-1, 8, 8), labels=rows[:, 64])


if __name__ == "__main__":
    main(sys.argv[1])
