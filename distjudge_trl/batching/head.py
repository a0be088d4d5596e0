"""Logits in float32 from output heads of any precision, without a float32 copy of the head."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn.functional import linear


if TYPE_CHECKING:
    from distjudge_trl.labels import LabelSpace

# Rows of a half-precision head that are widened at a time; `planning.memory` counts with it.
ROWS_AT_A_TIME = 8192


def read_head_in_float32(model: Any, label_space: LabelSpace | None = None) -> None:
    """Compute the logits in float32, regardless of autocast and the weights' dtype.

    bfloat16 logits have eight significant bits: label probabilities come in steps of several per cent, and in half of
    the rows two labels tie exactly. Only B x V numbers are computed. A head kept in half precision is widened a few
    thousand rows at a time, never as a whole.

    Args:
        model (`PreTrainedModel`): the `forward` of its output embeddings is replaced. A quantised or unusual head is
            left unchanged.
        label_space ([`LabelSpace`], *optional*): if it is bound when the head is called, gradients flow only through
            the logits of its labels. This is for a loss that reads no other logits. By default gradients flow through
            all.
    """
    head = model.get_output_embeddings()
    if type(head) is not torch.nn.Linear:
        return

    def forward(hidden: Tensor) -> Tensor:
        with torch.autocast(hidden.device.type, enabled=False):
            hidden = hidden.float()
            if label_space is None or not label_space.bindings or not torch.is_grad_enabled():
                return _WidenedLinear.apply(hidden, head.weight, head.bias)
            with torch.no_grad():
                logits = _in_float32(hidden, head.weight, head.bias)
            ids = torch.tensor(sorted({i for ids in label_space.token_ids for i in ids}), device=hidden.device)
            bias = head.bias[ids].float() if head.bias is not None else None
            return logits.index_copy(-1, ids, linear(hidden, head.weight[ids].float(), bias))

    head.forward = forward  # type: ignore[method-assign, assignment]


def _in_float32(hidden: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """`linear` of float32 `hidden` `(..., d)` and `weight` `(V, d)` of any dtype, in float32 `(..., V)`."""
    if weight.dtype == torch.float32:
        return linear(hidden, weight, bias.float() if bias is not None else None)
    out = hidden.new_empty(*hidden.shape[:-1], weight.shape[0])
    for rows, part in _parts(weight):
        out[..., rows] = linear(hidden, part)
    return out.add_(bias) if bias is not None else out


def _parts(weight: Tensor) -> Iterator[tuple[slice, Tensor]]:
    """Slices of a weight's rows and those rows in float32, some at a time."""
    for start in range(0, weight.shape[0], ROWS_AT_A_TIME):
        rows = slice(start, min(start + ROWS_AT_A_TIME, weight.shape[0]))
        yield rows, weight[rows].float()


class _WidenedLinear(torch.autograd.Function):
    """`linear` in float32 that keeps the weight in its own type and converts parts of it again in the backward
    pass.
    """

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(hidden, weight)
        return _in_float32(hidden, weight, bias)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (gradient,) = gradients
        hidden, weight = ctx.saved_tensors
        flat, inputs = gradient.flatten(0, -2), hidden.flatten(0, -2)
        for_hidden = torch.zeros_like(hidden) if ctx.needs_input_grad[0] else None
        for_weight = torch.empty_like(weight) if ctx.needs_input_grad[1] else None
        for rows, part in _parts(weight):
            if for_hidden is not None:
                for_hidden += gradient[..., rows] @ part
            if for_weight is not None:
                for_weight[rows] = (flat[:, rows].T @ inputs).to(weight.dtype)
        for_bias = flat.sum(0) if ctx.needs_input_grad[2] else None
        return for_hidden, for_weight, for_bias
