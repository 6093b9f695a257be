"""The mathematics: pure functions and frozen dataclasses on torch tensors, no network and no state.

    noise       alpha(lambda), sigma(lambda) and the noisy signal x_lambda
    levels      where noise levels fall, each with its density; randomness that no world size changes
    moments     which density of levels a loss asks for, learned from its second moments
    weighting   weights of the eps-MSE as functions of lambda
    rate        the bound on the information in nats, its terms and its splits; nats to bits
    denoising   the weighted denoising loss
    samplers    DDIM, ancestral, second order: functions of a denoiser and a grid of lambda
    guidance    denoisers to a denoiser
    oracle      closed forms that the rest is tested against
    frechet     distances between sets of features

Every loss and rate is in nats per example, a sum over dimensions. Equal shapes, no broadcasting between examples.
"UL" is arXiv 2602.17270. Annotations are jaxtyping's and are checked by the test run only (tests/maths/__init__.py).
"""
