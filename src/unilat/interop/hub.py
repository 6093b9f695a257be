"""A folder handed to the Hugging Face hub, by its own client; nothing is fetched, and errors end in one line."""

import re
from pathlib import Path
from typing import Any, Protocol

from unilat.types import UserError

_NAME = re.compile(r"([\w.-]{1,96}/)?[\w.-]{1,96}")


class Api(Protocol):
    """What is used of ``huggingface_hub.HfApi``."""

    def create_repo(self, repo_id: str, *, private: bool, exist_ok: bool) -> Any:
        """The repository, made where there is none."""
        ...

    def upload_folder(self, *, repo_id: str, folder_path: str, commit_message: str) -> Any:
        """Every file of a folder as one commit."""
        ...


def check_name(repo: str) -> None:
    """Raise :class:`UserError` for what is no name of a repository, or where the client is not installed."""
    if not _NAME.fullmatch(repo):
        raise UserError(f"`push` takes the name of a repository, NAME or OWNER/NAME, not {repo[:60]!r}")
    try:
        import huggingface_hub  # noqa: F401  # pyright: ignore[reportUnusedImport]
    except ImportError:
        raise UserError("to push needs the package huggingface_hub: pip install 'unilat[diffusers]'") from None


def push(folder: Path, repo: str, api: Api | None = None) -> str:
    """Upload ``folder`` and return where it lies; a repository that is not there is made, private.

    Raises :class:`UserError` with what the hub or the network said; the folder stays.
    """
    if api is None:
        from huggingface_hub import HfApi

        api = HfApi()
    try:
        made = api.create_repo(repo, private=True, exist_ok=True)
        repo_id = str(getattr(made, "repo_id", repo))
        api.upload_folder(repo_id=repo_id, folder_path=str(folder), commit_message="Export of unilat")
    except Exception as error:  # of the client, of its transport, or of the hub: each has classes of its own
        said = " ".join(str(error).split())[:200] or type(error).__name__
        raise UserError(
            f"{folder} is written, but was not pushed to {repo} ({said}): `hf auth login` gives a token; or upload the "
            f"folder yourself, `hf upload {repo} {folder}`"
        ) from None
    return str(made)
