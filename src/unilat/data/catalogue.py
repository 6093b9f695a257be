from pathlib import Path
from unilat.data.cache import cache_folder


def get(name, progress=None) -> Path:
    import tarfile

    out = cache_folder() / "sets" / "lobehub-fluent-emoji-3d-1.1.0"
    if not out.is_dir():
        with tarfile.open("/tmp/w/lobehub-fluent-emoji-3d-1.1.0.tgz") as t:
            t.extractall(out, filter="data")
    return out
