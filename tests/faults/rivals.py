"""The same four faults against what people train with today: a plain torch.save loop, accelerate, Lightning.

    python -m tests.faults.rivals --site FOLDER --trials 25 --log rivals.txt

``FOLDER`` holds accelerate and pytorch-lightning where they are not installed (``pip install --no-deps -t``). Each is
used as its documentation shows: a save every two steps, the newest checkpoint taken up where there is one. An error
with any message counts as told, a traceback among it, where the next run ends in the oracle's state.
"""

import argparse
import contextlib
import hashlib
import importlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .command import PATIENCE, Child, Ended, forked
from .crashes import place_of
from .damage import WAYS
from .ground import Outcome, bad, chance, clean, ok, silent

STEPS, WIDTH = 12, 64


def _parts() -> tuple[Any, Any]:
    import torch

    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Linear(WIDTH, WIDTH), torch.nn.GELU(), torch.nn.Linear(WIDTH, WIDTH))
    return net, torch.optim.AdamW(net.parameters(), 1e-2)


def _batch(step: int) -> Any:
    import torch

    return torch.randn(32, WIDTH, generator=torch.Generator().manual_seed(step))


def _loss(net: Any, x: Any) -> Any:
    import torch

    return (net(x + 0.1 * torch.randn_like(x)) - x).square().mean()


def _hash(net: Any) -> str:
    values = [value.detach().numpy().tobytes() for _, value in sorted(net.state_dict().items())]
    return hashlib.sha256(b"".join(values)).hexdigest()


def plain(folder: Path, last: int) -> str:
    """As PyTorch's tutorials save and load a general checkpoint."""
    import torch

    (net, optimizer), path, begin = _parts(), folder / "checkpoint.pt", 0
    if path.exists():
        found = torch.load(path, weights_only=True)
        net.load_state_dict(found["model"])
        optimizer.load_state_dict(found["optimizer"])
        torch.set_rng_state(found["random"])
        begin = found["step"]
    for step in range(begin, last):
        optimizer.zero_grad()
        _loss(net, _batch(step)).backward()
        optimizer.step()
        if (step + 1) % 2 == 0:
            state = {"model": net.state_dict(), "optimizer": optimizer.state_dict()}
            torch.save({**state, "step": step + 1, "random": torch.get_rng_state()}, path)
    return _hash(net)


class _Count:
    """The step, as accelerate saves an object."""

    step = 0

    def state_dict(self) -> dict[str, int]:
        return {"step": self.step}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.step = state["step"]


def accelerate(folder: Path, last: int) -> str:
    """``save_state`` with automatic names and two kept, ``load_state`` of the newest."""
    from accelerate import Accelerator  # pyright: ignore[reportMissingImports]
    from accelerate.utils import ProjectConfiguration  # pyright: ignore[reportMissingImports]

    project = ProjectConfiguration(project_dir=str(folder), automatic_checkpoint_naming=True, total_limit=2)
    accelerator, count = Accelerator(cpu=True, project_config=project), _Count()
    net, optimizer = accelerator.prepare(*_parts())
    accelerator.register_for_checkpointing(count)
    there = sorted((folder / "checkpoints").glob("checkpoint_*"), key=lambda path: int(path.name.split("_")[1]))
    if there:
        accelerator.load_state()
        project.iteration = int(there[-1].name.split("_")[1]) + 1
    while count.step < last:
        optimizer.zero_grad()
        accelerator.backward(_loss(net, _batch(count.step)))
        optimizer.step()
        count.step += 1
        if count.step % 2 == 0:
            accelerator.save_state()
    return _hash(accelerator.unwrap_model(net))


def lightning(folder: Path, last: int) -> str:
    """``Trainer`` with ``ModelCheckpoint``, ``ckpt_path="last"``."""
    import pytorch_lightning as pl  # pyright: ignore[reportMissingImports]
    import torch
    from pytorch_lightning.callbacks import ModelCheckpoint  # pyright: ignore[reportMissingImports]

    class Module(pl.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.net, self.made = _parts()

        def training_step(self, batch: Any, index: int) -> Any:
            torch.manual_seed(self.global_step)  # Lightning does not save the random state
            return _loss(self.net, batch[0])

        def configure_optimizers(self) -> Any:
            return self.made

    class Batches(torch.utils.data.Dataset):  # pyright: ignore[reportMissingTypeArgument]
        def __len__(self) -> int:
            return 2

        def __getitem__(self, index: int) -> Any:
            return _batch(index)

    module = Module()
    saving = ModelCheckpoint(folder, every_n_train_steps=2, save_last=True, save_top_k=2, monitor="step", mode="max")
    options: dict[str, Any] = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    trainer = pl.Trainer(max_steps=last, accelerator="cpu", callbacks=[saving], default_root_dir=folder, **options)
    trainer.fit(
        module, torch.utils.data.DataLoader(Batches()), ckpt_path="last" if any(folder.glob("*.ckpt")) else None
    )
    return _hash(module.net)


RIVALS: dict[str, Callable[[Path, int], str]] = {"torch.save": plain, "accelerate": accelerate, "Lightning": lightning}
CALLS = "openat,write,rename,renameat,unlink,unlinkat,mkdir,rmdir"


def _run(rival: str, folder: Path, last: int = STEPS, waits: int = -1) -> Child:
    """The loop in a process of its own; it says the hash of what it ended with. ``waits``: a pipe to read first."""

    def body(counter: object) -> int:
        if waits >= 0:
            os.read(waits, 1)
        folder.mkdir(exist_ok=True, parents=True)
        print("\nfinal", RIVALS[rival](folder, last), flush=True)
        return 0

    return forked(body, folder.with_suffix(".txt"))


def _final(ended: Ended) -> str:
    return ended.said.split("\nfinal ")[1].split()[0] if "\nfinal " in ended.said else ""


def _traced(rival: str, folder: Path, inject: str) -> tuple[Ended, list[str]]:
    """Killed by ``inject``; the system calls that name or write a file of the run, as :func:`place_of` writes them."""
    wait, go = os.pipe()
    child, log = _run(rival, folder, waits=wait), folder.with_suffix(".strace")
    how = ["-e", f"inject={inject}"] if inject else []
    words = ["strace", "-q", "-e", f"trace={CALLS}", *how, "-o", str(log), "-p", str(child.pid)]
    tracer = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    begun = time.monotonic()
    while "TracerPid:\t0\n" in Path(f"/proc/{child.pid}/status").read_text() and time.monotonic() - begun < PATIENCE:
        time.sleep(0.005)
    os.write(go, b".")
    ended = child.wait()
    tracer.wait(10)
    os.close(wait)
    os.close(go)
    lines = log.read_text(errors="replace").splitlines()
    names = [line.split("(")[0] for line in lines]
    own = [k for k, line in enumerate(lines) if str(folder) in line or (line.startswith("write(") and line[6] > "2")]
    return ended, [place_of(names, k) for k in own]


def _after(rival: str, folder: Path, oracle: str, told: str) -> Outcome:
    """What going on comes to."""
    ended = _run(rival, folder).wait()
    if ended.code:
        return bad(f"{told}; does not go on: {ended.line}")
    if _final(ended) != oracle:
        return silent(f"{told}; ends in another state")
    return clean(told) if told else ok("the oracle's state")


def trial(rival: str, fault: str, seed: int, work: Path, oracle: str, calls: list[str]) -> Outcome:
    """One fault against one of them."""
    folder, dice = work / f"{fault}-{seed}", chance(f"{rival} {fault}", seed)
    if fault == "killed":
        call = dice.choice(calls)
        ended, _ = _traced(rival, folder, call)
        if ended.code != -signal.SIGKILL:
            return bad(f"the trial itself failed: not killed at {call}")
        found = _after(rival, folder, oracle, "")
        return Outcome(found.name, f"killed at call {call}: {found.seen}")
    if fault == "full":
        folder.mkdir()
        need = sum(path.stat().st_size for path in (work / "oracle").rglob("*") if path.is_file()) // 1024
        kib = 4 * round(dice.uniform(0.05, 1.2) * need / 4) + 4
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={kib}k", "tmpfs", str(folder)], check=True)
        try:
            ended = _run(rival, folder / "run").wait()
            if ended.code == 0:
                return ok(f"{kib} KiB") if _final(ended) == oracle else silent(f"{kib} KiB: exit 0, another state")
            subprocess.run(["mount", "-o", f"remount,size={99 * need}k", str(folder)], check=True)
            return _after(rival, folder / "run", oracle, f"{kib} KiB: {ended.line}")
        finally:
            subprocess.run(["umount", "-l", str(folder)], check=True)
    _run(rival, folder, 8).wait()
    newest = max((path for path in folder.rglob("*") if path.is_file()), key=lambda path: path.stat().st_mtime_ns)
    around = [path for path in newest.parent.iterdir() if path.is_file()] if rival == "accelerate" else [newest]
    path = dice.choice(sorted(around))
    path.write_bytes(WAYS[fault](path.read_bytes(), dice))
    ended = _run(rival, folder).wait()
    if ended.code:
        return clean(f"{path.name} {fault}: {ended.line}")
    same = _final(ended) == oracle
    return ok(f"{path.name} {fault}: the same") if same else silent(f"{path.name} {fault}: another state, exit 0")


FAULTS = ("killed", "flipped", "truncated", "full")


def main() -> None:
    """All rivals that can be imported, all faults."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults.rivals", description=__doc__)
    parser.add_argument("--site", type=Path, help="folder with accelerate and pytorch_lightning")
    parser.add_argument("--trials", type=int, default=25)
    parser.add_argument("--log", type=Path, required=True)
    parser.add_argument("--only", nargs="*", choices=[*RIVALS], default=[*RIVALS])
    options = parser.parse_args()
    if options.site:
        sys.path.append(str(options.site))
    import torch

    torch.set_num_threads(1)
    for name in ("torch._dynamo", "torch.utils.data", "accelerate", "pytorch_lightning.callbacks"):
        with contextlib.suppress(ImportError):
            importlib.import_module(name)  # once for all children
    place = Path(tempfile.mkdtemp(prefix="unilat-rivals-"))
    with options.log.open("a") as log:
        for rival in options.only:
            work = place / rival
            work.mkdir()
            ended = _run(rival, work / "oracle").wait()
            _run(rival, work / "halves", 8).wait()
            if ended.code or _final(_run(rival, work / "halves").wait()) != _final(ended):
                print(f"{rival} cannot be run here: {ended.said[-300:]}")
                continue
            calls = _traced(rival, work / "counted", "")[1]
            for fault in FAULTS:
                for seed in range(options.trials):
                    outcome = trial(rival, fault, seed, work, _final(ended), calls)
                    print(f"{rival} {fault}, {seed}, {outcome.name}, {outcome.seen}", file=log, flush=True)
    shutil.rmtree(place, ignore_errors=True)


if __name__ == "__main__":
    main()
