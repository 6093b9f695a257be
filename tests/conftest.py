"""One thread for every test: on a shared machine two busy processes of two threads each run up to 8 times slower."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MKL_NUM_THREADS", "1")
os.environ.setdefault("MPLBACKEND", "Agg")

import torch

torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
