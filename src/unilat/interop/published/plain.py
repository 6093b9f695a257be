"""What published code has in the place of einops and of oneDNN's linear map."""

import math
import re

from torch import Tensor
from torch.nn import Linear as Linear


def rearrange(x: Tensor, pattern: str, **sizes: int) -> Tensor:
    """einops' function of this name for patterns of names and of groups in brackets, ``b c (y p) -> b (c p) y``.

    ``sizes``: of all names of a group but one.
    """
    left, right = (
        [(group or alone).split() for group, alone in re.findall(r"\(([^)]*)\)|(\S+)", side)]
        for side in pattern.split(" -> ")
    )
    known = dict(sizes)
    for names, size in zip(left, x.shape, strict=True):
        for name in [name for name in names if name not in known]:
            known[name] = size // math.prod(known[other] for other in names if other in known)
    before = [name for names in left for name in names]
    after = [name for names in right for name in names]
    split = x.reshape([known[name] for name in before]).permute([before.index(name) for name in after])
    return split.reshape([math.prod(known[name] for name in names) for names in right])
