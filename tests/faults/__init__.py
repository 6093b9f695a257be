"""Faults, planted on purpose: the real command line on a tiny preset, killed, starved, lied to and attacked.

The oracle is an uninterrupted run: the SHA-256 of its whole state (weights, optimiser, averages, random states, place
in the data, step), of its log and of what it measured. Each trial ends in one of

    OK      the fault changed nothing: the same state, or exactly what should be read
    CLEAN   told in one line with an exit code that is not 0, nothing lost, and the next run ends in the oracle's state
    BAD     a hang, a traceback, an orphan, a temporary file left, work lost
    SILENT  something wrong told as right

    python -m tests.faults --quick                   what `make test` runs
    python -m tests.faults --minutes 20 --write      all rows within so many minutes; benchmarks/results/faults.json
    python -m tests.faults --only kill --seed 17     one trial again, with all that it said

A trial is a function of its kind and its seed alone, but for the moment at which a busy machine delivers a signal.
"""
