"""Corrections: what calibration adds to a trained model's scores, as saved in its workdir."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from bert4rec_jax.data.split import train_counts
from bert4rec_jax.data.store import SequenceStore
from bert4rec_jax.errors import UserError
from bert4rec_jax.evaluation.covisitation import DISTANCE, Covisitation, Followers
from bert4rec_jax.evaluation.likeness import Likeness
from bert4rec_jax.evaluation.relatives import Relatives
from bert4rec_jax.evaluation.trend import Trend
from bert4rec_jax.training.digests import digest
from bert4rec_jax.training.inputs import Features

CALIBRATION = "calibration.json"  # in the workdir of a run
_WARM_KEPT = 0.97  # of files that do not say it


@dataclass(frozen=True, eq=False)
class Corrections:
    """What is added to the scores of a trained model.

    Attributes:
      offset: added to the biases of items without a training event.
      offset_alone: the offset to use where it is the only correction.
      shift: `[V]`, added to the biases of the other items; it follows from how often, and when,
        each of them occurs in training. None for no shift.
      covisitation: the variable collection from which `evaluation.lift` raises scores; or None.
      tried: whether covisitation was tried in calibration, even if it did not help.
      warm_kept: the share of the NDCG@10 of trained targets that the offset had to leave.
    """

    offset: float = 0.0
    shift: Features | None = None
    covisitation: Mapping[str, npt.NDArray[Any]] | None = None
    tried: bool = False
    offset_alone: float = 0.0
    warm_kept: float = _WARM_KEPT

    @property
    def moves(self) -> bool:
        """Whether the corrections can change the order of trained items among each other."""
        return self.shift is not None or self.covisitation is not None

    @property
    def digest(self) -> str:
        """SHA-256 over all corrections: with the same parameters, equal digests, equal scores.

        `uncovered` follows from the others and is left out: runs and bundles of earlier versions,
        which do without it, keep their digests.
        """
        sha = hashlib.sha256(f"{self.offset} {self.offset_alone}".encode())
        arrays = {"shift": self.shift, **(self.covisitation or {})}
        for name in sorted(arrays.keys() - {"uncovered"}):
            array = np.ascontiguousarray(arrays[name]) if arrays[name] is not None else np.zeros(0)
            sha.update(f"{name} {array.shape} {array.dtype}\n".encode())
            sha.update(array.tobytes())
        return sha.hexdigest()


def read_corrections(
    workdir: Path,
    params: Any,
    *,
    store: SequenceStore,
    stop: npt.NDArray[np.int64],
    length: int,
    likeness: Callable[[], Likeness | None],
) -> Corrections | None:
    """Read a run's corrections; None if there are none, or if they belong to other parameters.

    Args:
      workdir: the run's workdir.
      params: the tested parameters, for which the corrections must have been calibrated.
      store: the run's data.
      stop: `[U]` where each user's training rows end; shifts and covisitation count these rows.
      length: positions L of the model.
      likeness: what the items have in common, or None; called if the corrections depend on it.

    Raises:
      UserError: the file cannot be read, or the items had other names when it was written.
    """
    try:
        found = json.loads((workdir / CALIBRATION).read_text(encoding="utf-8"))
        if found["parameters_sha256"] != digest(params):
            return None
        trend, weighed = found.get("trend"), found.get("covisitation")
        shift = None if trend is None else Trend(**trend).shift(store, stop)
        collection = None
        if weighed is not None and weighed["chosen"] is not None:
            covisitation = Covisitation(**weighed["chosen"])
            moved = covisitation.shift(train_counts(store, stop))
            shift = moved if shift is None else shift + moved
            relatives = None
            if covisitation.relatives:
                alike = likeness()
                _require_same_names(workdir, weighed, alike)
                relatives = relatives_of(alike, store, stop)
            collection = covisitation.collection(Followers.of(store, stop), length, relatives)
            if not weighed.get("uncounted_gain"):  # chosen by an earlier version, without this gain
                del collection["uncounted"]
        offset = float(found.get("offset", 0.0))
        return Corrections(
            offset,
            shift,
            collection,
            tried=weighed is not None,
            offset_alone=float(found.get("offset_alone", offset)),
            warm_kept=float(found.get("warm_kept", _WARM_KEPT)),
        )
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"cannot read {workdir / CALIBRATION} ({error}); remove it, and the same training "
            "command writes it again"
        ) from None


def _require_same_names(
    workdir: Path, weighed: Mapping[str, Any], likeness: Likeness | None
) -> None:
    """Refuse content whose matrix is that of the run, but whose names are not."""
    before = weighed.get("names_sha256")  # missing in files of earlier versions
    now = None if likeness is None else likeness.names_digest
    if before is not None and before != now:
        raise UserError(
            f"{workdir / CALIBRATION} was written when the items had other names in common "
            f"(fingerprint {before[:12]} there, {(now or 'none')[:12]} now), and the scores of the "
            "run depend on them. Use the content of that run as it was, or remove the file, and "
            "the same training command writes it again"
        )


def relatives_of(
    likeness: Likeness | None, store: SequenceStore, stop: npt.NDArray[np.int64]
) -> Relatives | None:
    """The relatives that covisitation smooths counts towards, learned from the rows up to `stop`.

    None without likeness, or if there is nothing to learn from.
    """
    return None if likeness is None else Relatives.of(likeness, store, stop, distance=DISTANCE)
