"""Weights rounded together are those that autocast rounds, and so are their gradients."""

import contextlib
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from unilat.nets import denoiser
from unilat.nets.decoder import Decoder
from unilat.nets.denoiser import Denoiser
from unilat.nets.encoder import Encoder, EncoderConfig
from unilat.nets.low import rounded
from unilat.nets.uvit import UViTConfig
from unilat.nets.vit import ViT, ViTConfig

DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
ENCODER = EncoderConfig(channels=(16, 32), blocks=(1, 1), strides=((2, 2),), patch=(2, 2))
UVIT = UViTConfig(channels=(16,), blocks=(1,), strides=((2, 2),), width=32, depth=2, head_width=16)


def passes(device: str) -> dict[str, Tensor]:
    """Losses and gradients of an encoder, a prior that is called twice and a decoder in bf16, of two passes each."""
    torch.manual_seed(0)
    encoder = Encoder(ENCODER, 3, 4, learned_variance=True)
    prior = Denoiser(ViT(ViTConfig(channels=(32,), blocks=(2,), head_width=16), 4, 2, 0), 2)
    decoder = Decoder(UVIT, ENCODER, 3, 4)
    parts = nn.ModuleDict({"encoder": encoder, "prior": prior, "decoder": decoder}).to(device)
    for weight in parts.parameters():  # what begins at zero hides errors
        nn.init.normal_(weight, std=0.1)
    encoder.precision = prior.precision = decoder.precision = torch.bfloat16
    x, levels = torch.randn(3, 3, 16, 16, device=device), torch.linspace(-2, 2, 3, device=device)
    losses = []
    for _ in range(2):  # gradients of two micro-batches add up
        mean, spread = encoder.posterior(x)
        assert spread is not None
        z = mean + spread.exp()
        loss = prior(prior(z, levels), levels + 1).square().mean() + (decoder(x, levels, z) - x).square().mean()
        loss.backward()
        losses.append(loss.detach())
    found = {name: weight.grad for name, weight in parts.named_parameters() if weight.grad is not None}
    assert all(type(weight) is nn.Parameter and weight.dtype == torch.float32 for weight in parts.parameters())
    return found | {"loss": torch.stack(losses)}


@pytest.mark.parametrize("device", DEVICES)
def test_the_same_numbers_as_by_autocast(device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bit by bit. Kills: a weight of a norm rounded too, a gradient of another weight, one lost or counted twice, a
    weight that stays rounded."""
    together = passes(device)

    @contextlib.contextmanager
    def left(net: Any, dtype: torch.dtype) -> Iterator[None]:
        yield

    monkeypatch.setattr(denoiser, "rounded", left)
    alone = passes(device)
    assert together.keys() == alone.keys() and len(together) > 50
    for name, tensor in alone.items():
        if device == "cpu":
            assert torch.equal(together[name], tensor), name
        else:
            torch.testing.assert_close(together[name], tensor, rtol=1e-2, atol=1e-3, msg=name)


def test_few_calls_round_all_weights() -> None:
    """Kills: a weight that autocast still rounds, blocks that are compiled and handed rounded weights."""
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.GroupNorm(2, 4), nn.Sequential(nn.Conv2d(4, 4, 1), nn.SiLU()))
    kept = [net[0].weight, net[1].weight, net[2][0].weight]
    with rounded(net, torch.bfloat16):
        seen = [weight.dtype for weight in net.state_dict(keep_vars=True).values()]
        assert [net[0].weight.dtype, net[1].weight.dtype] == [torch.bfloat16, torch.float32]
        assert seen.count(torch.bfloat16) == 4
        torch.testing.assert_close(net[2][0].weight.float(), kept[2], rtol=2**-8, atol=0)
    assert [net[0].weight, net[1].weight, net[2][0].weight] == kept
    net[2]._compiled_call_impl = net[2].forward
    with rounded(net, torch.bfloat16):
        assert net[0].weight is kept[0]
    with pytest.raises(RuntimeError, match="inside"), rounded(net.forward, torch.bfloat16):
        raise RuntimeError("inside")
    assert net[0].weight is kept[0]
