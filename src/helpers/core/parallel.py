"""Work side by side, on the cores of one machine or on a dask cluster, with progress."""

import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, TypeVar

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
    or a dask cluster, for which function and jobs must be picklable. Results that wait to be taken
    are those of a few jobs a core, however many jobs there are. A job whose worker died is done by
    another one.
    """
    if study.compute.scheduler:
        from distributed import Client

        with Client(study.compute.scheduler) as client:
            client.wait_for_workers(1)
            # Each worker gets the function once: it may hold all samples.
            (shared,) = client.scatter([work], broadcast=True, hash=False)
            submit = partial(client.submit, _apply, shared, pure=False)
            yield from _in_order(submit, jobs, lambda: 4 * max(sum(client.nthreads().values()), 2))
        return
    threads = threads or cpu_count()
    with ThreadPoolExecutor(threads) as pool:
        yield from _in_order(partial(pool.submit, work), jobs, lambda: 2 * threads)


def _apply(work: Callable[[Job], Result], job: Job) -> Result:
    return work(job)


def _in_order(
    submit: Callable[[Job], Any], jobs: Sequence[Job], most: Callable[[], int]
) -> Iterator[Any]:
    """Yield the results of jobs, of which at most so many have been submitted and not taken."""
    waiting = deque()
    for job in jobs:
        if len(waiting) >= most():
            yield waiting.popleft().result()
        waiting.append(submit(job))
    while waiting:
        yield waiting.popleft().result()
