"""Work side by side, on the cores of one machine or on a dask cluster, with progress."""

import sys
from concurrent.futures import ThreadPoolExecutor

from joblib import cpu_count
from tqdm import tqdm


def show_progress(steps, number, name):
    """Show how many of the steps are done, in one line of text."""
    return tqdm(steps, name, number, file=sys.stdout, ascii=" #", mininterval=1)


def in_parallel(study, work, jobs, threads=None):
    """Yield what a function makes of each job, side by side and in their order.

    Parameters
    ----------
    study : helpers.core.study.Study
        Its ``compute.scheduler`` decides: threads of this process, or a dask cluster. A run that is itself a task of
        the cluster uses threads, because it would wait for workers that wait for it.
    work : callable
        That and the jobs must be picklable for a cluster.
    jobs : list
    threads : int, optional
        As many as cores by default.

    Yields
    ------
    object
    """
    if study.compute.scheduler and not _is_dask_task():
        from distributed import Client

        with Client(study.compute.scheduler) as client:
            futures = client.map(work, jobs, pure=False)
            while futures:
                yield futures.pop(0).result()
        return
    with ThreadPoolExecutor(threads or cpu_count()) as pool:
        yield from pool.map(work, jobs)


def _is_dask_task():
    from distributed import get_worker

    try:
        get_worker()
    except ValueError:
        return False
    return True
