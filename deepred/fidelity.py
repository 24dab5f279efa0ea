"""How far an image is from the measurement: the first term of Eq. (4) and (7)."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from . import checks, red
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
        measured = self.H(x)
        if not self._checked:
            checks.measured(measured, x, self.y)
        residual = measured - self.y
        if self.likelihood is None:
            data = 0.5 * self.reduce(self._whiten(residual).square())
            plain = 0.5 * residual.detach().square().sum()
        else:
            terms = self.likelihood(measured, self.y)
            if not self._checked:
                checks.terms(terms, measured)
            data = self.reduce(terms) if terms.ndim else terms
            plain = terms.detach().sum()
        self._checked = True
        if self.tv:
            data = data + self.tv * self.reduce(red.total_variation(x))
        return data, plain, residual.detach()
