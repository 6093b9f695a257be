"""Pictures of 16 × 24 through every command: height is height and width is width, pixels are their product."""

import base64
import io
import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import unilat
from unilat.cli import main
from unilat.files import read_safetensors
from unilat.recipe import presets
from unilat.recipe.build import describe
from unilat.recipe.config import RunConfig
from unilat.run.distill import DistillConfig, distill
from unilat.run.trained import Run
from unilat.studies.bench import bench
from unilat.studies.compare import compare
from unilat.studies.verify import verify_run
from unilat.types import UserError

H, W = 16, 24


def pictures(count: int = 96) -> np.ndarray:
    """uint8 ``[count, 16, 24, 3]``, a colour that goes from left to right, a noisy right end and a light bar below."""
    random = np.random.Generator(np.random.PCG64(3))
    made = np.zeros((count, H, W, 3), np.uint8) + (4 * np.arange(W))[None, None, :, None].astype(np.uint8)
    made[:, :, 16:] = random.integers(0, 256, (count, H, 8, 3))
    made[:, 12:] += random.integers(0, 60, (count, 1, 1, 3), np.uint8)
    return made


def configured(source: Path) -> RunConfig:
    """The preset tiny, a few steps long, with flips."""
    config = presets.get("tiny", size=(H, W))
    return replace(
        config,
        data=replace(config.data, source=str(source), flip=True),
        stage1=replace(config.stage1, samples=192, batch=32, warmup=32, ema_halflife=16, calibrate_every=96, settle=64),
        stage2=replace(config.stage2, samples=64),
        evaluation=replace(config.evaluation, pictures=9, samples=6, rate_levels=2, step_counts=(1,)),
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run's folder; its pictures lie beside it."""
    place = tmp_path_factory.mktemp("wide")
    np.savez(place / "wide.npz", images=pictures(), labels=np.arange(96) % 2)
    unilat.train(configured(place / "wide.npz"), out=place / "run")
    return place / "run"


@pytest.fixture
def run(folder: Path) -> Run:
    return unilat.load(folder)


def test_what_a_run_says_of_its_pictures(run: Run) -> None:
    """Kills: a side squared for pixels, a latent grid turned round, bits divided by another number than H · W."""
    data, metrics = (json.loads((run.folder / f"{name}.json").read_text()) for name in ("data", "metrics"))
    assert data["size"] == [H, W] and run.pixels == H * W == 384 and run.latent_shape == (4, 4, 6)
    arrays, _ = read_safetensors(run.folder / "evaluation.safetensors")
    assert arrays["bit_map"].shape == (4, 6) and arrays["originals"].shape[1:] == (3, H, W)
    assert float(arrays["bit_map"].sum()) / 384 == pytest.approx(metrics["bits"]["measured"]["value"], rel=1e-5)
    assert arrays["samples"].shape[1:] == (3, H, W) and arrays["reconstructions_1"].shape[1:] == (3, H, W)


def test_pictures_go_in_and_come_out_in_their_shape(run: Run) -> None:
    """Kills: noise of another shape than the picture's; latents or tensors of the turned shape that are taken."""
    images = torch.from_numpy(pictures()[:5].transpose(0, 3, 1, 2).copy())
    latents = run.encode(images)
    assert latents.z.shape == (5, 4, 4, 6) and latents.pixels == 384
    assert run.decode(latents).images.shape == images.shape == run.reconstruct(images).images.shape
    assert run.sample(3).images.shape == (3, 3, H, W)
    near = 2e-3 if torch.cuda.is_available() else 1e-4  # a GPU's convolutions round to 10 bits, by the batch
    torch.testing.assert_close(run.encode(run.config.data.source).z[:5], latents.z, rtol=near, atol=near)
    for turned in (images.transpose(2, 3), images[..., :16]):
        with pytest.raises(UserError, match="smaller than 16 x 24"):
            run.encode(turned)
    with pytest.raises(UserError, match=r"latents must be \[4, 4, 6\] each"):
        run.decode(replace(latents, z=latents.z.transpose(2, 3)))


def shown(html: str, alt: str) -> np.ndarray:
    """The picture of a page whose description begins with ``alt``."""
    (data,) = re.findall(rf'src="data:image/png;base64,([^"]+)"[^>]*alt="{alt}', html)
    with Image.open(io.BytesIO(base64.b64decode(data))) as picture:
        return np.asarray(picture.convert("RGB"))


def test_the_report_draws_them_upright(run: Run) -> None:
    """The right third of each picture is noise, so that is where the bits are. Kills: a bit map laid over the pictures
    turned or mirrored, sheets of squares, a lead that squares a side."""
    html = (run.folder / "report.html").read_text("utf-8")
    assert "for a picture of 16 × 24 pixels" in html and "a grid of 4 × 6 positions" in html
    arrays, _ = read_safetensors(run.folder / "evaluation.safetensors")
    plain, laid = shown(html, r"\d held-out originals\""), shown(html, "the same with the bits of 4 × 6")
    count = len(arrays["originals"])
    assert plain.shape == laid.shape == (H, count * W + count - 1, 3)
    np.testing.assert_array_equal(plain[:, :W], arrays["originals"][0].permute(1, 2, 0).numpy())
    mean = shown(html, "mean bit map over 4 × 6")
    assert mean.shape == (4, 6, 3)
    light = mean.astype(int).sum(-1)
    assert np.unravel_index(light.argmax(), light.shape) == np.unravel_index(int(arrays["bit_map"].argmax()), (4, 6))


def test_studies_take_them(folder: Path, run: Run, tmp_path: Path) -> None:
    """Kills: a study that squares a side or turns a grid: verify, compare and bench of a run, an audit of latents."""
    slack = verify_run(run, 64, 0).slack
    assert slack.run == pytest.approx(run.results.bits.value, rel=0.3) and slack.refitted > 0
    assert compare((folder, folder), tmp_path / "both.html")
    latents = run.latents(torch.from_numpy(pictures().transpose(0, 3, 1, 2).copy()))
    audited = unilat.audit(latents, size="16x24", samples=64).findings
    assert audited.subject.pixels == 384 and audited.subject.latent == (4, 4, 6)
    bits = audited.diffusion.bits
    assert bits.per_pixel and bits.per_pixel.value == pytest.approx(bits.per_latent.value / 384)
    parts = bench(replace(run.config, stage2=replace(run.config.stage2, samples=0)), 3).parts
    assert set(parts) == {"encoder", "prior", "decoder"}


def test_a_decoder_of_one_call_makes_them(run: Run) -> None:
    """Kills: paths of the teacher in another shape than the student's."""
    distill(run.folder, DistillConfig(steps=1, teacher_steps=2, samples=32, batch=16))
    fast = unilat.load(run.folder, decoder="fast")
    assert fast.reconstruct(torch.from_numpy(pictures(3).transpose(0, 3, 1, 2).copy())).images.shape == (3, 3, H, W)


def test_the_command_line_takes_height_by_width(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Kills: width by height, --data.size that reads another form, files of the turned shape, a dry run of squares."""
    source = str(folder.parent / "wide.npz")
    assert main(["train", source, "--preset", "tiny", "--size", "16x24", "--dry-run", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["config"]["data"]["size"] == [16, 24]
    assert (
        main(["train", source, "--preset", "tiny", "--data.size", "16x32", "--data.fit", "pad", "--dry-run", "--json"])
        == 0
    )
    data = json.loads(capsys.readouterr().out)["config"]["data"]
    assert (data["size"], data["fit"]) == ([16, 32], "pad")
    assert main(["reconstruct", str(folder), source, "--out", str(tmp_path / "out")]) == 0
    with Image.open(next((tmp_path / "out").glob("*.png"))) as picture:
        assert picture.size[1] % H == 0 and picture.size[0] >= W
    assert main(["data", "look", source, "--size", "8x24", "--fit", "crop", "--out", str(tmp_path / "sheet.png")]) == 0
    assert "96 pictures of 8 x 24" in (out := capsys.readouterr().out) and "96 of 16x24 cropped" in out
    assert main(["data", "look", source, "--size", "24x", "--out", str(tmp_path / "sheet.png")]) == 2
    assert "a size is 64, or 96x128 for height x width, not '24x'" in capsys.readouterr().err


def test_costs_are_those_of_the_shape() -> None:
    """Kills: FLOPs of a square of either side; a picture or latent told turned round."""
    square, wide = (describe(presets.get("tiny", size=size), 3) for size in ((16, 16), (16, 24)))
    assert (wide.picture, wide.latent) == ((3, 16, 24), (4, 4, 6))
    ratio = wide.parts["encoder"].forward_flops / square.parts["encoder"].forward_flops
    assert ratio == pytest.approx(1.5, rel=0.01) and wide.capacity_bpp == square.capacity_bpp
