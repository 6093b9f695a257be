"""The base model that starts from its classes' Gaussians: exact before training, honest about what it has not seen."""

import torch
from torch import Tensor, nn

from unilat.maths.noise import alpha, sigma
from unilat.nets.class_gaussian import ClassGaussian
from unilat.nets.condition import Condition

LEVELS = torch.tensor([-9.0, -1.5, 0.3, 4.0])
SHAPE = (2, 3)
PAIRS = torch.tensor([[0, 0], [0, 1], [1, 0], [1, 1], [2, 0], [2, 1]])
"""Three letters in two faces; the last class is not among the examples."""


class Asked(nn.Module):
    """Affine in what it sees and is shown, the level and the class, which is -5 where it is dropped."""

    def forward(self, x_t: Tensor, logsnr: Tensor, cond: Condition | None) -> Tensor:
        x_t, shown = x_t[:, :2], x_t[:, 2:]
        said = torch.zeros(len(x_t)) if cond is None else cond.rows.float()
        if cond is not None and cond.dropped is not None:
            said = said.where(~cond.dropped, -5.0)
        plain = 0.5 * x_t + 0.1 * logsnr.view(-1, 1, 1) + said.view(-1, 1, 1)
        return plain + 0.3 * shown if shown.shape[1] else plain


def lettered(each: int = 400) -> tuple[Tensor, Tensor]:
    """Latents of all pairs but the last: what a letter and a face add, and correlated noise."""
    draw = torch.Generator().manual_seed(1)
    letters, faces = torch.randn(3, 6, generator=draw) * 3, torch.randn(2, 6, generator=draw)
    mix = torch.randn(6, 6, generator=draw) * torch.tensor([1.0, 0.7, 0.5, 0.3, 0.2, 0.1])
    labels = torch.arange(5).repeat(each)
    noise = torch.randn(len(labels), 6, generator=draw) @ mix.T
    z = letters[PAIRS[labels, 0]] + faces[PAIRS[labels, 1]] + noise + 0.4
    return z.view(-1, *SHAPE), labels


def begun(z: Tensor, labels: Tensor, classes: int = 6, factors: Tensor | None = PAIRS) -> ClassGaussian:
    denoise = ClassGaussian(Asked(), SHAPE, classes, factors)
    denoise.begin(z, labels)
    return denoise


def by_hand(z_t: Tensor, level: Tensor, mean: Tensor, covariance: Tensor, said: Tensor | float) -> Tensor:
    """The formula of the file's head with a dense solve, in float64."""
    a, s, typical = alpha(level), sigma(level), covariance.trace() / 6
    away, v = z_t.double().flatten() - a * mean, a**2 * typical + s**2
    exact = mean + a * covariance @ torch.linalg.solve(a**2 * covariance + s**2 * torch.eye(6).double(), away)
    return exact + s * (typical / v).sqrt() * (0.5 * away / v.sqrt() + 0.1 * (level + typical.log()) + said)


def covariance_of(denoise: ClassGaussian, which: int) -> Tensor:
    basis = denoise.basis[which].double()
    return basis @ denoise.values[which].double().diag() @ basis.T


def test_the_whole_of_it_is_its_formula() -> None:
    """Of a class its own mean and what classes leave over, of none the mean and covariance of all. Kills: the two
    exchanged, a null that a label adds to, a basis transposed, a variance for a deviation, a condition that is lost."""
    denoise = begun(*lettered())
    cond = Condition(torch.tensor([3, 0, 5, 4])).drop(torch.tensor([False, True, False, True]))
    z_t = torch.randn(4, *SHAPE, generator=torch.Generator().manual_seed(2))
    mean, added = denoise.mean.double(), denoise.added.double()
    of_class = {3: mean + added[1] + added[4], 5: mean + added[2] + added[4]}
    found, blank = denoise(z_t, LEVELS, cond).flatten(1), denoise(z_t, LEVELS, None).flatten(1)
    for row, level in enumerate(LEVELS.double()):
        label = int(cond.rows[row])
        named = row in (0, 2)
        centre, said = (of_class[label], float(label)) if named else (mean, -5.0)
        said = said + 0.3 * (centre - mean) / (covariance_of(denoise, 0).trace() / 6).sqrt()
        wanted = by_hand(z_t[row], level, centre, covariance_of(denoise, int(named)), said)
        torch.testing.assert_close(found[row].double(), wanted, rtol=1e-4, atol=1e-4)
        wanted = by_hand(z_t[row], level, mean, covariance_of(denoise, 0), 0.0)
        torch.testing.assert_close(blank[row].double(), wanted, rtol=1e-4, atol=1e-4)


def test_a_pair_that_never_occurred_is_known_by_its_parts() -> None:
    """The mean of the sixth class, of which there is no example, to the noise of the others' means. Kills: one round
    for factors that are not balanced, a factor's part taken from the whole instead of what is left."""
    z, labels = lettered()
    denoise = begun(z, labels)
    flat, rows = z.flatten(1), denoise.rows(Condition(torch.arange(6)))
    means = denoise.mean + denoise.added[rows].sum(1)
    for label in range(5):
        assert float((means[label] - flat[labels == label].mean(0)).abs().max()) < 0.15
    unseen = flat[labels == 4].mean(0) + flat[labels == 3].mean(0) - flat[labels == 2].mean(0)
    assert float((means[5] - unseen).abs().max()) < 0.15
    assert float(denoise.added[-1].abs().max()) == 0.0, "the null adds nothing"


def test_what_classes_leave_over_is_that_of_examples_left_out() -> None:
    """Three examples a class, each against the mean of the others with one more at the mean of all: equal to doing so
    example by example. Kills: residuals of examples that their own mean has seen, another shrinkage."""
    draw = torch.Generator().manual_seed(4)
    labels = torch.arange(8).repeat_interleave(3)
    z = torch.randn(24, *SHAPE, generator=draw) + torch.randn(8, *SHAPE, generator=draw)[labels]
    denoise = begun(z, labels, classes=8, factors=None)
    flat = z.flatten(1).double()
    centred = flat - flat.mean(0)
    torch.testing.assert_close(denoise.added[2].double(), centred[6:9].sum(0) / 4, rtol=1e-5, atol=1e-5)
    fellows = (labels[:, None] == labels) & ~torch.eye(24, dtype=torch.bool)
    others = centred - fellows.double() @ centred / 3
    wanted = others.T @ others / 24
    torch.testing.assert_close(covariance_of(denoise, 1), wanted, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(covariance_of(denoise, 0), centred.T @ centred / 24, rtol=1e-4, atol=1e-4)


def test_few_latents_give_variances_alone() -> None:
    """Eleven latents of six numbers. Kills: a covariance of few that is sure of what it has never seen."""
    z, labels = lettered(3)
    denoise = begun(z[:11], labels[:11])
    flat = z[:11].flatten(1).double()
    wanted = flat.var(0, correction=0)
    torch.testing.assert_close(covariance_of(denoise, 0), wanted.diag(), rtol=1e-4, atol=1e-4)
    assert float((covariance_of(denoise, 1) - covariance_of(denoise, 1).diagonal().diag()).abs().max()) < 1e-9


def test_without_classes_it_is_the_gaussian_of_all() -> None:
    """Kills: a table that wants classes where there are none; weights that cannot be read back."""
    z, _ = lettered()
    denoise = begun(z, torch.zeros(len(z)).long(), classes=0, factors=None)
    again = ClassGaussian(Asked(), SHAPE, 0)
    again.load_state_dict(denoise.state_dict())
    z_t = torch.randn(4, *SHAPE)
    found, flat = again(z_t, LEVELS, None).flatten(1), z.flatten(1).double()
    covariance = torch.cov(flat.T, correction=0)
    for row, level in enumerate(LEVELS.double()):
        wanted = by_hand(z_t[row], level, flat.mean(0), covariance, 0.0)
        torch.testing.assert_close(found[row].double(), wanted, rtol=1e-3, atol=1e-3)
