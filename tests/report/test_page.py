"""The report of a run folder: whole, spoilt and hostile. Each test says what it would catch."""

import base64
import io
import json
import os
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from unilat import report
from unilat.report.page import NOT_FID, SECTIONS, flat
from unilat.types import UserError

from . import sample_run

VOID = {"meta", "img", "br", "path", "link", "input", "hr"}
BROKEN = "could not be drawn"


class Checker(HTMLParser):
    """Tags must close in order; remembers attributes, ids, texts and pictures."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self.ids += [value for name, value in attrs if name == "id" and value]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open and self.open[-1] == tag, f"</{tag}> closes {self.open[-3:]}"
        self.open.pop()

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def read(folder: Path) -> tuple[str, Checker]:
    """The written report's source and its parse, after the checks that every report has to pass."""
    source = report.write(folder).read_text(encoding="utf-8")
    checker = Checker()
    checker.feed(source)
    checker.close()
    assert checker.open == [], "unclosed tags"
    assert len(checker.ids) == len(set(checker.ids))
    for tag, attributes in checker.tags:
        assert tag not in {"script", "link", "iframe", "object", "embed", "base", "form"}
        assert not any(name.startswith("on") for name in attributes)
        if tag == "img":
            assert (attributes.get("src") or "").startswith("data:image/png;base64,")
            assert attributes.get("alt"), "a picture without words"
        if "href" in attributes:
            assert (attributes["href"] or "")[1:] in checker.ids, "a link that leads out, or nowhere"
        if attributes.get("role") == "img":
            assert attributes.get("aria-label")
    assert not re.search(r"https?://|url\(|@import", source)
    return source, checker


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return sample_run.write(tmp_path_factory.mktemp("runs") / "glyphs-0.30")


@pytest.fixture
def folder(made: Path, tmp_path: Path) -> Path:
    """A run folder of one's own, to spoil."""
    return Path(shutil.copytree(made, tmp_path / "run"))


def test_a_whole_run_has_every_section_and_is_small(made: Path) -> None:
    """Kills a section that is dropped or drawn as missing, and a page of megabytes."""
    source, checker = read(made)
    assert BROKEN not in source and 'class="gone"' not in source and "Not in this report" not in source
    assert {key for key, *_ in SECTIONS} <= set(checker.ids)
    assert len(source) < 3_000_000
    assert NOT_FID in source
    text = re.sub(r"\s+", " ", "".join(checker.text))
    assert "You asked for 0.30 bits per pixel; held-out pictures carry 0.301 ± 0.002." in text
    assert "PSNR is highest with 1 call, the distance to real pictures smallest with 20." in text
    assert "308 bits, or 38.6 bytes" in text and "0.4 % above" in text


def test_it_is_made_for_light_and_dark_and_small_screens(made: Path) -> None:
    """Kills a page that smooths its pixels or knows one screen only."""
    source, _ = read(made)
    assert "prefers-color-scheme:dark" in source and "width=device-width" in source
    assert "image-rendering:pixelated" in source and "max-width:600px" in source


def test_every_number_of_the_metrics_appears(made: Path) -> None:
    """Kills a table that forgets what it does not know."""
    source, _ = read(made)
    leaves = [value for _, value in flat(sample_run.metrics(0.3)) if isinstance(value, int | float)]
    assert len(leaves) > 50
    for value in leaves:
        assert f">{json.dumps(value)}<" in source


def test_the_shown_numbers_are_the_measured_ones(made: Path) -> None:
    """Kills rows under another's name: the value must stand in its own row."""
    source, _ = read(made)
    rows = {
        re.sub("<[^>]+>", "", head): re.sub("<[^>]+>", "", cell)
        for head, cell in re.findall(r'<th scope="row">(.*?)</th><td class="n">(.*?)</td>', source)
    }
    assert rows["PSNR"] == "19.84 ± 0.07 dB"
    assert rows["SSIM"] == "0.8917 ± 0.0017"
    assert rows["Reconstructions, kernel distance"] == "0.023 ± 0.002"
    assert rows["New pictures, kernel distance"] == "0.082 ± 0.002"
    assert rows["Samples named rightly"] == "87.1 ± 1.5\u00a0%"
    assert rows["base model"] == "1,630,212"


def test_protocols_stand_beside_what_they_belong_to(made: Path) -> None:
    """Kills protocols that are left out."""
    source, _ = read(made)
    assert "trained on 8,104 real pictures in 6 classes" in source
    assert "held out of glyphs, never trained on" in source
    assert "579344248a93" in source


def test_the_same_folder_gives_the_same_bytes(made: Path) -> None:
    """Kills dates and random names in the page, and an old report being read back."""
    first = report.write(made).read_bytes()
    assert report.write(made).read_bytes() == first
    assert not list(made.glob("*.part"))


def test_pictures_are_embedded_pixel_by_pixel(made: Path) -> None:
    """Kills resized or re-coloured sheets: the first sheet of its section holds the originals' own bytes."""
    source, _ = read(made)
    first = re.search(r"data:image/png;base64,([^\"]+)", source[source.index('id="reconstructions"') :])
    assert first
    with Image.open(io.BytesIO(base64.b64decode(first.group(1)))) as image:
        pixels = torch.tensor(list(image.convert("RGBA").tobytes()), dtype=torch.uint8).view(
            image.height, image.width, 4
        )
    originals = sample_run.letters(8)
    assert pixels.shape[0] == 32
    assert torch.equal(pixels[:, :32, 0], originals[0, 0])
    assert torch.equal(pixels[:, 33:65, 2], originals[1, 0])
    assert pixels[:, 32, 3].max() == 0


FILES = ("config.json", "manifest.json", "data.json", "log.jsonl", "metrics.json", "evaluation.safetensors")


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("how", ["missing", "truncated", "wrong", "folder"])
def test_a_file_that_is_not_there_or_damaged_is_told(folder: Path, name: str, how: str) -> None:
    """Kills a page that ends with a file, or keeps still about it."""
    path = folder / name
    content = path.read_bytes()
    path.unlink()
    if how == "truncated":
        path.write_bytes(content[: len(content) // 2 + 1])
    elif how == "wrong":
        path.write_bytes(b"[1, 2]\n")
    elif how == "folder":
        path.mkdir()
    source, _ = read(folder)
    assert name in source and "Not in this report" in source
    assert BROKEN not in source


@pytest.mark.parametrize("name", FILES)
def test_one_file_alone_is_enough_for_a_page(folder: Path, name: str) -> None:
    """Kills a part that needs another file."""
    for other in set(FILES) - {name}:
        (folder / other).unlink()
    source, _ = read(folder)
    assert BROKEN not in source


def test_only_stage_one_done(folder: Path) -> None:
    """Kills a run in training told as measured, and a torn last line."""
    for name in ("base.safetensors", "metrics.json", "evaluation.safetensors"):
        (folder / name).unlink()
    log = [line for line in (folder / "log.jsonl").read_text().splitlines() if '"stage1"' in line]
    (folder / "log.jsonl").write_text("\n".join(log) + '\n{"stage": "stage1", "st')
    source, checker = read(folder)
    text = "".join(checker.text)
    assert "training stands at" in text and "not measured yet" in text
    assert "Stage 2 (the base model that makes new latents) is not finished" in text
    assert "Stage 2 has not been trained yet." in text
    assert "1 of 196 lines are damaged" in text
    assert "Stage 1 (encoder" not in text and BROKEN not in source


def test_no_labels_no_feature_network_no_wanted_bits(tmp_path: Path) -> None:
    """Kills rows for numbers that were not measured."""
    data = {**sample_run.DATA, "classes": []}
    folder = sample_run.write(tmp_path / "plain", wanted=None, data=data)
    metrics = sample_run.metrics(None) | {"classifier": None, "generation": None}
    for made in (metrics["reconstruction"], *metrics["other_steps"]):
        made["distance"] = None
    (folder / "metrics.json").write_text(json.dumps(metrics))
    source, checker = read(folder)
    text = "".join(checker.text)
    assert "No bits were asked for" in text and "No feature network was used" in text and "no labels" in text
    assert "kernel distance" not in text.split("How the numbers")[0]
    assert "64 new pictures" in source and BROKEN not in source


def test_hostile_names_stay_text(tmp_path: Path) -> None:
    """Kills any text that reaches the page without being escaped: names, paths, protocols, keys."""
    bad = "<img src=x onerror=alert(1)>\"'&</style></title><script>alert(1)</script>"
    data = {**sample_run.DATA, "classes": [f"{bad}{index}" for index in range(6)], "source": bad, "sha256": bad}
    folder = sample_run.write(tmp_path / "run <b>bold", data=data)
    metrics = sample_run.metrics(0.3)
    metrics |= {"pictures": bad, "features": bad}
    metrics["costs"]["parameters"][bad] = 3
    metrics["costs"]["training_flops"] = {bad: 4}
    metrics["costs"]["phases"].append({"name": bad, "seconds": 1.0, "peak_memory_mib": 2.0})
    metrics["bits"]["measured"] |= {"unit": bad, "protocol": bad}
    metrics["generation"]["kernel"] |= {"value": None, "protocol": bad}
    metrics["generation"]["reason"] = bad
    (folder / "metrics.json").write_text(json.dumps(metrics))
    (folder / "config.json").write_text(json.dumps({bad: bad}))
    (folder / "manifest.json").write_text(json.dumps(dict.fromkeys(sample_run.MANIFEST, bad)))
    source, _ = read(folder)
    assert "<script" not in source and "<img src=x" not in source and "<b>bold" not in source
    assert source.count("&lt;script&gt;") > 10


@pytest.mark.parametrize("value", [None, "x", [], {}, float("nan"), -1e300, 10**400])
def test_values_of_the_wrong_kind_never_stop_the_page(folder: Path, value: object) -> None:
    """Every part of metrics.json in turn, whole and inside, then all files at once, replaced by something else."""
    row = sample_run.log(0.3)[12]
    spoilt_rows = [{**dict.fromkeys(row, value), "stage": "stage1"} for _ in range(3)]
    (folder / "log.jsonl").write_text("\n".join(json.dumps(spoilt) for spoilt in spoilt_rows))
    (folder / "evaluation.safetensors").unlink()
    metrics = sample_run.metrics(0.3)
    whole = [{**metrics, key: value} for key in metrics]
    inside = {key: dict.fromkeys(part, value) for key, part in metrics.items() if isinstance(part, dict)}
    for spoilt in (*whole, {**metrics, **inside}, dict.fromkeys(metrics, value)):
        (folder / "metrics.json").write_text(json.dumps(spoilt))
        assert report.write(folder).stat().st_size > 1000
    (folder / "data.json").write_text(json.dumps(dict.fromkeys(sample_run.DATA, value)))
    (folder / "config.json").write_text(json.dumps({"stage1": {"target_bpp": value}}))
    read(folder)


def test_arrays_of_the_wrong_shape_never_stop_the_page(folder: Path) -> None:
    """Kills a page that ends with an array it did not foresee."""
    arrays = load_file(folder / "evaluation.safetensors")
    arrays = {name: value for name, value in arrays.items() if not name.startswith("reconstructions")}
    arrays |= {"samples": arrays["samples"][:8], "sample_labels": arrays["sample_labels"][:8]}
    for name in (
        "originals",
        "samples",
        "bit_maps",
        "bit_map",
        "curve_bits",
        "curve_edges",
        "channel_bits",
        "sample_labels",
    ):
        for wrong in (torch.zeros(2, 3, 4, 5, 6, dtype=torch.uint8), torch.zeros(0), torch.full((4,), float("nan"))):
            save_file({**arrays, name: wrong}, folder / "evaluation.safetensors")
            source = report.write(folder).read_text()
            assert BROKEN not in source, (name, wrong.shape)
    save_file({**arrays, "sample_labels": arrays["sample_labels"] + 99}, folder / "evaluation.safetensors")
    assert BROKEN not in report.write(folder).read_text()


def test_many_classes_get_their_names_below_the_pictures(tmp_path: Path) -> None:
    """Kills names that are left out where there are many."""
    data = {**sample_run.DATA, "classes": [f"letter-{index}" for index in range(40)]}
    source, _ = read(sample_run.write(tmp_path / "many", data=data))
    assert all(f">letter-{index}<" in source for index in range(40))


def test_colour_and_large_pictures_stay_small_in_the_page(folder: Path) -> None:
    """Kills pictures embedded at their full size."""
    arrays = load_file(folder / "evaluation.safetensors")
    generator = torch.Generator().manual_seed(0)

    def noise(count: int, side: int) -> torch.Tensor:
        return torch.randint(0, 256, (count, 3, side, side), generator=generator, dtype=torch.uint8)

    arrays["reconstructions_4"] = noise(8, 512)
    arrays |= {"originals": noise(8, 512), "samples": noise(64, 64)}
    save_file(arrays, folder / "evaluation.safetensors")
    source, _ = read(folder)
    assert BROKEN not in source and len(source) < 6_000_000  # noise does not compress; real pictures stay below half


def test_what_is_no_run_folder_is_refused(tmp_path: Path) -> None:
    """Kills an empty page for another folder."""
    with pytest.raises(UserError, match="is no folder"):
        report.write(tmp_path / "nowhere")
    with pytest.raises(UserError, match="is no run folder"):
        report.write(tmp_path)


def test_a_page_that_cannot_be_written_leaves_the_old_one(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Kills half a page in place of a whole one."""
    old = report.write(folder).read_bytes()
    (folder / "metrics.json").unlink()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(UserError, match=r"report\.html cannot be written: No space left"):
        report.write(folder)
    assert (folder / "report.html").read_bytes() == old
    assert not list(folder.glob("*.part"))
