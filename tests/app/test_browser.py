"""The page in a headless Chromium: every control, dark and narrow, no request to anybody else, no word of the console.

Left out where there is no Chromium: ``apt-get install chromium chromium-driver``.
"""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from unilat.run.folder import RunFolder

from .browser import CHROMIUM, DRIVER, Browser, chromium
from .served import Page, served

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not (CHROMIUM and DRIVER), reason="no chromium and chromedriver here"),
]


@pytest.fixture(scope="module")
def window(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with chromium(tmp_path_factory.mktemp("profile")) as browser:
        yield browser


@pytest.fixture(scope="module")
def two(tiny_run: Path, tiny_source: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    """The page on two runs, one of them without a base model."""
    folder = tmp_path_factory.mktemp("two")
    shutil.copytree(tiny_run, folder / "bare")
    files = RunFolder(folder / "bare")
    files.base.unlink()
    files.seal.unlink()
    with served([tiny_run, folder / "bare"], folder, [str(tiny_source)]) as page:
        yield page


def _opened(window: Browser, page: Page) -> None:
    window.look(wide=1200)
    window.open(f"http://{page.host}/")
    window.wait("return document.body.dataset.ready && !document.getElementById('drop').hidden", "the page")
    window.told(), window.asked()


def _quiet(window: Browser, page: Page) -> None:
    """Nothing was told to the console, and nobody else was asked."""
    assert window.told() == []
    assert [url for url in window.asked() if not url.startswith(f"http://{page.host}/")] == []


def _dropped(window: Browser, source: Path) -> None:
    window.type(
        "#files", "\n".join(str(source / kind / name) for kind, name in (("lying", "44.png"), ("standing", "45.png")))
    )
    window.wait("return document.querySelectorAll('#shelf button').length === 2", "two pictures")
    window.wait("return document.getElementById('numbers').textContent", "the numbers")


def test_looking(window: Browser, two: Page, tiny_source: Path) -> None:
    """Drop, choose, both sliders, the seed, and a file that is no picture. Kills: a control that asks for nothing, a
    picture that is not the server's, numbers without their protocols, a slider that answers for another picture."""
    _opened(window, two)
    _dropped(window, tiny_source)
    first = window.run("return document.getElementById('kept').src")
    said = window.text("#numbers")
    assert "upper bound on what a latent tells" in said and "PSNR per picture over all channels" in said
    assert "1 of" not in window.text("#calls-told") and window.text("#calls-told") == "2"
    top = window.text("#bits-kept").split(" of ")
    assert top[0] == top[1]
    for selector, value in (("#level", 2), ("#calls", 0), ("#look-seed", 3)):
        before = window.run("return document.getElementById('kept').src")
        window.set(selector, value)
        window.wait(f"return document.getElementById('kept').src !== {before!r}", f"the answer of {selector}")
    amounts = [one.split(" ± ") for one in window.text("#bits-kept").split(" of ")]
    (low, off), (high, most) = ([float(part.replace(",", "")) for part in one] for one in amounts)
    assert 0 < off < most < 0.5 * high and f"{amounts[1][0]} ± {amounts[1][1]} bits, " in window.text("#numbers")
    assert low < 0.5 * high and window.text("#calls-told") == "1"
    window.click("#shelf button:nth-child(2)")
    window.wait(
        "return document.getElementById('bits-kept').textContent.split(' of ')[0] === "
        "document.getElementById('bits-kept').textContent.split(' of ')[1]",
        "the second picture",
    )
    assert first != window.run("return document.getElementById('original').src")
    pressed = "return [...document.querySelectorAll('#shelf button')].map(b => b.getAttribute('aria-pressed'))"
    assert window.run(pressed) == ["false", "true"]
    _quiet(window, two)
    window.type("#files", str(RunFolder(two.desk.entries[0].folder).config))
    window.wait("return !document.getElementById('trouble').hidden", "the trouble")
    assert window.text("#trouble").startswith("config.json: this picture cannot be read: not a picture")


def test_choosing_a_run(window: Browser, two: Page, tiny_source: Path) -> None:
    """The pictures are looked at by the other run; one without a base model draws nothing, and says so. Kills: bits of
    the run before, a form that only fails."""
    _opened(window, two)
    _dropped(window, tiny_source)
    window.set("#run", 1)
    window.wait("return document.querySelectorAll('#shelf button').length === 2", "the pictures again")
    assert "bare" in window.text("#about")
    window.click("#tab-make")
    assert window.run("return document.getElementById('sample').hidden && !document.getElementById('no-base').hidden")
    _quiet(window, two)


def test_making(window: Browser, two: Page) -> None:
    """Class, guidance, count, calls and seed reach the run. Kills: a field that is not sent, a seed that stays."""
    _opened(window, two)
    window.click("#tab-make")
    for name, value in (("count", "3"), ("label", "standing"), ("guidance", "2"), ("steps", "3"), ("seed", "11")):
        window.type(f"#sample [name={name}]", value)
    window.click("#sample button.do")
    window.wait("return document.querySelectorAll('#samples img').length === 3", "three pictures")
    assert "guidance 2, 3 calls of the base model and 2 of the decoder, seed 11" in window.text("#made")
    expected = two.post("sample", {"run": 0, "count": 3, "label": "standing", "guidance": 2, "steps": 3, "seed": 11})
    assert window.run("return [...document.querySelectorAll('#samples img')].map(i => i.src)") == expected["images"]
    assert window.text("#samples") == "standing" * 3
    window.click("#again")
    window.wait("return document.getElementById('made').textContent.includes('seed 12')", "the next seed")
    window.type("#sample [name=label]", "cat")
    window.click("#sample button.do")
    window.wait("return document.getElementById('trouble').textContent.includes('there is no class cat')", "the line")
    assert all("400 (Bad Request)" in one for one in window.told())


def test_comparing(window: Browser, two: Page) -> None:
    """Kills: runs that were not chosen, one alone that is sent without a word."""
    _opened(window, two)
    window.click("#tab-side")
    window.click("#beside button.do")
    window.wait("return document.querySelectorAll('#table table').length > 2", "the tables")
    assert "How the numbers were measured" in window.text("#table")
    _quiet(window, two)
    window.click("#which label:nth-of-type(2) input")
    window.click("#beside button.do")
    window.wait("return document.getElementById('trouble').textContent.includes('two runs or more')", "the line")


def test_training(window: Browser, two: Page, tiny_source: Path) -> None:
    """Start, watch, stop. Kills: bits that are not sent, a bar that stands still, a stop that leaves the process, a
    start that can be pressed twice."""
    _opened(window, two)
    window.click("#tab-train")
    window.wait("return document.querySelectorAll('#watched .stage').length === 2", "the run's stages")
    window.type("#order [name=bpp]", "0.35")
    window.set("#order [name=extent]", "longer")
    window.set("#order [name=size]", "16")
    window.click("#order button.do")
    window.wait("return document.getElementById('command').textContent", "the command")
    said = window.text("#command")
    assert f"unilat train {tiny_source} --bpp 0.35 --size 16 --seed 0" in said and "page-1" in said
    assert window.run("return document.querySelector('#order button.do').disabled")
    going = "document.getElementById('watched').textContent.includes('is being trained')"
    window.wait(f"return {going} && document.querySelectorAll('#watched .stage').length", "a step", 120)
    window.click("#stop")
    window.wait("return !document.querySelector('#order button.do').disabled", "the stop", 120)
    window.wait("return document.getElementById('watched').textContent.includes('is not being trained')", "its word")
    assert not two.jobs.running and two.jobs.code == 143
    _quiet(window, two)


@pytest.mark.parametrize("dark", [False, True])
def test_narrow_and_dark(window: Browser, two: Page, tiny_source: Path, dark: bool, tmp_path: Path) -> None:
    """390 pixels wide nothing runs out of the window, and fingers find the controls; dark is dark and can be read.

    Kills: a fixed width, a button of a few pixels, colours of the other scheme.
    """
    _opened(window, two)
    window.look(wide=390, dark=dark)
    _dropped(window, tiny_source)
    light = (
        "const c = getComputedStyle(document.body)[arguments[0]].match(/\\d+/g); return (+c[0] + +c[1] + +c[2]) / 765"
    )
    paper, ink = window.run(light, "backgroundColor"), window.run(light, "color")
    assert (paper < 0.2 and ink > 0.8) if dark else (paper > 0.9 and ink < 0.2)
    for tab in ("look", "make", "side", "train"):
        window.click(f"#tab-{tab}")
        if tab == "make":
            window.click("#sample button.do")
            window.wait("return document.querySelectorAll('#samples img').length", "samples")
        if tab == "side":
            window.click("#beside button.do")
            window.wait("return document.querySelectorAll('#table table').length", "tables")
        assert window.run("return document.documentElement.scrollWidth") <= 390, tab
        low = "return [...document.querySelectorAll('button, select, input:not([type=checkbox]):not([type=file])')]"
        sides = window.run(
            low + ".filter(e => e.offsetParent && !e.disabled).map(e => e.getBoundingClientRect().height)"
        )
        assert min(sides) >= 33, tab
    _quiet(window, two)


def test_keys_alone_reach_everything(window: Browser, two: Page) -> None:
    """Kills: tabs that only a mouse opens, a field without a name for those who listen to the page."""
    _opened(window, two)
    script = "document.getElementById('tab-look').focus(); document.activeElement.dispatchEvent(new KeyboardEvent("
    window.run(script + "'keydown', {key: 'ArrowRight', bubbles: true}))")
    assert window.run("return document.activeElement.id") == "tab-make"
    assert window.run("return document.getElementById('look').hidden && !document.getElementById('make').hidden")
    nameless = (
        "return [...document.querySelectorAll('input, select, button')].filter(e => !(e.labels && e.labels.length)"
    )
    assert window.run(nameless + " && !e.textContent && !e.getAttribute('aria-label')).map(e => e.outerHTML)") == []
