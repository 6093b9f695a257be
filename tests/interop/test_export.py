"""The folder of an export: whole or not at all, its card, its files for others, and what is refused."""

import base64
import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import unilat
from handed import close, handed_run, pictures
from unilat.cli import main
from unilat.files import read_json, whole_folder, write_json
from unilat.interop import card, hub, to_diffusers, to_latents, to_onnx
from unilat.interop import export as exporting
from unilat.interop.export import MARK, export
from unilat.interop.space import space_of
from unilat.maths.noise import alpha, sigma
from unilat.models.latents import LatentSet
from unilat.run.trained import Run
from unilat.types import UserError


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    return handed_run("plain", tmp_path / "run", monkeypatch)


def _refused(run: Any, to: Any, out: Path, **named: Any) -> str:
    with pytest.raises(UserError) as error:
        export(run, to, out, **named)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_a_folder_is_whole_or_not_there(tmp_path: Path):
    """Kills: half a folder after a failure, an older one that is lost in it, one that keeps its older files."""
    with whole_folder(tmp_path / "a" / "new") as folder:
        (folder / "one").write_text("1")
        assert not (tmp_path / "a" / "new").exists()
    with pytest.raises(ZeroDivisionError), whole_folder(tmp_path / "a" / "new") as folder:
        (folder / "two").write_text("2")
        1 / 0  # noqa: B018
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["new"]
    assert [path.name for path in (tmp_path / "a" / "new").iterdir()] == ["one"]
    with whole_folder(tmp_path / "a" / "new") as folder:
        (folder / "two").write_text("2")
    assert [path.name for path in (tmp_path / "a" / "new").iterdir()] == ["two"]
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["new"]


def test_a_folder_that_cannot_take_its_place_leaves_the_older(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Kills: the older one moved away for good where the new one then cannot come."""
    import os

    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "kept").write_text("1")
    real = os.replace

    def replace(source: Any, target: Any) -> None:
        if str(source).endswith(".part"):
            raise OSError("no")
        real(source, target)

    monkeypatch.setattr("os.replace", replace)
    with pytest.raises(OSError), whole_folder(tmp_path / "out") as folder:
        (folder / "new").write_text("2")
    assert [path.name for path in tmp_path.iterdir()] == ["out"] and (tmp_path / "out" / "kept").is_file()


def test_only_an_older_export_is_written_over(run: Run, tmp_path: Path):
    """Kills: a folder of the user's that is lost, a file that they put beside an export, a run folder, a file."""
    out = tmp_path / "out"
    out.mkdir()
    found = export(run, "latents", out)
    assert set(found.files) == {path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file()}
    assert MARK in found.files and found.out == out
    (out / "__pycache__").mkdir()
    (out / "__pycache__" / "x.pyc").write_bytes(b"")
    assert "latents.npy" in export(run, "latents", out, format="npy").files
    assert not (out / "latents-00000.safetensors").exists()
    (out / "mine.txt").write_text("mine")
    assert "mine.txt" in _refused(run, "latents", out) and (out / "mine.txt").is_file()
    (out / "mine.txt").unlink()
    (out / MARK).unlink()
    assert "no export of unilat" in _refused(run, "diffusers", out)
    write_json(out / MARK, {"format": "another", "files": []})
    assert "no export of unilat" in _refused(run, "diffusers", out)
    assert "not empty" in _refused(run, "diffusers", run.folder)
    assert "belongs to the run" in _refused(run, "diffusers", run.folder / "latents" / "out")
    assert "is a file" in _refused(run, "diffusers", _file(tmp_path / "file"))


def _file(path: Path) -> Path:
    path.write_text("")
    return path


def test_a_failure_leaves_nothing(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Kills: an export without its card, a disk's error with its traceback."""

    def full(*_: Any) -> str:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(card, "card", full)
    assert "No space left" in _refused(run, "diffusers", tmp_path / "out")
    assert not list(tmp_path.glob("*out*"))


def test_what_cannot_be_asked_is_refused(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Kills: a format that is none, latents' options where there are no latents, a licence that would break the card's
    head, a repository that is a path, a package that is missed after minutes of work."""
    out = tmp_path / "out"
    assert "diffusers, onnx, comfyui, latents" in _refused(run, "tensorflow", out)
    assert "safetensors, npy" in _refused(run, "latents", out, format="pt")
    assert "are of an export to latents" in _refused(run, "diffusers", out, data="x")
    assert "are of an export to latents" in _refused(run, "comfyui", out, format="npy")
    assert "apache-2.0" in _refused(run, "diffusers", out, licence="mit\nevil: yes")
    assert "OWNER/NAME" in _refused(run, "diffusers", out, push="../x/y")
    monkeypatch.setattr(to_onnx, "find_spec", lambda name: None)
    assert "pip install 'unilat[onnx]'" in _refused(run, "onnx", out)
    assert not out.exists()


def test_a_run_that_is_not_finished_is_refused(run: Run, tmp_path: Path):
    """Without an autoencoder nothing is written; without a base model the autoencoder alone, and a line says so. Kills:
    an export of random weights, a pipeline without a model."""
    (run.folder / "base.safetensors").unlink()
    said: list[str] = []
    found = export(run.folder, "diffusers", tmp_path / "out", say=said.append)
    assert "no base model" in found.notes[0] and said == list(found.notes)
    assert not {"pipeline.py", "model_index.json", "base/config.json"} & set(found.files)
    assert "DiffusionPipeline" not in (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    assert "no base model" in (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    (run.folder / "autoencoder.safetensors").unlink()
    assert "stage 1 is not finished" in _refused(run.folder, "diffusers", tmp_path / "other")


def test_the_card_tells_what_was_measured(tiny_run: Path, tmp_path: Path):
    """Bits, PSNR and SSIM with errors, counts and protocols as metrics.json has them, the slack where it was verified;
    and no place of the maker's disk. Kills: a number of another row, a path that is published, a slack that nobody
    verified, a licence that was not named."""
    run = unilat.load(tiny_run)
    said = card.card(run, space_of(run), "cc-by-4.0", "diffusers", "LOAD HERE", ("a note",))
    head, body = said.split("---\n")[1:]
    assert 'license: "cc-by-4.0"\nlibrary_name: diffusers\n' in head and "LOAD HERE" in body and "- a note" in body
    rows = dict(re.findall(r"^\| ([^|]+) \| ([^|]+) \|", body, flags=re.M))
    results = run.results
    for what, number in (
        ("bits, a bound", results.bits.measured),
        ("bits under the base model", results.base_bits),
        ("PSNR of reconstructions", results.reconstruction.psnr),
        ("SSIM", results.reconstruction.ssim),
    ):
        assert number is not None
        value, error = rows[what].split(" ± ")
        assert float(value) == pytest.approx(number.value, rel=1e-3)
        assert float(error.split()[0]) == pytest.approx(number.stderr, rel=0.06) and f"(n {number.n})" in error
    assert "not verified" in rows["slack of the bits"] and "ask before use" not in body
    place = run.data.source
    assert place not in said and str(tiny_run.parent) not in said and Path(place).name in said
    assert f"{run.data.train} grey pictures" in body and "2 classes: lying, standing" in body
    assert results.making is not None and results.making.line in body
    assert "ask before use" in card.card(run, space_of(run), card.UNKNOWN, "onnx", "", ())


def test_a_verified_slack_stands_on_the_card(run: Run):
    """Kills: a slack of another key, a run that was not measured told as measured."""
    said = card.card(run, space_of(run), "mit", "diffusers", "", ())
    assert "Nothing was measured" in said
    write_json(run.files.verified, {"slack": {"value": 0.0351, "stderr": 0.004}})
    assert card._slack(run) == "0.0351 ± 0.004"
    write_json(run.files.verified, {"slack": {"value": None}})
    assert card._slack(run) == ""


def test_texts_of_the_users_are_plain_on_the_card(run: Run):
    """Kills: a class name that is a link, a table's end or a line of the head."""
    object.__setattr__(run.data, "classes", ("a|b", "[x](http://evil)", "c\n---\nlicense: mit", "<b>"))
    said = card.card(run, space_of(run), "mit", "diffusers", "", ())
    assert "classes: a b, x (http evil), c --- license mit, b" in said and "http://evil" not in said


def _latents(out: Path) -> dict[str, torch.Tensor]:
    told = read_json(out / "statistics.json")
    parts = [load_file(out / name) for name in told["files"]]
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}


def test_latents_of_the_training_set(tiny_run: Path, tmp_path: Path):
    """Those that stage 2 was trained on, as the mean of z_0; labels, bits and names in their order, in shards and in
    arrays alike, and the statistics of the export to diffusers. Kills: z in its place, rows of another order, held-out
    pictures among them, a scale of its own."""
    run = unilat.load(tiny_run)
    export(run, "latents", tmp_path / "shards")
    rows, told = _latents(tmp_path / "shards"), read_json(tmp_path / "shards" / "statistics.json")
    kept = [LatentSet.load(path) for path in sorted((tiny_run / "latents").glob("train-*.safetensors"))]
    level = torch.tensor(run.config.autoencoder.lambda_0)
    assert close(rows["latents"], alpha(level) * torch.cat([one.z for one in kept]), 1e-6)
    assert torch.equal(rows["labels"], torch.cat([one.labels for one in kept]))
    assert torch.equal(rows["bits"], torch.cat([one.bits for one in kept]))
    names = read_json(tmp_path / "shards" / "names.json")
    assert names["names"] == [name for one in kept for name in one.names or ()] and names["classes"] == run.classes
    space = space_of(run)
    assert told["scaling_factor"] == space.scaling_factor and told["latents_std"] == list(space.latents_std)
    assert told["noise_std"] == pytest.approx(float(sigma(level))) and told["count"] == run.data.train
    noisy = rows["latents"] + told["noise_std"] * torch.randn_like(rows["latents"])
    assert float(((noisy - told["shift_factor"]) * told["scaling_factor"]).std()) == pytest.approx(1, abs=0.03)
    found = export(run, "latents", tmp_path / "arrays", format="npy")
    for name in ("latents", "labels", "bits"):
        array = np.load(tmp_path / "arrays" / f"{name}.npy")
        assert f"{name}.npy" in found.files and torch.equal(torch.from_numpy(array), rows[name])


def test_latents_of_other_pictures_and_of_a_learned_variance(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Several shards; mean and deviation of z_0 in each place. Kills: a draw in the place of the mean, a deviation
    without λ₀'s noise, one shard written over the next, rows that begin again in the second."""
    run = handed_run("kl-vae", tmp_path / "run", monkeypatch)
    monkeypatch.setattr(to_latents, "SHARD", 25)
    said: list[str] = []
    export(run, "latents", tmp_path / "out", data=pictures().images, say=said.append)
    rows, level = _latents(tmp_path / "out"), torch.tensor(3.0)
    posterior = run.encoded(pictures().images)[1]
    assert posterior is not None and posterior.log_variance is not None
    assert close(rows["latents"], alpha(level) * posterior.mean, 1e-5)
    variance = alpha(level).square() * posterior.log_variance.exp() + sigma(level).square()
    assert close(rows["std"], variance.sqrt(), 1e-5)
    assert len(read_json(tmp_path / "out" / "statistics.json")["files"]) == 3
    assert said[-1].startswith("encoding 60 of 60")
    assert read_json(tmp_path / "out" / "names.json")["names"] is None
    export(run, "latents", tmp_path / "arrays", data=pictures().images, format="npy")
    assert torch.equal(torch.from_numpy(np.load(tmp_path / "arrays" / "std.npy")), rows["std"])
    export(run, "latents", tmp_path / "own")
    train = run.split(pictures())[0]
    assert torch.equal(_latents(tmp_path / "own")["labels"], pictures().labels[train])


def _blocks(text: str) -> list[str]:
    return re.findall(r"^```py\n(.*?)^```", text, flags=re.M | re.S)


def test_what_the_documents_say_to_load_with_is_what_cards_say(tiny_run: Path, tmp_path: Path):
    """docs/export.md has the blocks of the cards, and those for latents run. Kills: a document of another version, a
    block that fails, or whose x is not of unit variance."""
    page = (Path(__file__).parents[2] / "docs" / "export.md").read_text(encoding="utf-8")
    texts = (to_diffusers.LOAD, to_diffusers.LOAD_ALONE, to_onnx.LOAD, *to_latents.LOAD.values())
    assert _blocks(page) == [block for text in texts for block in _blocks(text)]
    for format in ("safetensors", "npy"):
        export(tiny_run, "latents", tmp_path / format, format=format)
        card_text = (tmp_path / format / "README.md").read_text(encoding="utf-8")
        (block,), names = _blocks(card_text), dict[str, Any]()
        exec(compile(block.replace("FOLDER", str(tmp_path / format)), "card", "exec"), names)
        assert float(names["x"].std()) == pytest.approx(1, abs=0.05)


class _Api:
    """A hub that keeps what it is given."""

    def __init__(self, error: Exception | None = None):
        self.error, self.calls = error, list[tuple[str, Any]]()

    def create_repo(self, repo_id: str, *, private: bool, exist_ok: bool) -> str:
        self.calls.append(("create", (repo_id, private, exist_ok)))
        return f"https://hub/{repo_id}"

    def upload_folder(self, *, repo_id: str, folder_path: str, commit_message: str) -> None:
        if self.error:
            raise self.error
        self.calls.append(("upload", (repo_id, sorted(path.name for path in Path(folder_path).iterdir()))))


def test_a_folder_is_pushed(tmp_path: Path):
    """Kills: a public repository that nobody asked for, one that is there taken for an error, another folder, an error
    of the hub's with its traceback."""
    (tmp_path / "a").write_text("1")
    api = _Api()
    assert hub.push(tmp_path, "me/x", api) == "https://hub/me/x"
    assert api.calls == [("create", ("me/x", True, True)), ("upload", ("me/x", ["a"]))]
    with pytest.raises(UserError, match=r"was not pushed to me/x \(401 not you\): `hf auth login`"):
        hub.push(tmp_path, "me/x", _Api(RuntimeError("401\n not   you")))
    for wrong in ("", "a/b/c", "a b", "/x", "x" * 97):
        with pytest.raises(UserError, match="OWNER/NAME"):
            hub.check_name(wrong)


def test_the_command_says_what_it_did(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    """Text and JSON; options named in refusals. Kills: a pushed folder that is another, an option that is not handed
    on, a backtick that is left."""
    pushed: list[Any] = []
    monkeypatch.setattr(exporting.hub, "push", lambda *given: pushed.append(given) or "https://hub/me/x")
    out = tmp_path / "out"
    words = ["export", str(run.folder), "--to", "comfyui", "--out", str(out), "--licence", "mit", "--push", "me/x"]
    assert main(words) == 0
    said = capsys.readouterr()
    assert said.out.startswith(f"comfyui: {out} (11 files, ") and said.out.endswith("pushed to https://hub/me/x\n")
    assert pushed == [(out, "me/x")] and 'license: "mit"' in (out / "README.md").read_text(encoding="utf-8")
    assert main([*words[:2], "--to", "latents", "--format", "npy", "--out", str(tmp_path / "l"), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["to"] == "latents" and "latents.npy" in found["files"] and found["difference"] is None
    assert main([*words[:2], "--to", "diffusers", "--format", "npy", "--out", str(tmp_path / "d")]) == 2
    assert "and a --format are of an export to latents" in capsys.readouterr().err
    assert main([*words[:2], "--to", "diffusers", "--out", str(run.folder)]) == 2
    assert "choose another --out" in capsys.readouterr().err
    assert main([*words[:2], "--to", "diffusers", "--out", str(tmp_path / "f"), "--decoder", "fast"]) == 2
    assert "make it with `unilat distill" in capsys.readouterr().err


class _Hub(BaseHTTPRequestHandler):
    """A stand-in for the hub: it makes repositories and takes commits, which ``server.seen`` keeps."""

    def do_POST(self) -> None:
        seen: list[tuple[str, str, bytes]] = self.server.seen  # pyright: ignore[reportAttributeAccessIssue]
        body = self.rfile.read(int(self.headers["Content-Length"]))
        seen.append((self.path, self.headers["Authorization"], body))
        answer: dict[str, Any] = {"url": f"http://127.0.0.1:{self.server.server_port}/me/x"}  # pyright: ignore
        if "/preupload/" in self.path:
            modes = {"uploadMode": "regular", "shouldIgnore": False, "oid": None}
            answer = {"files": [{"path": one["path"], **modes} for one in json.loads(body)["files"]]}
        elif "/commit/" in self.path:
            answer = {"commitUrl": "http://127.0.0.1/me/x/commit/a", "commitOid": "a" * 40, "success": True}
        told = json.dumps(answer).encode()
        self.send_response(401 if self.headers["Authorization"] == "Bearer hf_wrong" else 200)
        self.send_header("Content-Length", str(len(told)))
        self.end_headers()
        self.wfile.write(told)

    def log_message(self, format: str, *args: Any) -> None:
        pass


def test_the_hubs_own_client_pushes_to_a_stand_in(tmp_path: Path):
    """huggingface_hub's upload against a server on this machine: each file arrives, in a private repository; a wrong
    token and a server that is gone end in one line. Kills: a call that its client does not know."""
    huggingface_hub = pytest.importorskip("huggingface_hub")
    (tmp_path / "vae").mkdir()
    (tmp_path / "README.md").write_text("# it")
    (tmp_path / "vae" / "w.safetensors").write_bytes(bytes(50))
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Hub)
    server.seen = seen = []  # pyright: ignore[reportAttributeAccessIssue]
    threading.Thread(target=server.serve_forever, daemon=True).start()
    place = f"http://127.0.0.1:{server.server_port}"
    try:
        api = huggingface_hub.HfApi(endpoint=place, token="hf_right")
        assert hub.push(tmp_path, "me/x", api) == f"{place}/me/x"
        with pytest.raises(UserError, match=r"was not pushed to me/x .*401"):
            hub.push(tmp_path, "me/x", huggingface_hub.HfApi(endpoint=place, token="hf_wrong"))
    finally:
        server.shutdown()
        server.server_close()
    assert json.loads(seen[0][2])["visibility"] == "private"
    (commit,) = [body for path, token, body in seen if "/commit/" in path]
    sent = [json.loads(line)["value"] for line in commit.splitlines()][1:]
    contents = {one["path"]: base64.b64decode(one["content"]) for one in sent}
    assert contents == {"README.md": b"# it", "vae/w.safetensors": bytes(50)}
    with pytest.raises(UserError) as error:
        hub.push(tmp_path, "me/x", api)
    assert "\n" not in str(error.value) and "is written, but was not pushed" in str(error.value)
