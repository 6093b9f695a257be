"""The stages as the engine sees them: examples, losses and what moves between steps."""

import contextlib
import copy
import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Literal

import torch
from torch import Tensor

from unilat.fields import FieldError
from unilat.files import digest
from unilat.maths.levels import rate_table
from unilat.maths.noise import diffuse
from unilat.maths.rate import LN2, rate_terms
from unilat.maths.seeds import Draws, seeded
from unilat.models.autoencoder import Autoencoder
from unilat.models.base import Base
from unilat.models.control import RateController
from unilat.models.latents import fingerprint
from unilat.models.placing import Placing
from unilat.models.posterior import Posterior
from unilat.models.shards import Rows
from unilat.nets.gaussian import GaussianDenoiser, LatentDenoiser
from unilat.recipe.config import Stage1Config, Stage2Config
from unilat.signals import kind_of
from unilat.signals.stream import Part
from unilat.training.plan import Batch, Saved, Schedule, Stage, still
from unilat.types import UserError

REACH = 0.5
"""Change of ln scale that brings the latents to the wanted bits after the last step, as a rule."""
FARTHEST = 2.0
"""Largest change, where the rule does not hold."""
CLOSE = 0.005
"""Share of the wanted bits that may be missing at the end of what was searched."""
LATENTS = 8192
"""Noisy latents behind each rate of the search: more pictures have fewer noise levels each, from 8 down to 2."""


class AutoencoderStage:
    """Stage 1 on uint8 pictures ``[N, C, H, W]``; the controller holds the rate at the wanted bits per pixel.

    ``calibration`` are training pictures set aside: on them the rate of the averaged weights is measured, and the
    controller aims so that *this* rate is the wanted one, or ``aim`` until the prior has settled. No loss factor moves
    the bits of an encoder that is kept: the controller's integral moves the scale of its latents in its place. With
    ``flip`` training sees each picture or its mirror image, and with a part that cuts at random another cut in each
    epoch; whatever is measured is of the pictures as they are.
    """

    def __init__(
        self,
        model: Autoencoder,
        pictures: Tensor | Part,
        calibration: Tensor,
        config: Stage1Config,
        aim: float | None = None,
        flip: bool = False,
    ):
        self.aim, self.flip = config.target_bpp if aim is None else aim, flip
        self.model, self.pictures, self.calibration, self.config = model, pictures, calibration, config
        self.kind, self.count = kind_of(pictures.shape), len(pictures)
        self.dimensions = math.prod(self.kind.shape)
        self.cut = pictures if isinstance(pictures, Part) and pictures.random else None
        self.frozen = model.config.frozen
        control = replace(config.control, proportional=0.0, start=1.0) if self.frozen else config.control
        self.controller = RateController(self.aim, control, config.loss_factor)
        self.eval_every = max(1, config.calibrate_every // config.batch)
        self.samples, self.stuck = 0, 0
        self._factor: Tensor | None = None
        self._averaged = copy.deepcopy(model).eval().requires_grad_(False)

    def stage(self) -> Stage:
        """This stage for the engine."""
        return Stage(
            name="stage1",
            model=self.model,
            count=self.count,
            batch=self.batch,
            losses=self.losses,
            after_step=self.after_step,
            reads_model=isinstance(self.model.prior, GaussianDenoiser),
            observe=self.observe,
            state=self.state,
            load_state=self.load_state,
            calibrate=self.calibrate,
            eval_every=self.eval_every,
            by_epoch=self.cut is not None,
            hold=self.hold,
            uncaptured=self.uncaptured(),
            blocks=self.pictures.blocks if isinstance(self.pictures, Part) else None,
        )

    def batch(self, indices: Tensor) -> Batch:
        """Pictures as they lie there, or cut at random where ``indices`` tell epochs too; uint8 ``[b, C, H, W]``."""
        return (self._seen(indices),)

    def _seen(self, numbers: Tensor) -> Tensor:
        return self.pictures[numbers] if self.cut is None else self.cut.seen(numbers)

    def losses(self, batch: Batch, draws: Draws) -> tuple[Tensor, dict[str, Tensor]]:
        """``(R + c_lf L) / max(1, c_lf)`` in nats per dimension of the data, and its parts."""
        share = min(1.0, self.samples / self.config.prior_warmup) if self.config.prior_warmup else 1.0
        x = self.kind.to_unit(batch[0])
        terms = self.model.losses(mirrored(x, draws) if self.flip else x, draws, share, *batch[1:])
        total = terms.total(self.loss_factor if self._factor is None else self._factor) / self.dimensions
        told = {"bpp": terms.rate.nats().detach() / (LN2 * self.kind.units), "decoder": terms.decoder.detach()}
        if self.config.levels == "learned":
            told["prior_levels"] = self.model.rate_levels.observe(
                terms.rate.lambda_t, terms.rate.diffusion.flatten(1).sum(1)
            )
            if terms.decoder_lambda is not None:
                told["decoder_levels"] = self.model.decoder_levels.observe(terms.decoder_lambda, terms.decoder)
        return total, told

    @property
    def loss_factor(self) -> float:
        """c_lf now; where the encoder is kept, prior and decoder learn apart, and it weighs nothing against nothing."""
        return 1.0 if self.frozen else self.controller.factor

    @contextlib.contextmanager
    def hold(self, device: torch.device) -> Iterator[Callable[[], object]]:
        """The loss factor and the tables of levels, in tensors that stay where they are."""
        self._factor = factor = torch.zeros((), device=device)
        with held(device, self.model.rate_levels, self.model.decoder_levels):
            try:
                yield lambda: factor.fill_(self.loss_factor)
            finally:
                self._factor = None

    def uncaptured(self) -> str:
        """What a captured step could not follow."""
        if self.config.prior_warmup:
            return "the rate's share moves while the prior warms up"
        if isinstance(self.model.prior, GaussianDenoiser):
            return "the prior's covariance is decomposed between steps"
        own = self.model.charge != self.model.price.charge
        return "a charge of your own may ask the host" if own else ""

    def observe(self, sums: dict[str, Tensor]) -> None:
        """Place the next step's noise levels by what this one's have shown."""
        self.model.rate_levels.learn(sums["prior_levels"])
        if "decoder_levels" in sums:
            self.model.decoder_levels.learn(sums["decoder_levels"])

    def after_step(self, metrics: dict[str, float], samples: int) -> dict[str, float]:
        """Move the loss factor; stop when it has long been at its limit, because no factor reaches the wanted bits."""
        if samples // self.config.follow_every > self.samples // self.config.follow_every:
            self.follow(samples)
        self.samples = samples
        used, before = self.loss_factor, self.controller.factor
        after = self.controller.update(metrics["bpp"], self.config.batch)
        if self.frozen:
            self.model.rescale(after / before)
        self.stuck = self.stuck + self.config.batch if self.controller.at_limit() else 0
        if self.stuck > 20_000:
            few, foreign = metrics["bpp"] < (self.aim or 0), self.model.config.foreign is not None
            channels = "autoencoder.latent_channels"
            raise FieldError(
                f"{self.config.target_bpp:g} bits per pixel are out of this latent's reach: the rate stands at "
                f"{metrics['bpp']:.3g} with the {'scale' if self.frozen else 'loss factor'} at its limit "
                f"{after if self.frozen else used:.3g}; ask for "
                + ("more bits" if not few else "fewer bits" if foreign else "fewer bits, or more " + channels)
            )
        told = {"loss_factor": used, "target": self.aim or math.nan}
        return told | {"scale": after} if self.frozen else told

    @torch.no_grad()
    def follow(self, samples: int) -> None:
        """Bring the prior's covariance halfway to that of some training pictures' latents, the same on resuming."""
        prior = self.model.prior
        if not isinstance(prior, GaussianDenoiser):
            return
        count = min(self.count, max(1024, 2 * prior.mean.numel()))
        chosen = torch.randperm(self.count, generator=torch.Generator().manual_seed(samples))[:count]
        epoch = samples // self.count if self.cut else 0
        prior.follow(self.latents(self._seen(chosen + self.count * epoch), samples), 0.5)

    @torch.no_grad()
    def latents(self, pictures: Tensor | Part, seed: int, most: int | None = None) -> Tensor:
        """Latents of uint8 ``pictures``, draws where the encoder learned a variance; on the model's device.

        ``most``: of so many of them at the most, by chance.
        """
        draws, device = Draws.keyed(0, seed, 0, 256), next(self.model.parameters()).device
        rows = torch.arange(len(pictures))
        if most is not None and most < len(pictures):
            rows = torch.randperm(len(pictures), generator=seeded("latents", seed))[:most].sort().values
        parts = (pictures[some] for some in rows.split(256))
        units = (self.kind.to_unit(part).to(device) for part in parts)
        return torch.cat([self.model.posterior(x).draw(draws.normal) for x in units])

    def settled(self) -> Stage:
        """What comes after the last step: the prior alone, on the latents as they are now and their whole covariance.

        Its noise levels reach as far above λ₀ as :meth:`trim` may ask for. As many latents as it will see are enough.
        """
        prior, config = self.model.prior, self.model.config
        z = self.latents(self.pictures, self.samples, self.config.settle or None)
        if isinstance(prior, GaussianDenoiser):
            prior.follow(z)
        highest, encoder = config.lambda_0 + 2 * REACH, fingerprint(self.model.encoder)
        return prior_stage(prior, z.cpu(), lambda_0=highest, lambda_min=config.lambda_min, known=encoder)

    def calibrate(self, ema: dict[str, Tensor], step: int) -> dict[str, float]:
        """Bits per pixel of the averaged weights on the calibration pictures."""
        if not len(self.calibration) or step * self.config.batch < 4 * self.config.ema_halflife:
            return {}  # the average still remembers the start
        measured = self.calibration_rate(self.averaged(ema), 2, step)
        self.controller.calibrate(measured)
        return {"calibration_bpp": measured}

    def averaged(self, ema: dict[str, Tensor]) -> Autoencoder:
        """The one model of averaged weights, with these in it, on their device."""
        self._averaged.to(next(iter(ema.values())).device).load_state_dict(ema)
        return self._averaged

    @torch.no_grad()
    def calibration_rate(self, model: Autoencoder, levels: int, seed: int) -> float:
        """Bits per pixel of ``model`` on the calibration pictures, ``levels`` noise levels each."""
        device = next(model.parameters()).device
        found = [model.posterior(self.kind.to_unit(part).to(device)) for part in self.calibration.split(256)]
        spread = [one.log_variance for one in found if one.log_variance is not None]
        posterior = Posterior(torch.cat([one.mean for one in found]), torch.cat(spread) if spread else None)
        draws = Draws.keyed(0, seed, 0, len(self.calibration))
        z, entropy = posterior.draw(draws.normal), posterior.entropy(model.config.lambda_0)
        nats = [model.rate(z, draws).less(entropy).nats().mean() for _ in range(levels)]
        return float(torch.stack(nats).mean()) / (LN2 * self.kind.units)

    def trim(self, model: Autoencoder, reach: float = REACH, target: float | None = None) -> dict[str, float]:
        """After the last step: rescale the latents so that the calibration pictures carry the wanted bits.

        Bisection on ln scale within ``reach``, the same noise each time; where that ends at ``reach``, once more from
        there on, up to :data:`FARTHEST`. The controller leaves little to do: it cannot follow the last of the learning
        rate's fall, or the first of a short run; where the prior was settled, the bits that this saved come back as
        less noise. Returns the rate before and after, and the scale. Of a normal price nothing moves. ``target``: other
        bits than the wanted ones.
        """
        target = self.config.target_bpp if target is None else target
        if target is None or not len(self.calibration):
            return {}
        levels = max(2, min(8, LATENTS // len(self.calibration)))
        before = after = self.calibration_rate(model, levels, 0)
        if model.config.price == "normal":
            return {"calibration_bpp": before}  # the price is against N(0, I), whatever the latents' scale
        low, high, now, edge = -reach, reach, 0.0, reach
        while True:
            last = abs(after - target)
            for _ in range(8):
                low, high = (now, high) if after < target else (low, now)
                model.rescale(math.exp((low + high) / 2 - now))
                now = (low + high) / 2
                after = self.calibration_rate(model, levels, 0)
            off = abs(after - target)
            if edge - abs(now) > reach / 64 or edge >= FARTHEST or not CLOSE * target < off < last:
                break
            edge += reach  # it ended where the search did, and came nearer: on from there
            low, high = (now, edge) if now > 0 else (-edge, now)
        if abs(after - target) > abs(before - target):  # a rate that does not rise with the scale
            model.rescale(math.exp(-now))
            after, now = before, 0.0
        return {"calibration_bpp": after, "untrimmed_bpp": before, "scale": math.exp(now)}

    def state(self) -> Saved:
        """The controller's state and the counts."""
        return {"controller": self.controller.state(), "samples": self.samples, "stuck": self.stuck}

    def load_state(self, state: Saved) -> None:
        """Go on from :meth:`state`."""
        controller, samples, stuck = (state.get(name) for name in ("controller", "samples", "stuck"))
        if not (isinstance(controller, dict) and isinstance(samples, int) and isinstance(stuck, int)):
            raise UserError("this stage 1 was begun by another unilat: choose another folder")
        self.controller.load_state(controller)
        self.samples, self.stuck = samples, stuck


@contextlib.contextmanager
def held(device: torch.device, *places: Placing) -> Iterator[None]:
    """Tables of levels that stay where they are, while the context lasts."""
    try:
        for place in places:
            place.hold(device)
        yield
    finally:
        for place in places:
            place.release()


def mirrored(x: Tensor, draws: Draws) -> Tensor:
    """``x [B, C, H, W]``, each picture mirrored left and right or not, by the toss of a coin."""
    chosen = draws.uniform(len(x)).to(x.device) < 0.5
    return torch.where(chosen[:, None, None, None], x.flip(-1), x)


def base_stage(
    model: Base,
    z: Tensor | Rows,
    labels: Tensor,
    levels: Literal["learned", "fixed"] = "fixed",
    moments: Tensor | Rows | None = None,
) -> Stage:
    """Stage 2 on clean latents ``[N, C, h, w]`` and labels ``[N]``; noise is drawn afresh down to λ₀.

    ``moments [N, 2, C, h, w]``: mean and standard deviation of each latent, which is then drawn afresh too, at every
    step, as latent diffusion does; ``z`` gives its shape alone.
    The loss is the weighted one in nats per latent dimension.
    """
    dimensions = math.prod(z.shape[1:])

    def losses(batch: Batch, draws: Draws) -> tuple[Tensor, dict[str, Tensor]]:
        z = batch[0] if moments is None else batch[0][:, 0] + batch[0][:, 1] * draws.normal(batch[0][:, 0])
        loss, lambda_t = model.losses(z, batch[1], draws)
        return loss / dimensions, {"levels": model.levels.observe(lambda_t, loss)} if levels == "learned" else {}

    @contextlib.contextmanager
    def hold(device: torch.device) -> Iterator[Callable[[], object]]:
        with held(device, model.levels):
            yield lambda: None

    return Stage(
        name="stage2",
        hold=hold,
        model=model,
        count=len(z),
        batch=lambda indices: ((z if moments is None else moments)[indices], labels[indices]),
        losses=losses,
        observe=lambda sums: model.levels.learn(sums["levels"]),
    )


def prior_stage(
    model: LatentDenoiser, z: Tensor, *, lambda_0: float, lambda_min: float, known: str | None = None
) -> Stage:
    """Fits a denoiser of latents ``z [N, C, *grid]`` by the unweighted rate (UL eq. 3) in nats per latent dimension.

    One noise level a latent. ``known``: a hash that tells these latents from others, by default their own. The
    checkpoint of other latents or another noise is refused with a :class:`UserError`.
    """
    table, dimensions = rate_table(lambda_min, lambda_0), math.prod(z.shape[1:])
    origin = {"latents": known or digest({"z": z}), "lambda_0": lambda_0, "lambda_min": lambda_min}

    def losses(batch: Batch, draws: Draws) -> tuple[Tensor, dict[str, Tensor]]:
        (z,) = batch
        levels = table.sample(draws.strata(len(z)).to(z.device))
        z_t = diffuse(z, draws.normal(z), levels.lambda_t)
        terms = rate_terms(z, model(z_t, levels.lambda_t, None), levels, lambda_min)
        return terms.nats() / dimensions, {}

    def load_state(state: Saved) -> None:
        if state != origin:
            differ = ", ".join(name for name in origin if state.get(name) != origin[name])
            raise UserError(f"this prior was begun on something else ({differ} differ): choose another folder")

    return Stage(
        name="prior",
        model=model,
        hold=still,
        uncaptured="the prior's covariance is decomposed" if isinstance(model, GaussianDenoiser) else "",
        count=len(z),
        batch=lambda indices: (z[indices],),
        losses=losses,
        state=lambda: dict(origin),
        load_state=load_state,
    )


def settling(config: Stage1Config) -> Schedule:
    """The engine's schedule of the prior alone: chosen by measuring in batches of 64 (LOG.md).

    In larger ones it rises, and its average forgets, over as many steps.
    """
    steps = config.settle_batch / 64
    return Schedule(
        batch=config.settle_batch,
        samples=config.settle,
        learning_rate=config.learning_rate,
        optimizer=config.optimizer,
        warmup=min(round(2_000 * steps), config.settle // 8),
        decay=0.5,
        ema_halflife=min(5_000 * steps, config.settle / 8),
        clip=1.0,
    )


def schedule(config: Stage1Config | Stage2Config) -> Schedule:
    """The engine's schedule of a stage."""
    return Schedule(
        batch=config.batch,
        samples=config.samples,
        learning_rate=config.learning_rate,
        optimizer=config.optimizer,
        warmup=config.warmup,
        decay=config.decay,
        ema_halflife=config.ema_halflife,
        clip=config.clip,
        may_grow=True,
    )
