"""Training: the run that was stopped is the run that was not, and every fault ends in one clear line."""
