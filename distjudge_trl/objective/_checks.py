"""Argument checks that the public functions of `objective` share."""

from __future__ import annotations

import torch
from torch import Tensor


def check_rows(rows: Tensor, name: str) -> None:
    """Raise `ValueError` unless `rows` is a float32/float64 tensor `(..., K)` with K >= 2 and without NaN."""
    if not isinstance(rows, Tensor) or rows.dtype not in (torch.float32, torch.float64):
        found = rows.dtype if isinstance(rows, Tensor) else type(rows).__name__
        raise ValueError(f"`{name}` must be a float32 or float64 tensor, got {found}; convert it with `.float()`.")
    if rows.dim() < 1 or rows.shape[-1] < 2:
        raise ValueError(f"`{name}` must have shape (..., K) with K >= 2 labels, got {tuple(rows.shape)}.")
    if torch.isnan(rows).any():
        raise ValueError(f"`{name}` holds NaN, which has no place to be projected to.")


def check_radius(
    radius: Tensor | float, dtype: torch.dtype, device: torch.device, leading: torch.Size | None = None
) -> Tensor | float:
    """Return the radius as a float, or as a tensor with a trailing axis for the labels; `ValueError` if it is negative
    or NaN.
    """
    if isinstance(radius, Tensor):
        if not bool((radius >= 0).all()):
            raise ValueError("`radius` must be at least 0 for every row; it holds a negative value or NaN.")
        if leading is not None and not _fits(radius.shape, leading):
            raise ValueError(
                f"`radius` of shape {tuple(radius.shape)} does not fit the rows' dimensions {tuple(leading)}."
            )
        return radius.to(dtype=dtype, device=device).unsqueeze(-1)
    if not radius >= 0:
        raise ValueError(f"`radius` must be at least 0, got {radius}.")
    return float(radius)


def _fits(shape: torch.Size, leading: torch.Size) -> bool:
    """Whether `shape` broadcasts to `leading` without making it larger."""
    return len(shape) <= len(leading) and all(a in (1, b) for a, b in zip(shape[::-1], leading[::-1], strict=False))
