"""The settings that every system is tried with, in RecTools' names; plain data.

The first trial of each grid has RecTools' defaults (2 blocks, 4 heads, width 256, dropout .2,
length 100, mask rate .15), which its authors tuned on MovieLens. Its SASRec
does not use `mask_prob`.
"""

from __future__ import annotations

from typing import Any

DEFAULTS: dict[str, Any] = {
    "n_factors": 256, "n_blocks": 2, "n_heads": 4, "session_max_len": 100, "dropout_rate": 0.2,
    "mask_prob": 0.15,
}  # fmt: skip
# For short histories, as those of MovieTweetings; `facts`: genres and decades of the items.
SHORT: list[dict[str, Any]] = [
    {},
    {"n_factors": 128, "session_max_len": 50, "dropout_rate": 0.3, "mask_prob": 0.3},
    {"n_factors": 64, "session_max_len": 50, "dropout_rate": 0.2, "mask_prob": 0.3},
    {"n_factors": 128, "session_max_len": 50, "dropout_rate": 0.5, "mask_prob": 0.5},
    {"n_factors": 128, "n_blocks": 1, "session_max_len": 50, "dropout_rate": 0.5, "mask_prob": 0.3,
     "facts": True},
    {"n_factors": 256, "n_blocks": 1, "session_max_len": 50, "dropout_rate": 0.5, "mask_prob": 0.5},
]  # fmt: skip
# For long histories, as those of MovieLens.
LONG: list[dict[str, Any]] = [
    {},
    {"n_factors": 128, "session_max_len": 200, "dropout_rate": 0.2, "mask_prob": 0.2},
    {"n_factors": 64, "session_max_len": 200, "dropout_rate": 0.2, "mask_prob": 0.2},
    {"n_factors": 128, "session_max_len": 100, "dropout_rate": 0.3, "mask_prob": 0.3},
    {"n_factors": 128, "session_max_len": 200, "dropout_rate": 0.5, "mask_prob": 0.3,
     "batch_size": 32},
    {"n_factors": 64, "session_max_len": 100, "dropout_rate": 0.3, "mask_prob": 0.3,
     "batch_size": 32},
]  # fmt: skip
GRIDS = {"short": SHORT, "long": LONG}
