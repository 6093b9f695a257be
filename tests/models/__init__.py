"""Stage 1, stage 2, the controller and latent data sets."""
