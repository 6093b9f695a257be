"""unilat on a system that it has not met, as far as its own code can tell: run as a program by test_elsewhere.py.

    python tests/elsewhere.py windows PICTURES FOLDER

What ``import os`` and the like give to unilat's modules lacks what that system lacks; everybody else's modules see the
machine as it is, for they work there already. Files of /proc and /sys are not there. On Windows a file that somebody
has open can neither be renamed nor removed, and what is written through ``os.write`` keeps its line ends only where the
file was opened as binary.
"""

import builtins
import importlib
import inspect
import os
import pkgutil
import sys
import tarfile
from pathlib import Path
from types import ModuleType
from typing import Any

BOTH = {
    "os": "memfd_create posix_fadvise preadv pwritev sched_getaffinity sched_setaffinity",
    "sys": "getwindowsversion",
}
MISSING = {
    "macos": BOTH,
    "windows": {
        "os": f"{BOTH['os']} O_CLOEXEC O_DIRECTORY O_DSYNC O_NOFOLLOW O_NONBLOCK O_SYNC WNOHANG chown confstr fchmod"
        " fchown fdatasync fork forkpty getegid geteuid getgid getloadavg getpgid getuid killpg lchown mkfifo nice"
        " posix_spawn pread pwrite register_at_fork setsid statvfs sync sysconf uname",
        "signal": "SIGALRM SIGCHLD SIGHUP SIGKILL SIGPIPE SIGQUIT SIGSTOP SIGUSR1 SIGUSR2 alarm pause pthread_sigmask"
        " setitimer",
        "mmap": "MADV_DONTNEED MADV_SEQUENTIAL MAP_PRIVATE MAP_SHARED PROT_READ PROT_WRITE",
        "time": "clock_gettime tzset",
        "socket": "AF_UNIX",
    },
}
MODULES = {"macos": (), "windows": ("fcntl", "grp", "pty", "pwd", "readline", "resource", "syslog", "termios", "tty")}
O_BINARY = 0x8000
LIBRARY = ("builtins", "contextlib", "io", "os", "pathlib", "shutil", "tempfile", __name__)
"""Modules that do as they are told: who told them is looked for further up."""


def twin(module: str, missing: str, other: dict[str, Any]) -> ModuleType:
    """A module like the one of that name, without ``missing`` and with ``other``."""
    real, made = __import__(module), ModuleType(module)
    made.__dict__.update({key: value for key, value in vars(real).items() if key not in missing.split()} | other)
    return made


def of_ours() -> bool:
    """Whether unilat has called, through nothing but Python's own files."""
    frame = inspect.currentframe()
    while frame is not None and frame.f_globals.get("__name__") in LIBRARY:
        frame = frame.f_back
    return frame is not None and str(frame.f_globals.get("__name__")).startswith("unilat")


def in_use(path: str) -> bool:
    """Whether this process has the file open or mapped."""
    path = os.path.abspath(path)
    for number in os.listdir("/proc/self/fd"):
        try:
            if os.readlink(f"/proc/self/fd/{number}") == path:
                return True
        except OSError:
            pass
    return False


class Machine:
    """What stands between unilat and the machine it runs on."""

    def __init__(self, system: str) -> None:
        self.windows, self.text = system == "windows", set[int]()
        platform = {"windows": "win32", "macos": "darwin"}[system]
        special: dict[str, dict[str, Any]] = {"sys": {"platform": platform}}
        if self.windows:
            special["os"] = {"name": "nt", "O_BINARY": O_BINARY, "open": self.open, "write": self.write}
        names = MISSING[system].keys() | special.keys()
        self.twins = {one: twin(one, MISSING[system].get(one, ""), special.get(one, {})) for one in names}
        self.without, self.real = MODULES[system], builtins.__import__

    def open(self, path: Any, flags: int, mode: int = 0o777) -> int:
        """``os.open``, which remembers what is not binary."""
        descriptor = os.open(path, flags & ~O_BINARY, mode)
        self.text.discard(descriptor)
        if not flags & O_BINARY:
            self.text.add(descriptor)
        return descriptor

    def write(self, descriptor: int, data: Any) -> int:
        """``os.write``, which spoils what is not binary."""
        if descriptor in self.text:
            os.write(descriptor, bytes(data).replace(b"\n", b"\r\n"))
            return len(data)
        return os.write(descriptor, data)

    def give(
        self, name: str, globals: Any = None, locals: Any = None, fromlist: Any = (), level: int = 0
    ) -> ModuleType:
        """In place of ``__import__``."""
        if str((globals or {}).get("__name__", "")).startswith("unilat"):
            if name in self.without:
                raise ModuleNotFoundError(f"No module named {name!r}")
            if name in self.twins:
                return self.twins[name]
        return self.real(name, globals, locals, fromlist, level)

    def watch(self, event: str, told: tuple[Any, ...]) -> None:
        """An audit hook: what the system would refuse."""
        if event == "open" and str(told[0]).startswith(("/proc", "/sys")) and of_ours():
            raise FileNotFoundError(2, "No such file", told[0])
        if self.windows and event in ("os.rename", "os.remove") and of_ours():
            for path in told[: 2 if event == "os.rename" else 1]:
                if in_use(os.fspath(path)) and not str(path).endswith("lock"):  # there filelock removes them itself
                    raise PermissionError(13, "The process cannot access the file: it is being used", path)
        if self.windows and event == "os.mkdir" and set(str(told[0])) & set('<>:"|?*'):
            raise OSError(22, "The file name is incorrect", told[0])


def everything() -> list[str]:
    """Import every module of unilat; their names."""
    import unilat

    names = [one.name for one in pkgutil.walk_packages(unilat.__path__, "unilat.") if not one.name.endswith("__main__")]
    for name in names:
        importlib.import_module(name)
    return names


def job(source: str, folder: Path) -> None:
    """What a user does with it: a run that is stopped and goes on, its latents, and shards read as they are needed."""
    import torch

    import unilat
    from unilat.cli import main as command
    from unilat.signals import open_source
    from unilat.signals.stream import Streamed

    run, latents = folder / "run", folder / "latents.safetensors"
    small: dict[str, Any] = {"preset": "tiny", "target_bpp": 0.4, "stage1__samples": 128, "stage2__samples": 64}
    try:
        unilat.train(source, out=run, on_step=lambda one: not (isinstance(one, unilat.Step) and one.step == 3), **small)
        raise AssertionError("it was not stopped")
    except unilat.Stopped:
        pass
    words = ["--preset", "tiny", "--bpp", "0.4", "--stage1.samples", "128", "--stage2.samples", "64"]
    assert command(["train", source, "--out", str(run), *words]) == 0
    assert command(["encode", str(run), source, "--out", str(latents)]) == 0
    assert command(["decode", str(run), str(latents), "--out", str(folder / "decoded")]) == 0
    assert command(["report", str(run)]) == 0 and command(["doctor", str(run)]) == 0
    with tarfile.open(folder / "shard.tar", "w") as shard:
        for path in sorted(Path(source).rglob("*.png")):
            shard.add(path, path.name)
    rows = torch.tensor([7, 80, 8])
    there = open_source(source, size=16)
    for _ in range(2):  # the second time from the index that the first has kept
        streamed = open_source(str(folder / "shard.tar"), size=16, memory_budget=100)
        assert isinstance(streamed, Streamed) and sorted(map(sum, _pixels(streamed, rows))) == sorted(
            map(sum, _pixels(there, rows))
        )


def _pixels(source: Any, rows: Any) -> list[list[int]]:
    return source.rows(rows).flatten(1).int().tolist()


def main(system: str, source: str, folder: str) -> None:
    """Both on that system, and what is then there."""
    machine, is_file = Machine(system), Path.is_file
    Path.is_file = lambda path: not str(path).startswith(("/proc", "/sys")) and is_file(path)
    builtins.__import__ = machine.give
    sys.addaudithook(machine.watch)
    count = len(everything())
    job(source, Path(folder))
    journal = (Path(folder) / "run" / "log.jsonl").read_bytes()
    print(f"{count} modules imported, {journal.count(10)} lines of the journal, {journal.count(13)} of them spoilt")


if __name__ == "__main__":
    main(*sys.argv[1:])
