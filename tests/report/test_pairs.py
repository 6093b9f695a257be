"""Pages of samples of two labels: what stands where, and which pairs are framed."""

import torch

from unilat.report import pairs, sheets
from unilat.report.folder import Contents

DATA = {"factors": {"names": ["letter", "face"], "values": [["a", "b", "c"], ["thin", "bold"]], "table": []}}


def contents(*names: str, **arrays: torch.Tensor) -> Contents:
    return Contents(name="x", data={"factors": {"names": list(names)}} if names else DATA, arrays=arrays)


def grey(*levels: int) -> torch.Tensor:
    """Pictures of one level each, 1 × 8 × 8."""
    return torch.tensor(levels, dtype=torch.uint8)[:, None, None, None].expand(-1, 1, 8, 8).clone()


def test_pairs_that_were_never_trained_on_are_framed() -> None:
    """Six pictures of two rows, of which the second of the first row and the first of the second are framed, each in
    its place and whole. Kills: the frame of pairs that were trained on, rows for columns, a frame over a picture."""
    marked = torch.tensor([False, True, False, True, False, False])
    page = sheets.framed(grey(10, 20, 30, 40, 50, 60), 3, marked, pairs.UNSEEN)
    assert page.shape == (4 + 2 * 12, 4 + 3 * 12, 4)
    frame = torch.tensor([*pairs.UNSEEN, 255], dtype=torch.uint8)
    for index in range(6):
        top, left = 4 + index // 3 * 12, 4 + index % 3 * 12
        assert torch.equal(page[top : top + 8, left : left + 8, 0], torch.full((8, 8), 10 * (index + 1)).byte())
        around = torch.cat([page[top - 2, left - 2 : left + 10], page[top - 2 : top + 10, left + 9]])
        assert bool((around == frame).all()) == bool(marked[index])
        assert bool((around[..., 3] == 0).all()) != bool(marked[index])


def test_the_page_says_what_it_shows() -> None:
    """Kills: factors exchanged in words, the count of pairs that were seen, arrays that do not fit drawn anyway."""
    seen = torch.tensor([[True, False, True], [False, True, True]])
    arrays = {"page": grey(1, 2, 3, 4, 5, 6), "page_labels": torch.arange(6).view(2, 3), "page_seen": seen}
    text = pairs.pairs(contents(**arrays))
    assert "Framed: 2 pairs that were never trained on." in text and "its letter and its face" in text
    assert "2 values of the face down and 3 of the letter across" in text
    assert pairs.pairs(contents()) == "" and pairs.pairs(contents(**{**arrays, "page": grey(1)})) == ""
    assert pairs.pairs(contents(**{**arrays, "page_seen": seen.T})) == ""


def test_truth_stands_above_what_was_made_for_it() -> None:
    """Kills: truth and samples exchanged, a second row of other pictures."""
    text = pairs.pairs(contents(truths=grey(*range(20)), samples=grey(*range(100, 120))))
    titles = [part.split("</p>")[0] for part in text.split('<div class="strip"><p>')[1:]]
    assert titles == ["Never trained on", "Made for the same"] * 2
    strips = [sheets.png(sheets.sheet(rows, 16), f"{title}: {len(rows)} pictures") for title, rows in (
        ("Never trained on", grey(*range(16))), ("Made for the same", grey(*range(100, 116))),
        ("Never trained on", grey(*range(16, 20))), ("Made for the same", grey(*range(116, 120))),
    )]  # fmt: skip
    assert [text.find(strip) for strip in strips] == sorted(text.find(strip) for strip in strips)
    assert all(strip in text for strip in strips)


def test_every_label_that_the_model_was_told_is_named() -> None:
    """Kills: a label of three that is left out, names that are no text of a page, two of one damaged name."""
    rows = {"truths": grey(1), "samples": grey(2)}
    assert "when told its letter and face: it" in pairs.pairs(contents(**rows))
    assert "told its vendor, emoji &lt;b&gt; and tone: it" in pairs.pairs(
        contents("vendor", "emoji <b>", "tone", **rows)
    )
    assert "told its first and second: it" in pairs.pairs(contents("vendor", **rows))
