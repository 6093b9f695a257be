"""Which picture, which colour and which bar stands where: pixels of the page against planted pictures and bits."""

import pytest
import torch

from unilat.report import pictures, sheets

from . import known_run
from .drawn import bars, heat, image, parse, tiles

HEIGHT, WIDTH, ROWS, COLUMNS = known_run.HEIGHT, known_run.WIDTH, known_run.ROWS, known_run.COLUMNS


def test_each_row_of_reconstructions_has_its_own_number_of_calls() -> None:
    """Grey levels tell which array a row shows. Kills rows, qualities and pictures of another number of calls."""
    node = parse(pictures.reconstructions(known_run.contents()))
    shown = {strip.one("p").text: tiles(image(strip.one("img"))) for strip in node.all("div", "strip")}
    assert list(shown) == [
        "Originals held out",
        "2 decoder calls 25.1 dB SSIM 0.890 distance 0.0711",
        "5 decoder calls 23.5 dB SSIM 0.877 distance 0.0345",
        "10 decoder calls 22.1 dB SSIM 0.860 distance 0.0398",
    ]
    levels = [[int(tile.float().mean()) for tile in row] for row in shown.values()]
    assert levels == [[255, 255, 255], [20, 21, 22], [50, 51, 52], [110, 111, 112]]
    assert "PSNR is highest with 2 calls, the distance to real pictures smallest with 5." in node.text
    assert "more calls of the diffusion decoder" in node.text


def test_a_decoder_of_one_call_is_told_as_one() -> None:
    """Kills: calls of a diffusion decoder told of where there is none."""
    config = {"stage1": {"target_bpp": 0.42}, "seed": 3, "autoencoder": {"decoder_loss": "mse"}}
    node = parse(pictures.reconstructions(known_run.contents(config=config)))
    assert "learned by a squared error and is called once" in node.text and "diffusion decoder" not in node.text


def test_sheets_of_colour_keep_channels_rows_and_columns() -> None:
    """Five pictures in rows of two, not square, every byte another. Kills columns for rows and turned channels."""
    made = torch.randint(0, 256, (5, 3, 4, 7), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    page = image(parse(sheets.png(sheets.sheet(made, 2, gap=3), "five")).one("img"))
    assert page.shape == (3 * 4 + 2 * 3, 2 * 7 + 3, 4)
    cut = tiles(page, 4, 7, 3)
    assert len(cut) == 5
    assert all(torch.equal(part.permute(2, 0, 1), picture) for part, picture in zip(cut, made, strict=True))
    assert page[14:, 10:, 3].max() == 0 and page[4:7, :, 3].max() == 0


def test_large_pictures_are_shrunk_by_means_of_blocks() -> None:
    """300 × 200 by 3: sums by hand. Kills every third pixel, and a factor of the short side."""
    made = torch.randint(0, 256, (1, 3, 300, 200), generator=torch.Generator().manual_seed(1), dtype=torch.uint8)
    small = sheets.shrunk(made)
    whole = made[0, :, :300, :198].double().reshape(3, 100, 3, 66, 3).mean((2, 4))
    assert small.shape == (1, 3, 100, 67)
    assert (small[0, :, :, :66].double() - whole).abs().max() <= 0.5
    edge = made[0, :, :, 198:].double().reshape(3, 100, 3, 2).mean((2, 3))
    assert (small[0, :, :, 66].double() - edge).abs().max() <= 0.5
    assert sheets.shrunk(torch.zeros(1, 1, 128, 100, dtype=torch.uint8)).shape == (1, 1, 128, 100)


@pytest.mark.parametrize("light", [255, 102, 0])
def test_bits_are_laid_over_as_their_own_colour(light: int) -> None:
    """``colour · (0.45 + 0.55 g) + 36 g`` at every place. Kills a picture that hides its bits, and a turned map."""
    maps = torch.arange(12.0).view(2, ROWS, COLUMNS)
    over = sheets.laid_over(torch.full((2, 3, HEIGHT, WIDTH), light, dtype=torch.uint8), maps, 16.0)
    assert over.shape == (2, 3, HEIGHT, WIDTH)
    grey = light / 255
    for index in range(2):
        for row in range(HEIGHT):
            for column in range(WIDTH):
                bits = 6 * index + 3 * (row // 6) + column // 6
                colour = [value * (0.45 + 0.55 * grey) + 36 * grey for value in heat(bits / 16)]
                told = over[index, :, row, column].tolist()
                assert told == pytest.approx([min(value, 255) for value in colour], abs=1.01)


def test_the_heat_scale_is_straight_between_its_colours() -> None:
    """Kills a scale that ends before its last colour, and steps in place of lines."""
    shares = torch.tensor([0.0, 0.1, 0.2, 0.37, 0.5, 0.8, 0.99, 1.0])
    for share, colour in zip(shares.tolist(), sheets.heat(shares).tolist(), strict=True):
        assert colour == pytest.approx(heat(share), abs=0.51)


def test_the_bit_maps_lie_over_their_own_pictures_on_one_scale() -> None:
    """White originals, so each cell shows its bits: up to 30, the mean map's. Kills a scale or a map of one's own."""
    node = parse(pictures.bit_map(known_run.contents()))
    plain, over, mean = (image(found) for found in node.all("img"))
    assert [int(tile.float().mean()) for tile in tiles(plain)] == [255] * 3
    for picture, tile in enumerate(tiles(over)):
        for row, column in ((0, 0), (0, 2), (1, 1), (1, 2)):
            bits = (3 * row + column + 1) * (1.0, 4.0, 2.0)[picture]
            expected = [min(255.0, value + 36) for value in heat(bits / 30)]
            assert tile[6 * row + 2, 6 * column + 3].tolist() == pytest.approx(expected, abs=1.01)
    for row, bits_of in enumerate(((3.0, 30.0, 6.0), (9.0, 12.0, 15.0))):
        for column, bits in enumerate(bits_of):
            assert mean[row, column, :3].tolist() == pytest.approx(heat(bits / 30), abs=1.01)
    assert mean.shape == (ROWS, COLUMNS, 4)


def test_the_words_of_the_bit_map_are_its_sums() -> None:
    """Kills a mean for a sum, the cheapest for the dearest, and rows for columns of the grid."""
    node = parse(pictures.bit_map(known_run.contents()))
    assert [cell.text for cell in node.one("div", "under").all("span")] == ["21", "84", "42"]
    assert "of these the dearest takes 84 , the cheapest 21 ." in node.text
    assert "grid of 2 × 3 positions" in node.text
    assert node.one("div", "scale").text == "0 30.0 bits per latent position"
    assert node.one("div", "mean").text == "Mean of all held-out pictures: 75.0 bits each."


def test_without_totals_or_a_mean_the_maps_themselves_are_summed() -> None:
    """Kills totals that are means, and a scale that needs the mean map: 24 is the dearest cell."""
    arrays = {name: value for name, value in known_run.arrays().items() if name not in ("bits_each", "bit_map")}
    node = parse(pictures.bit_map(known_run.contents(arrays=arrays)))
    assert [cell.text for cell in node.one("div", "under").all("span")] == ["21", "84", "42"]
    assert "24.0 bits per latent position" in node.text and not node.all("div", "mean")


def test_channels_are_ranked_with_their_own_numbers_and_shares() -> None:
    """60 + 40 + 12.5 of 120 are the first to reach 108. Kills ranks for channels, and shares of the longest bar."""
    node = parse(pictures.by_channel(known_run.arrays()["channel_bits"]))
    assert bars(node) == [
        ("channel 3", 100.0, "60.0 (50 %)"),
        ("channel 1", 66.67, "40.0 (33 %)"),
        ("channel 0", 20.83, "12.5 (10 %)"),
        ("channel 2", 12.5, "7.5 (6 %)"),
    ]
    assert node.one("p", "how").text.startswith("3 of 4 channels hold nine tenths of the bits")
    many = parse(pictures.by_channel(torch.arange(30.0)))
    assert len(bars(many)) == 24 and bars(many)[0][0] == "channel 29" and "first 24 of them" in many.text


def test_samples_stand_in_the_row_of_their_class() -> None:
    """Samples whose class is their colour. Kills labels against other pictures, and rows out of the classes' order."""
    node = parse(pictures.samples(known_run.contents()))
    shown = {strip.one("p").text: tiles(image(strip.one("img"))) for strip in node.all("div", "strip")}
    assert list(shown) == ["red", "green", "blue"]
    places = {"red": [1, 4, 6], "green": [2, 3], "blue": [0, 5]}
    for channel, (name, parts) in enumerate(shown.items()):
        assert [part[0, 0].tolist()[channel] - 100 for part in parts] == places[name]
        assert all(part.float().mean((0, 1)).nonzero().flatten().tolist() == [channel] for part in parts)
    alts = [found.attributes["alt"] for found in node.all("img")]
    assert alts == ["3 samples of class red", "2 samples of class green", "2 samples of class blue"]


def test_of_many_classes_the_name_stands_below_its_sample() -> None:
    """20 classes, 11 samples. Kills names one place on, or of the row above."""
    labels = torch.tensor([17, 3, 9, 0, 12, 5, 19, 1, 8, 14, 2])
    labels = torch.cat([labels, torch.arange(20)])
    arrays = {"samples": known_run.flat(60, len(labels)), "sample_labels": labels}
    data = {"classes": [f"kind-{index}" for index in range(20)]}
    node = parse(pictures.samples(known_run.contents(arrays=arrays, data=data)))
    names = [cell.text for under in node.all("div", "under") for cell in under.all("span")]
    levels = [int(tile[0, 0, 0]) for found in node.all("img") for tile in tiles(image(found))]
    assert names == [f"kind-{label}" for label in labels.tolist()]
    assert levels == list(range(60, 60 + len(labels)))
    assert node.all("img")[1].attributes["alt"].startswith("samples of kind-8, kind-14, kind-2, kind-0")
