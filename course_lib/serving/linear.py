"""`x @ weight`, for a weight that is read a thousand times and never changes.

A matrix product on a CPU wants its weight in tiles that fit the processor's registers. Given a plain matrix, the
library cuts such tiles in every call; a *packed* one was cut once, when the model was loaded. For the few rows of a
decode step, the cutting is most of the work.

oneDNN packs, and comes with torch on x86. Elsewhere (Apple's processors, GPUs, half precision) the matrix stays plain.
"""

import platform

import torch

PACKS = (
    platform.machine() in ("x86_64", "AMD64")
    and torch.backends.mkldnn.is_available()
    and hasattr(torch.ops.mkldnn, "_linear_pointwise")  # no public name yet: looked for, never relied upon
)


def lay_out(weight: torch.Tensor, *, packs: bool = PACKS) -> torch.Tensor:
    """A weight as `linear` takes it: packed where that is possible, else [in, out], contiguous.

    Args:
        weight: [out, in], as a checkpoint has it.
        packs: False for a plain matrix in any case.

    Example:
        >>> linear(torch.ones(1, 2), lay_out(torch.tensor([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]])))
        tensor([[ 3.,  7., 11.]])
    """
    if packs and weight.device.type == "cpu" and weight.dtype == torch.float32:
        return torch.ops.mkldnn._reorder_linear_weight(weight)
    return weight.t().contiguous()


def linear(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """[..., in] -> [..., out], for a weight that `lay_out` made."""
    if weight.is_mkldnn:
        return torch.ops.mkldnn._linear_pointwise(x, weight, None, "none", [], "")
    return x @ weight
