"""The commands that drive or read whole runs."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

Json = Annotated[bool, arg(help="Print one JSON object on standard output instead of text.")]


@dataclass(frozen=True, kw_only=True)
class Compare:
    """Put runs side by side: one table, one HTML page, curves laid over each other.

    Numbers share a column only where they were measured by one protocol: the same held-out pictures,
    as many of them, the same decoder calls, the same feature network. Others get a column of their
    own, and a line says what differs. Fields set differently are listed.

        unilat compare runs/a runs/b
        unilat compare runs/a runs/b runs/c --out three.html --json"""

    runs: Positional[Annotated[tuple[Path, ...], arg(metavar="RUN RUN ...")]]
    """Two to eight run folders that `unilat train` wrote."""
    out: Annotated[Path, arg(metavar="HTML")] = Path("compare.html")
    """Page to write."""
    json: Json = False

    def execute(self) -> None:
        """Compare, write the page, print the table."""
        from unilat.cli.output import Output
        from unilat.cli.tables import comparison_table
        from unilat.studies.compare import compare

        with Output(self.json) as output:
            table = compare(self.runs, self.out)
            output.result(table, comparison_table(table))
