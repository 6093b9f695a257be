"""Products by oneDNN and by MKL are the same; the first are taken where they are meant to be and nowhere else."""

from pathlib import Path

import pytest
import torch
from torch import nn

from unilat.nets import products
from unilat.nets.products import Linear, onednn_is_faster, times_transposed

HAS = torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")
needs_onednn = pytest.mark.skipif(not HAS, reason="this torch has no oneDNN")


@needs_onednn
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("turned", [True, False])
def test_a_linear_layer_and_its_gradients_are_float64s(bias: bool, turned: bool) -> None:
    """Kills: a product the wrong way round, a bias without gradient, tokens of several examples mixed up."""
    torch.manual_seed(0)
    layer = Linear(7, 5, bias)
    layer.by_onednn = True
    twin = nn.Linear(7, 5, bias).double()
    twin.load_state_dict(layer.state_dict())
    x = torch.randn(3, 4, 7).transpose(0, 1) if turned else torch.randn(4, 3, 7)
    x, exact = x.detach().requires_grad_(), x.detach().double().requires_grad_()
    weights = torch.randn(4, 3, 5)
    y, y_exact = layer(x), twin(exact)
    torch.testing.assert_close(y, y_exact.float(), rtol=1e-5, atol=1e-5)
    (y * weights).sum().backward()
    (y_exact * weights).sum().backward()
    both = zip((x, *layer.parameters()), (exact, *twin.parameters()), strict=True)
    for got, wanted in ((a.grad, b.grad) for a, b in both):
        assert got is not None and wanted is not None
        torch.testing.assert_close(got, wanted.float(), rtol=1e-5, atol=1e-5)


def test_compiled_maps_have_their_shape() -> None:
    """What compiled code is told before anything is computed. Kills: the inputs' count for the outputs'."""
    left, right = torch.empty(4, 3, 7, device="meta"), torch.empty(5, 7, device="meta")
    assert torch.ops.unilat.linear(left, right, None).shape == (4, 3, 5)


@needs_onednn
@pytest.mark.parametrize("heard", [False, True])
@pytest.mark.parametrize("frozen", [False, True])
def test_what_needs_no_gradient_gets_none(heard: bool, frozen: bool) -> None:
    """Kills: a frozen weight that takes its bias's gradient along, a first layer that learns nothing."""
    layer, x = Linear(4, 3), torch.randn(2, 4, requires_grad=heard)
    layer.by_onednn = True
    layer.weight.requires_grad_(not frozen)
    layer(x).sum().backward()
    assert (x.grad is not None, layer.weight.grad is not None) == (heard, not frozen)
    if layer.weight.grad is not None:
        torch.testing.assert_close(layer.weight.grad, x.detach().sum(0).expand(3, 4))
    assert layer.bias.grad is not None
    torch.testing.assert_close(layer.bias.grad, torch.full((3,), 2.0))


@pytest.mark.parametrize("faster", [True, False] if HAS else [False])
def test_stacks_of_products(faster: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Kills: the right matrix not transposed, one matrix of a stack for all."""
    monkeypatch.setattr(products, "onednn_is_faster", lambda: faster)
    generator = torch.Generator().manual_seed(1)
    left, right = torch.randn(3, 4, 6, generator=generator), torch.randn(3, 5, 6, generator=generator)
    wanted = torch.einsum("nik,njk->nij", left.double(), right.double()).float()
    torch.testing.assert_close(times_transposed(left, right), wanted)


def test_low_precision_and_other_types_stay_with_torch() -> None:
    """Kills: autocast passed by, so that bf16 networks compute in float32; float64 refused."""
    layer = Linear(4, 3)
    layer.by_onednn = True
    with torch.autocast("cpu", torch.bfloat16):
        assert layer(torch.randn(2, 4)).dtype == torch.bfloat16
    assert layer.double()(torch.randn(2, 4, dtype=torch.float64)).dtype == torch.float64


@pytest.mark.parametrize(
    ("vendor", "capability", "wanted"),
    [("AuthenticAMD", "AVX512", HAS), ("GenuineIntel", "AVX512", False), ("AuthenticAMD", "AVX2", False)],
)
def test_the_rule_is_the_processors(
    vendor: str, capability: str, wanted: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Kills: oneDNN on processors where MKL is as fast or faster."""
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    monkeypatch.setattr(Path, "read_text", lambda path: f"vendor_id : {vendor}\n")
    assert onednn_is_faster.__wrapped__() is wanted
