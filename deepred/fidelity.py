"""How far an image is from the measurement: the first term of Eq. (4) and (7)."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from . import red
from .errors import DivergedError, InputError, first_line, is_memory, shown
from .settings import Settings

Likelihood = Callable[[Tensor, Tensor], Tensor]


class DataTerm:
    """1/2 ||Hx - y||^2, or what stands in its place; see `deepred.solver.ADMM`.

    With a preconditioner the residual is whitened first, a likelihood has its own terms, and DIP-TV
    adds the total variation of x.
    """

    def __init__(
        self,
        y: Tensor,
        H: Callable[[Tensor], Tensor],
        settings: Settings,
        likelihood: Likelihood | None = None,
    ) -> None:
        self.y, self.H, self.likelihood, self.tv = y, H, likelihood, settings.tv
        self.reduce = torch.sum if settings.data_term == "sum" else torch.mean
        eps = settings.precondition
        self._whiten = H.whitener(eps) if eps else lambda residual: residual
        self._checked = False

    def __call__(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The term with its graph; without it, the plain term in a sum over pixels; Hx - y."""
        measured = self.H(x) if self._checked else checked(self.H, x, self.y)
        residual = measured - self.y
        if self.likelihood is None:
            data = 0.5 * self.reduce(self._whiten(residual).square())
            plain = 0.5 * residual.detach().square().sum()
        else:
            terms = self.likelihood(measured, self.y)
            if not isinstance(terms, Tensor) or (x.requires_grad and not terms.requires_grad):
                raise InputError("the likelihood must return a tensor that torch can differentiate")
            data = self.reduce(terms) if terms.ndim else terms
            plain = terms.detach().sum()
        self._checked = True
        if self.tv:
            data = data + self.tv * self.reduce(red.total_variation(x))
        return data, plain, residual.detach()


def checked(H: Callable[[Tensor], Tensor], x: Tensor, y: Tensor) -> Tensor:
    """Hx; InputError if y cannot be compared with it, or x has been changed."""
    before = x.detach().clone()
    try:
        made = H(x)
    except Exception as error:
        if isinstance(error, InputError | DivergedError) or is_memory(error):
            raise
        what = f"H fails for an image {tuple(x.shape)} of {x.dtype}"
        raise InputError(f"{what}: {first_line(error)}") from error
    if not isinstance(made, Tensor) or made.layout != y.layout:
        raise InputError(f"H must return a tensor, a dense one, got {shown(made)}")
    if made.shape != y.shape:
        raise InputError(
            f"H maps the network's image to shape {tuple(made.shape)}, but y has {tuple(y.shape)}"
        )
    if made.dtype != y.dtype:
        raise InputError(f"H makes {made.dtype} of {y.dtype}: it must keep the precision")
    if x.requires_grad and not made.requires_grad:
        raise InputError(
            "H must be differentiable by torch: what it returns has no gradient, as after numpy() "
            "or detach()"
        )
    if not torch.equal(x.detach(), before) and before.isfinite().all():
        raise InputError("H must not work in place: it has changed the image that it was given")
    return made
