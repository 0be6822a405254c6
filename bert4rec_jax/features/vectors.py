"""Vectors: one embedding per item, of which some may be missing."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True)
class Vectors:
    """Embeddings of n items.

    Attributes:
      values: `[n, D]` float32, finite; rows without an embedding are 0.
      present: `[n]` bool: mask of the rows that have one.
    """

    values: npt.NDArray[np.float32]
    present: npt.NDArray[np.bool_]

    def __post_init__(self) -> None:
        if self.values.ndim != 2 or self.present.shape != self.values.shape[:1]:
            raise ValueError(f"values {self.values.shape}, present {self.present.shape}")

    @property
    def dim(self) -> int:
        """Width D of an embedding."""
        return self.values.shape[1]
