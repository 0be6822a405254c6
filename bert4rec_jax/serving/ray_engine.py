"""RayEngine: makes the shards of a job with actors on a Ray cluster. No other module imports Ray.

Ray Data carries the numbers of shards, not requests. Its own writer would choose file names and
boundaries that depend on the run, while a shard here is a fixed part of the requests and is written
atomically under a fixed name. So each actor reads its requests, computes and writes with the same
`Worker` as the local engine. Ray Data places the actors, hands out shards as actors become free,
and gives those of a lost actor to another one.
"""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import pyarrow as pa

from bert4rec_jax.errors import TemporaryError, UserError, first_line
from bert4rec_jax.serving.bundle import Bundle
from bert4rec_jax.serving.job import spans
from bert4rec_jax.serving.shards import Shard
from bert4rec_jax.serving.worker import Plan, Worker

# More spans balance the load better and lose less with an actor; fewer spans seek less in files.
_SPANS_PER_ACTOR = 16


@dataclass(frozen=True)
class RayEngine:
    """Makes shards on a Ray cluster, whose machines must all see bundle, requests and output.

    Attributes:
      address: the cluster's address, as for `ray.init`; None for that of $RAY_ADDRESS, or else for
        a cluster on this machine for the duration of the job. A cluster that this process is
        connected to already is used as it is.
      actors: number of actors; None for one per GPU, or one per machine if there are no GPUs.
    """

    address: str | None = None
    actors: int | None = None

    def __post_init__(self) -> None:
        if self.actors is not None and self.actors < 1:
            raise UserError(f"actors is {self.actors}; expected at least 1")

    def __call__(self, plan: Plan, bundle: Bundle, missing: list[int]) -> Iterator[Shard]:
        """Make the shards with the given numbers.

        Raises:
          UserError: Ray is not installed, the cluster cannot be reached, is too small or lost an
            actor for good, or see `Worker.make`.
        """
        ray = require_ray()
        ray.data.DataContext.get_current().enable_progress_bars = False
        logging.getLogger("ray.data").setLevel(logging.ERROR)
        left = set(missing)
        with self._connected(ray):
            try:
                for made in self._made(ray, _everywhere(plan), missing):
                    if made.number in left:  # an actor that seemed lost may have reported it, too
                        left.remove(made.number)
                        yield made
            except ray.exceptions.RayTaskError:
                raise  # a bug in an actor, with its traceback
            except ray.exceptions.RayError as error:
                raise TemporaryError(
                    f"Ray gave up ({first_line(error)}); run the same command to continue: "
                    "finished shards stay"
                ) from error
        if left:
            raise TemporaryError(
                f"Ray left out {len(left):,} shards; run the same command to continue"
            )

    def _made(self, ray: Any, plan: Plan, missing: list[int]) -> Iterator[Shard]:
        actors, resources = self._placement(ray)
        longest = -(-len(missing) // (actors * _SPANS_PER_ACTOR))
        runs = spans(missing, longest)
        tables = [pa.table({"start": [run.start], "stop": [run.stop]}) for run in runs]
        reports = ray.data.from_arrow(tables).map_batches(
            _Actor,
            fn_constructor_args=(plan,),
            batch_size=1,
            batch_format="pyarrow",
            compute=ray.data.ActorPoolStrategy(size=min(actors, len(runs))),
            **resources,
        )
        for batch in reports.iter_batches(
            batch_size=None, batch_format="pyarrow", prefetch_batches=0
        ):
            for report in map(json.loads, batch["report"].to_pylist()):
                if "error" in report:
                    kind = TemporaryError if report["temporary"] else UserError
                    raise kind(report["error"])
                yield Shard(**{**report, "counts": Counter(report["counts"])})

    def _placement(self, ray: Any) -> tuple[int, dict[str, float]]:
        """The number of actors, and the resources that each one takes."""
        held = ray.cluster_resources()
        gpus, cpus = int(held.get("GPU", 0)), int(held.get("CPU", 0))
        machines = sum(node["Alive"] for node in ray.nodes())
        actors = self.actors or gpus or machines
        kind, most = ("GPU", gpus) if gpus else ("CPU", cpus)
        if actors > most:
            raise UserError(
                f"{actors} actors were asked for, and the cluster has {most} {kind}s; an actor "
                "takes one"
            )
        return actors, {"num_gpus": 1.0} if gpus else {"num_cpus": 1.0}

    @contextmanager
    def _connected(self, ray: Any) -> Iterator[None]:
        if ray.is_initialized():
            yield
            return
        try:
            ray.init(address=self.address, log_to_driver=False, logging_level="ERROR")
        except (ConnectionError, ValueError, RuntimeError) as error:
            raise UserError(
                f"cannot reach the Ray cluster at {self.address!r} ({first_line(error)})"
            ) from error
        try:
            yield
        finally:
            ray.shutdown()


class _Actor:
    """A worker that reports its shards, or errors, as rows of a table."""

    def __init__(self, plan: Plan) -> None:
        self._worker = Worker(plan)

    def __call__(self, batch: pa.Table) -> pa.Table:
        reports: list[dict[str, Any]] = []
        for start, stop in zip(batch["start"].to_pylist(), batch["stop"].to_pylist()):
            try:
                reports.extend(map(vars, self._worker.make(range(start, stop))))
            except UserError as error:
                temporary = isinstance(error, TemporaryError)
                reports.append({"error": str(error), "temporary": temporary})
        return pa.table({"report": list(map(json.dumps, reports))})


def _everywhere(plan: Plan) -> Plan:
    """The plan with absolute paths, which do not depend on where a process was started."""
    asked = plan.requests
    files = tuple(file.resolve() for file in asked.files)
    return replace(
        plan,
        bundle=plan.bundle.resolve(),
        requests=replace(asked, files=files),
    )


def require_ray() -> Any:
    """The module `ray`; raises `UserError` if it is not installed."""
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise UserError(
            f"the Ray engine needs Ray ({error}); install it with: pip install 'bert4rec-jax[ray]'"
        ) from None
    return ray
