"""Files of latents: the right array in the right shape, or one line."""

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from unilat.interop import arrays
from unilat.types import UserError

Z = torch.arange(2 * 3 * 4 * 5, dtype=torch.float32).reshape(2, 3, 4, 5)


def test_the_three_kinds_of_file_agree(tmp_path: Path):
    """Kills axes that move, a precision that is not brought to float32, and the wrong one of several arrays."""
    np.save(tmp_path / "z.npy", Z.double().numpy())
    np.savez(tmp_path / "z.npz", other=np.zeros((7, 2)), latents=Z.half().numpy())
    save_file({"labels": torch.zeros(2, dtype=torch.int64), "z": Z.bfloat16()}, tmp_path / "z.safetensors")
    for name in ("z.npy", "z.npz", "z.safetensors"):
        found = arrays.load(tmp_path / name)
        assert found.dtype == torch.float32 and torch.equal(found, Z)


def test_of_several_arrays_the_latents_are_taken(tmp_path: Path):
    """Kills: the first array of a file for the one that is named, a mean for the latents, a vector for the only
    grid."""
    mean, z, other = np.full((2, 3), 1.0), np.full((2, 3), 2.0), np.full((5, 7), 3.0)
    for given, value in (
        ({"other": other, "mean": mean, "z": z}, 2.0),
        ({"mean": mean, "other": other}, 1.0),
        ({"other": other, "labels": np.arange(5), "weights": np.ones(5)}, 3.0),
    ):
        np.savez(tmp_path / "z.npz", **given)
        assert float(arrays.load(tmp_path / "z.npz").mean()) == value


def test_vectors_get_a_grid_of_one():
    """Numbers stay channels. Kills latents without a grid, which the prior could not take, and one channel of a
    line."""
    found = arrays.checked(np.arange(12, dtype=np.float32).reshape(4, 3), "z")
    assert tuple(found.shape) == (4, 3, 1) and found[1, :, 0].tolist() == [3.0, 4.0, 5.0]


@pytest.mark.parametrize(
    ("array", "told"),
    [
        (np.zeros((4, 3, 2), np.int64), "codes of a codebook"),
        (np.zeros(4, np.float32), r"latents are \[N, C\]"),
        (np.zeros((1, 1, 1, 1, 1, 1), np.float32), r"latents are \[N, C\]"),
        (np.zeros((0, 3, 2), np.float32), "there are no latents"),
        (np.array(["a"]), "numbers, not"),
        ([[1.0, 2.0], [3.0]], "no array of latents"),
    ],
)
def test_what_is_no_latents(array: object, told: str):
    """Kills tracebacks, and audits of whole numbers."""
    with pytest.raises(UserError, match=told):
        arrays.checked(array, "z")


def test_files_that_are_none(tmp_path: Path):
    """Kills a pickle that is opened, and a guess between two arrays."""
    np.save(tmp_path / "objects.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    (tmp_path / "bytes.npy").write_bytes(pickle.dumps([1.0]))
    (tmp_path / "cut.safetensors").write_bytes(b"\x10\0\0\0")
    torch.save({"z": torch.zeros(3, 2)}, tmp_path / "model.pt")
    np.savez(tmp_path / "two.npz", a=np.zeros((2, 3)), b=np.zeros((2, 3)))
    for name in ("objects.npy", "bytes.npy", "cut.safetensors", "two.npz", "none.npy", "model.pt"):
        with pytest.raises(UserError) as error:
            arrays.load(tmp_path / name)
        assert name in str(error.value) and "\n" not in str(error.value)
