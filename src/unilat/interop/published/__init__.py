"""What an export brings along as code: each file is published with all that it uses of ours (``interop/bundle.py``).

These files import torch and, two of them, diffusers; nothing of the library imports them but tests.
"""
