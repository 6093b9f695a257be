"""Theorems of ``unilat.maths``: endpoints, round trips, derivatives, closed forms, orders of convergence.

Each test's docstring names the one-line mutant it kills ("Kills: ..."); ``tests/mutants.py`` holds that mutant and runs
it, and test_mutants.py checks that every test here has one. Statistical tests are seeded: they pass or fail for good.

Shapes are annotated with jaxtyping. They are checked at run time only by pytest's hook, which pyproject's addopts turn
on: ``--jaxtyping-packages=unilat.maths,beartype.beartype``. The library itself never imports beartype.
"""
