"""What a run looks like: one HTML page made of the run folder's files."""

from unilat.report.page import write

__all__ = ["write"]
