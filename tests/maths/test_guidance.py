import pytest
import torch

from unilat.maths.guidance import classifier_free

from .sources import F64

X = torch.tensor([[1.0, 2.0], [3.0, -4.0], [0.5, 0.0]], dtype=F64)
LAMBDA = torch.tensor([-3.0, 0.0, 3.0], dtype=F64)


class Counting:
    """A denoiser whose prediction shows its arguments, and that counts its calls."""

    def __init__(self):
        self.calls = 0

    def __call__(self, x_t, logsnr, cond):
        self.calls += 1
        return x_t * {"cat": 2.0, None: -1.0}[cond] + logsnr[:, None]


def test_guidance_is_a_line_through_two_predictions():
    """Scale 3 lies beyond the conditional prediction, away from the null one. Kills: the direction's sign flipped."""
    guided = classifier_free(Counting(), 3.0, None)
    assert torch.allclose(guided(X, LAMBDA, "cat"), (-1.0 + 3.0 * 3.0) * X + LAMBDA[:, None])


def test_scale_zero_is_unconditional():
    """x_hat_null. Kills: the line started at the conditional prediction."""
    denoise = Counting()
    assert torch.allclose(classifier_free(denoise, 0.0, None)(X, LAMBDA, "cat"), denoise(X, LAMBDA, None))


def test_scale_one_calls_once():
    """The denoiser itself, at half the cost. Kills: the shortcut removed."""
    denoise = Counting()
    assert torch.equal(classifier_free(denoise, 1.0, None)(X, LAMBDA, "cat"), denoise(X, LAMBDA, "cat"))
    assert denoise.calls == 2


@pytest.mark.parametrize(("interval", "factors"), [((0.0, 5.0), (2.0, 8.0, 8.0)), ((-5.0, 0.0), (8.0, 8.0, 2.0))])
def test_interval_is_each_examples_own(interval, factors):
    """Guided inside, both borders included, conditional outside. Kills: the interval turned inside out or open."""
    guided = classifier_free(Counting(), 3.0, None, interval=interval)(X, LAMBDA, "cat")
    factor = torch.tensor(factors, dtype=F64)[:, None]
    assert torch.allclose(guided, factor * X + LAMBDA[:, None])


def test_interval_saves_calls_where_nobody_is_inside():
    """One call. Kills: the early return removed."""
    denoise = Counting()
    classifier_free(denoise, 3.0, None, interval=(10.0, 11.0))(X, LAMBDA, "cat")
    assert denoise.calls == 1
