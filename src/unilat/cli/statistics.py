"""`unilat stats`: the statistics of a data set's features, saved once for `unilat evaluate --reference`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import DisallowNone, Positional, arg


@dataclass(frozen=True, kw_only=True)
class Stats:
    """Save what FID and other distances from a data set need: statistics of its features.

        unilat stats photos/ --size 64 --out ref.safetensors
        unilat stats photos/ --size 64 --features WEIGHTS
        unilat evaluate runs/photos --reference ref.safetensors --features WEIGHTS

    WEIGHTS is pt_inception-2015-12-05-6726825d.pth, the file of torch-fidelity and pytorch-fid.

    All pictures are looked at, in the size of the run that is to be measured. A number is called FID
    only where the network is the published one and says of how many samples; published FIDs are of
    50,000. What is made with another network, size or fit is refused. docs/fid.md has the protocol."""

    data: Positional[Annotated[str, arg(metavar="DATA")]]
    """The pictures, as for `unilat train`."""
    out: Annotated[Path, arg(metavar="FILE")] = Path("ref.safetensors")
    """File to write."""
    size: Annotated[DisallowNone[str | None], arg(metavar="PIXELS")] = None
    """Side of the pictures, 64, or height x width, 96x128; the run's. By default the source's own."""
    fit: Annotated[Literal["crop", "pad"], arg(metavar="FIT")] = "crop"
    """What is done to pictures of another shape; the run's. crop: the centre is cut out. pad: the whole is fitted."""
    features: Annotated[str, arg(metavar="NETWORK")] = "auto"
    """auto, efficientnet-lite0, alexnet-st, a file with the weights of Inception, or a TorchScript file, which is a
    program: name only one that you trust."""
    rows: Annotated[int, arg(metavar="N")] = 10_000
    """Pictures, by chance, whose features are kept for precision, recall and the kernel distance."""
    json: Annotated[bool, arg(help="Print one JSON object on standard output instead of text.")] = False

    def execute(self) -> None:
        """Look at the pictures and write."""
        import unilat
        from unilat.cli import places
        from unilat.cli.output import Output

        with Output(self.json) as output:
            out = places.for_reference(self.out, self.data)
            given = {"size": self.size, "fit": self.fit, "features": self.features, "rows": self.rows}
            found = unilat.stats(self.data, out, say=output.say, **given)
            told = {"reference": str(out), "features": found.features, "pictures": found.count}
            output.result(told, f"{out}: {found.about}, {found.features}")
