"""Distillation: one DDIM step of the target lands where the teacher's several did; files refuse what is not theirs."""

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from nets.samples import shaken, signal
from unilat.files import read_safetensors, write_safetensors
from unilat.maths.oracle import Gaussian
from unilat.maths.samplers import ddim, dpmpp_2m, uniform_grid
from unilat.models.few_steps import FewSteps, coarse, distillation_loss, segments
from unilat.types import UserError

TEACHER = Gaussian(torch.tensor([0.2, 1.5, 0.7]), torch.tensor([0.4, -0.3, 0.0]))
GRIDS = {"to noise λ₀": uniform_grid(-8.0, 5.0, 12), "to clean": uniform_grid(-6.0, 3.0, 12, to_clean=True)}


def _teacher(x: Tensor, logsnr: Tensor, cond: float) -> Tensor:
    return cond * TEACHER.denoise(x, logsnr)


@pytest.mark.parametrize("every", [1, 3, 12])
@pytest.mark.parametrize("sampler", [ddim, dpmpp_2m])
@pytest.mark.parametrize("grid", GRIDS.values(), ids=GRIDS)
def test_one_step_of_the_target_lands_where_the_teacher_does(grid: Tensor, sampler, every: int) -> None:
    """Kills: α and σ of the wrong end, κ turned over, points of the path that are one off, an end that is left out."""
    x = torch.randn(4, 3, generator=torch.Generator().manual_seed(0))
    path = segments(_teacher, x, grid, every, sampler, 1.1)
    assert [one.logsnr for one in path] == coarse(grid, every)[:-1].tolist()
    told = iter(path)

    def student(x_t: Tensor, logsnr: Tensor, cond: None) -> Tensor:
        one = next(told)
        torch.testing.assert_close(x_t, one.x_t, rtol=1e-4, atol=1e-5)
        assert float(logsnr[0]) == pytest.approx(one.logsnr)
        return one.x_hat

    landed = ddim(student, x, coarse(grid, every), generator=())
    torch.testing.assert_close(landed, sampler(_teacher, x, grid, generator=(), cond=1.1), rtol=1e-4, atol=1e-5)


def test_a_student_that_calls_as_often_is_its_teacher() -> None:
    """Kills: a condition that is not passed on, and a target that is no prediction of the teacher's."""
    x = torch.randn(4, 3, generator=torch.Generator().manual_seed(0))
    path = segments(_teacher, x, GRIDS["to clean"], 1, ddim, 1.1)
    assert float(distillation_loss(_teacher, path, 1.1).max()) < 1e-8
    assert float(distillation_loss(_teacher, path, 1.0).min()) > 1e-5


def test_the_loss_is_half_the_squares_and_the_last_call_hears_the_truth() -> None:
    """½ Σ_i ‖·‖² over calls and dimensions of an example. Kills: means, a truth the first call hears, no weight."""
    x = torch.randn(4, 3, generator=torch.Generator().manual_seed(0))
    path = segments(_teacher, x, GRIDS["to clean"], 6, ddim, 1.0)
    truth = torch.arange(12.0).view(4, 3)

    def wrong(x_t: Tensor, logsnr: Tensor, cond: None) -> Tensor:
        one = path[0] if float(logsnr[0]) == pytest.approx(path[0].logsnr) else path[1]
        return one.x_hat + (1.0 if one is path[0] else 2.0)

    plain = 0.5 * (3 * 1.0 + 3 * 4.0)
    torch.testing.assert_close(distillation_loss(wrong, path, None), torch.full((4,), plain))
    heard = plain + 0.5 * 0.7 * (truth - path[1].x_hat - 2.0).square().sum(1)
    torch.testing.assert_close(distillation_loss(wrong, path, None, truth, 0.7), heard)


def test_grids_that_do_not_divide_are_refused() -> None:
    """Kills: a student's grid that ends before the teacher's."""
    with pytest.raises(UserError, match="no multiple of 5"):
        coarse(GRIDS["to clean"], 5)


class Net(nn.Module):
    """A denoiser of one parameter that is no buffer's."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(3, 3)

    def forward(self, x: Tensor, logsnr: Tensor, cond: None = None) -> Tensor:
        return self.inner(x)


def test_a_student_comes_back_from_its_file(tmp_path: Path) -> None:
    """Kills: a lost +inf at the grid's end, a forgotten temperature, the teacher's weights for the student's, or the
    student's in the teacher."""
    teacher, student = Net(), shaken(Net(), 5)
    path = tmp_path / "fast.safetensors"
    few = FewSteps(student, coarse(GRIDS["to clean"], 6), 0.25)
    few.save(path, teacher, settings="{}")
    untouched = {name: weight.clone() for name, weight in teacher.state_dict().items()}
    back = FewSteps.load(path, teacher)
    assert all(torch.equal(weight, untouched[name]) for name, weight in teacher.state_dict().items())
    assert back.calls == 2 and back.grid[-1] == math.inf and back.temperature == 0.25
    x = signal(1)[:, :, :3]
    assert torch.equal(back.sample(x, None), few.sample(x, None))
    assert torch.equal(few.sample(x, None), ddim(student, 0.25 * x, few.grid, generator=()))


def test_files_of_others_are_refused(tmp_path: Path) -> None:
    """Kills: a student of another network, which would make plausible nonsense."""
    teacher, path = Net(), tmp_path / "fast.safetensors"
    with pytest.raises(UserError, match="unilat distill"):
        FewSteps.load(path, teacher)
    FewSteps(Net(), coarse(GRIDS["to clean"], 12)).save(path, teacher)
    with pytest.raises(UserError, match="another network"):
        FewSteps.load(path, shaken(Net(), 7))
    tensors, header = read_safetensors(path)
    write_safetensors(path, tensors, {name: value for name, value in header.items() if name not in ("grid", "sha256")})
    with pytest.raises(UserError, match="damaged"):
        FewSteps.load(path, teacher)
    write_safetensors(path, tensors, {})
    with pytest.raises(UserError, match="no distilled network"):
        FewSteps.load(path, teacher)
