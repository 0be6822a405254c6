"""Likeness: how alike two items are, as cosines between them, one for each kind of content."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

Items = npt.NDArray[np.int64]

RARE = 0.01  # the largest share of the items that have a rare name,
FEW = 50  # but any name of so few items is rare
MOST_PAIRS = 1 << 24  # of items with a rare name in common: a minute


@dataclass(frozen=True, eq=False)
class Likeness:
    """What the items of a catalog have in common.

    Attributes:
      names: kind -> sparse `[V, m]` bool, which items have which of m names: genres, actors, ...
      values: kind -> `[V, k]` float32 vectors: the weights of a number on the knots of its curve,
        or an embedding; 0 where nothing is known.
    """

    names: Mapping[str, Any]
    values: Mapping[str, npt.NDArray[np.float32]]

    @property
    def names_digest(self) -> str:
        """SHA-256 of which items have names in common: equal digests, the same of each kind."""
        sha = hashlib.sha256()
        for kind, sets in sorted(self.names.items()):
            rows = sp.csr_array(sets)
            sha.update(f"{kind!r} {rows.shape}\n".encode())
            for places in (rows.indptr, rows.indices):
                sha.update(places.astype(np.int64).tobytes())
        return sha.hexdigest()

    def rows(self, items: Items) -> dict[str, Any]:
        """Kind -> `[n, m]` rows of n items, of length 1, or 0 where nothing is known.

        They are sparse, but for vectors of which few numbers are 0, such as embeddings: those are
        float32 arrays. The product of two rows is their cosine. A name of d of the n items weighs
        log(n / d), so one that all have counts nothing. Kinds of which nothing is known, or the
        same of all items, are left out.
        """
        rows = {}
        for kind, sets in self.names.items():
            own = sp.csr_array(sets[items], dtype=np.float64)
            weights = np.log(max(len(items), 1) / np.maximum(own.sum(axis=0), 1))
            rows[kind] = _of_length_1(own @ sp.diags_array(weights))
        for kind, vectors in self.values.items():
            known = vectors[items]
            if (known == known[:1]).all():
                continue
            if 2 * np.count_nonzero(known) > known.size:
                rows[kind] = _of_length_1_dense(known)
            else:
                rows[kind] = _of_length_1(sp.csr_array(known, dtype=np.float64))
        return {kind: found for kind, found in rows.items() if found.size}

    def rare_names(self, items: Items) -> Any:
        """Sparse `[n, m]` float64 ones: which of n items have which of m rare names, of all kinds.

        A name is rare if at least two of the items have it, and at most 1 % (or 50). The rarest are
        kept, as long as all items together do not make more than `MOST_PAIRS` pairs.
        """
        kinds = [sp.csr_array(sets[items], dtype=np.float64) for sets in self.names.values()]
        if not kinds:
            return sp.csr_array((len(items), 0))
        names = sp.csr_array(sp.hstack(kinds))
        held = names.sum(axis=0)
        rarest = np.argsort(held, kind="stable")
        few = np.cumsum(held[rarest] * (held[rarest] - 1)) <= MOST_PAIRS
        kept = rarest[few & (held[rarest] > 1) & (held[rarest] <= max(FEW, RARE * len(items)))]
        return sp.csr_array(names[:, np.sort(kept)])


def _of_length_1(rows: Any) -> Any:
    lengths = np.sqrt(rows.multiply(rows).sum(axis=1))
    scaled = sp.csr_array(sp.diags_array(1 / np.where(lengths > 0, lengths, 1)) @ rows)
    scaled.eliminate_zeros()
    return scaled


def _of_length_1_dense(rows: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    lengths = np.sqrt(np.einsum("ij,ij->i", rows, rows, dtype=np.float64))
    return rows / np.where(lengths > 0, lengths, 1).astype(np.float32)[:, None]
