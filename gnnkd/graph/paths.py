"""Which kernel a device takes for a weighted sum.

On CPU the default is what `scripts/bench_kernels.py` found fastest (docs/performance.md). Elsewhere it is torch's own
product, unmeasured. Another one is taken only when the environment says so, because that script said so on the device
at hand:

    GNNKD_KERNEL=scatter    torch_scatter, the extra `scatter`
    GNNKD_KERNEL=csr        torch's product with a compressed matrix
    GNNKD_KERNEL=bag        torch's `embedding_bag`
"""

from __future__ import annotations

import os
from functools import cache

import torch

from gnnkd.errors import UserError, unknown

VARIABLE = "GNNKD_KERNEL"
NAMES = ("bag", "csr", "scatter")


def chosen(device: torch.device) -> str:
    """The kernel of `device`: `bag` on CPU, `csr` elsewhere, or what `$GNNKD_KERNEL` says.

    Raises:
        UserError: an unknown kernel, or one that is not installed.
    """
    said = os.environ.get(VARIABLE)
    return _checked(said.lower()) if said else "bag" if device.type == "cpu" else "csr"


@cache
def _checked(name: str) -> str:
    if name not in NAMES:
        raise unknown(f"kernel in ${VARIABLE}", name, NAMES)
    if name == "scatter":
        try:
            import torch_scatter  # noqa: F401
        except (ImportError, OSError) as error:  # OSError: built for another torch
            raise UserError(
                f"${VARIABLE} is scatter, but torch_scatter cannot be imported ({error}); install it with: "
                "pip install ninja && pip install --no-build-isolation torch_scatter"
            ) from None
    return name
