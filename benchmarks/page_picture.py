"""The picture of `unilat ui` in docs/page.md: python benchmarks/page_picture.py runs/glyphs docs/images/page.png

Held-out pictures of a finished run are dropped on its page, and the slider of the first keeps a little over half of its
bits. Needs Chromium and its driver (``apt-get install chromium chromium-driver``).
"""

import sys
import tempfile
from pathlib import Path

from common import ROOT
from ecosystem_page import Page

from unilat.files import read_safetensors
from unilat.signals.kind import Image

DROPPED, SHARE = (2, 0, 3, 5), 0.6
"""Which of the report's held-out pictures, and where on its slider the first one is kept."""


def main(run: Path, out: Path) -> None:
    """Open the page, drop, slide, and keep what is seen."""
    sys.path.insert(0, str(ROOT))
    from tests.app.browser import CHROMIUM, DRIVER, chromium

    if not (CHROMIUM and DRIVER):
        raise SystemExit("no chromium and chromedriver here: apt-get install chromium chromium-driver")
    originals = read_safetensors(run / "evaluation.safetensors")[0]["originals"]
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        paths = [work / f"{index}.png" for index in DROPPED]
        for path, index in zip(paths, DROPPED, strict=True):
            Image.save(originals[index], path)
        page = Page(run, work / "page.log")
        try:
            with chromium(work / "profile") as window:
                window.look(wide=1200)
                window.open(page.address)
                window.wait("return document.body.dataset.ready && !document.getElementById('drop').hidden", "the page")
                window.type("#files", "\n".join(map(str, paths)))
                shelf = f"return document.querySelectorAll('#shelf button').length === {len(paths)}"
                window.wait(f"{shelf} && document.getElementById('numbers').textContent", "the pictures")
                before = window.run("return document.getElementById('kept').src")
                window.set("#level", round(SHARE * float(window.run("return document.getElementById('level').max"))))
                window.wait(f"return document.getElementById('kept').src !== {before!r}", "what is kept")
                window.picture(out)
        finally:
            page.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
