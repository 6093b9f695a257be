"""Studies that drive whole measurements: is a number true, what is in a latent, how do runs compare."""
