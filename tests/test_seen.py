"""Whether pictures that a run is given are its own: what `evaluate` says of another source."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image

import unilat
from planted import coloured
from unilat.cli import main
from unilat.run.evaluate import chosen, evaluate, own_pictures
from unilat.run.seen import Seen, seen


def test_pictures_are_known_by_their_bytes() -> None:
    """Kills: parts exchanged, a picture counted twice, equality of a share of the pixels, a copy in training told as
    held out, own pictures of no part called known."""
    own = coloured(40, copies={39: 0})
    parts = (torch.arange(10), torch.arange(10, 16), torch.arange(30, 40))
    changed = own.images[:3].clone()
    changed[:, 2, 15, 15] ^= 1
    images = torch.cat([own.images[[0, 9, 10, 31, 32, 33, 39, 20]], changed])
    found = seen(images, own, parts)
    assert found == Seen(trained=3, calibrated=1, held_out=3, others=4)
    assert str(found) == (
        "3 that the run was trained on, 1 that it was calibrated on, 3 that it held out, never trained on, "
        "4 that are none of its own"
    )
    assert str(seen(own.images[30:38], own, parts)) == "all that it held out, never trained on"
    assert str(seen(changed, own, parts)) == "all that are none of its own"


def test_evaluate_says_what_it_was_given(tiny_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Kills: trained pictures called held out or called nothing, counts of pictures that were not measured, and words
    of a run whose pictures are gone."""
    run = unilat.load(tiny_run)
    run.config = replace(run.config, evaluation=replace(run.config.evaluation, samples=2, pictures=6))
    own = own_pictures(run)
    train, calibration, test = run.split(own)
    few = torch.cat([own.images[train[:2]], own.images[calibration[:1]], own.images[test[:2]], own.images[:1] // 2])
    said: list[str] = []
    words = (
        "in memory, 2 that the run was trained on, 1 that it was calibrated on, 2 that it held out, never trained on, "
        "1 that are none of its own"
    )
    assert evaluate(run, few, say=said.append).pictures == words and f"measuring 6 pictures: {words}" in said
    many = own.images[torch.cat([train[:7], test[:5]])]
    again = evaluate(run, many, pictures=own)
    trained = int((chosen(torch.arange(12), 6) < 7).sum())
    assert again.pictures == (
        f"in memory, {trained} that the run was trained on, {6 - trained} that it held out, never trained on"
    )
    assert again.bits.n == 6 and 0 < trained < 6
    run.data = replace(run.data, sha256="0" * 64)
    told = evaluate(run, few).pictures
    assert told.startswith("in memory, whether the run was trained on them is not known: ") and run.data.source in told
    (tmp_path / "one").mkdir()
    Image.fromarray(own.images[train[0], 0].numpy()).save(tmp_path / "one" / "a.png")
    capsys.readouterr()
    assert main(["evaluate", str(tiny_run), str(tmp_path / "one")]) == 0
    table, noted = capsys.readouterr()
    assert f"measured on {tmp_path / 'one'}, all that the run was trained on\n" in table
    assert "held" not in table + noted and "nan" not in table
