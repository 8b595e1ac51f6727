"""Whether the machine is calm: bars for two workers mean little while something else uses the second core."""

from __future__ import annotations

import statistics
import threading
import time

import numpy as np

BUSY = 0.9
"""Below this share a run says that the machine was busy. Calm machines measure 0.97 to 1."""

_NUMBERS = np.random.default_rng(0).random(300_000)  # sorting them takes a millisecond and no memory bandwidth


def _seconds(threads: int) -> float:
    """Sort the numbers on each of some threads at once; numpy does so without the GIL."""
    workers = [threading.Thread(target=np.sort, args=(_NUMBERS,)) for _ in range(threads)]
    start = time.perf_counter()
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    return time.perf_counter() - start


def second_core(rounds: int) -> float:
    """Return what two threads at once achieve of twice the work of one: 1 on a calm machine, 0.5 on a single core."""
    pairs = [(_seconds(1), _seconds(2)) for _ in range(rounds)]
    return statistics.median(one for one, _ in pairs) / statistics.median(two for _, two in pairs)
