"""In and out of other people's tools: what loads where, FID beside others', the page, and starting from their weights.

make bench-ecosystem                     all (hours: three seeds of autoencoders; goes on where it stopped)
make bench-ecosystem ARGS="--seeds 0"    one seed
make bench-ecosystem ARGS=--quick        without training autoencoders: minutes
"""

import argparse
import sys

import ecosystem_export
import ecosystem_fid
import ecosystem_from
import ecosystem_page
from common import make_command, write

PROTOCOL = (
    "Rows of what loads where count tests of `tests/interop`, run here and now against the package named; ComfyUI is"
    " not installed, its nodes are held to its documented interface. FID of two sets: the same random weights on both"
    " sides, for published ones are in no package. The page: wall clock, two threads, requests of a headless Chromium."
)
STARTED = (
    " An AutoencoderKL of diffusers' own class, trained on small pictures with its usual loss and audited, is *before*;"
    " the same encoder under `unilat train --from` is *after* (`benchmarks/ecosystem_from.py` has the protocol): base"
    " FLOPs to an equal distance, PSNR and distance of reconstructions."
)


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--quick", action="store_true", help="no autoencoder is trained, and those there are told")
    asked = parser.parse_args()
    rows = ecosystem_export.rows() + ecosystem_fid.rows() + ecosystem_page.rows()
    started = ecosystem_from.rows(seeds=asked.seeds, run=not asked.quick)
    command = make_command("ecosystem", sys.argv[1:])
    print(write("ecosystem", PROTOCOL + STARTED * bool(started), rows + started, command=command))


if __name__ == "__main__":
    main()
