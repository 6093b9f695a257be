"""How OpenMP's threads wait for each other at barriers: chosen before torch is loaded, which reads it once.

Left alone a thread looks 300,000 times whether the others are there, some milliseconds, before it sleeps. On a quiet
machine that is the fastest way; where others use the machine it takes the processor from the very thread it waits for.
"""

import os
import statistics
import sys
import time
from pathlib import Path

WAITING = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")
"""What says how threads wait; a user's own is left alone."""
SPINS = "1000"
"""Looks before a thread sleeps, where others use the machine."""
LOAD = Path("/proc/loadavg")


def choose() -> None:
    """Set what :func:`chosen` says, unless torch is loaded already or a user has said otherwise."""
    if "torch" not in sys.modules and not any(name in os.environ for name in WAITING):
        os.environ.update(chosen())


def chosen() -> dict[str, str]:
    """The environment for threads to wait in: as torch comes with on a machine with a processor for each of them."""
    return {"GOMP_SPINCOUNT": SPINS} if shared() else {}


def shared() -> bool:
    """Whether others compute at this moment on processors that this process's threads would use."""
    try:
        others = statistics.median(_others(wait) for wait in (0.0, 0.004, 0.004, 0.004, 0.004))
        own = len(os.sched_getaffinity(0))
    except (OSError, ValueError, IndexError, AttributeError):  # a system that does not say
        return False
    return others + own > (os.cpu_count() or own)


def _others(wait: float) -> int:
    """Tasks of the machine that run or want to, after ``wait`` seconds, but for this one."""
    time.sleep(wait)
    return int(LOAD.read_text().split()[3].split("/")[0]) - 1
