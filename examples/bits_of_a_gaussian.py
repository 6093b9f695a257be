"""The idea without any network: the rate of latents whose information is known in closed form.

Latents of 8 dimensions are Gaussian with variances from 1/64 to 2, and the prior is the exact denoiser. The estimate of
the rate (UL eq. 3) must then be I(z; z_0) = ½ Σ ln(1 + s² e^λ₀), the information that a latent of log-SNR λ₀ carries,
plus what N(0, I) gets wrong about the noisiest latent, which is next to nothing.

    python examples/bits_of_a_gaussian.py
"""

import torch

from unilat.maths.levels import rate_table, uniform
from unilat.maths.noise import diffuse
from unilat.maths.oracle import Gaussian
from unilat.maths.rate import LN2, rate_terms
from unilat.maths.seeds import Draws

LAMBDA_MIN, LAMBDA_0 = -10.0, 5.0
BATCH, REPEATS = 256, 200


def main() -> None:
    """Print the closed form, two estimates of it with their standard errors, and the bits of each dimension."""
    source = Gaussian(variances=torch.logspace(-6, 1, 8, base=2.0), mean=torch.zeros(8))
    table = rate_table(LAMBDA_MIN, LAMBDA_0)
    ways = {
        "independent levels": lambda draws: uniform(draws.uniform(BATCH), LAMBDA_MIN, LAMBDA_0),
        "ours": lambda draws: table.sample(draws.strata(BATCH)),
    }
    print(f"{'information':<20}{source.information_nats(LAMBDA_0) / LN2:9.4f} bits")
    print(f"{'rate, closed form':<20}{source.rate_nats(LAMBDA_MIN, LAMBDA_0) / LN2:9.4f} bits")
    for name, pick in ways.items():
        estimates, dimensions = [], torch.zeros(8)
        for repeat in range(REPEATS):
            draws = Draws.keyed(0, repeat, 0, BATCH)
            z = source.sample(BATCH, draws.generator).float()
            levels = pick(draws)
            z_hat = source.denoise(diffuse(z, draws.normal(z), levels.lambda_t), levels.lambda_t)
            terms = rate_terms(z, z_hat, levels, LAMBDA_MIN)
            estimates.append(terms.nats().mean() / LN2)
            dimensions += terms.dimension_map() / LN2 / REPEATS
        bits = torch.stack(estimates)
        error = float(bits.std()) / REPEATS**0.5
        print(f"{name:<20}{float(bits.mean()):9.4f} ± {error:.4f} bits")
    print("by dimension       ", "  ".join(f"{value:.2f}" for value in dimensions.tolist()))


if __name__ == "__main__":
    main()
