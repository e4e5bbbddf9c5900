"""Work side by side, on the cores of one machine or on a dask cluster, with progress."""

import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from joblib import cpu_count
from tqdm import tqdm

from helpers.core.study import Study

Job = TypeVar("Job")
Result = TypeVar("Result")


def show_progress(steps: Iterable[Result], number: int, name: str) -> "tqdm[Result]":
    """Show how many of the steps are done, in one line of text."""
    return tqdm(steps, name, number, file=sys.stdout, ascii=" #", mininterval=1)


def in_parallel(
    study: Study,
    work: Callable[[Job], Result],
    jobs: Sequence[Job],
    threads: int | None = None,
) -> Iterator[Result]:
    """Yield what a function makes of each job, side by side and in their order.

    The setting ``compute.scheduler`` decides: threads of this process, by default as many as cores,
    or a dask cluster, for which function and jobs must be picklable.
    """
    if study.compute.scheduler:
        from distributed import Client

        with Client(study.compute.scheduler) as client:
            futures = client.map(work, jobs, pure=False)
            while futures:
                yield futures.pop(0).result()
        return
    with ThreadPoolExecutor(threads or cpu_count()) as pool:
        yield from pool.map(work, jobs)
