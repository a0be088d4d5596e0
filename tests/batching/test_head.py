"""Logits in float32 from heads of any precision: the numbers of a head that is widened as a whole."""

import copy

import pytest
import torch
from conftest import LABELS, make_tiny_model

from distjudge_trl.batching import head as head_module
from distjudge_trl.batching import read_head_in_float32
from distjudge_trl.batching.head import ROWS_AT_A_TIME
from distjudge_trl.labels import LabelSpace


def test_a_plan_counts_what_is_widened_at_a_time():
    from distjudge_trl.planning.memory import HEAD_ROWS_AT_A_TIME

    assert HEAD_ROWS_AT_A_TIME == ROWS_AT_A_TIME


@pytest.fixture(autouse=True)
def parts(monkeypatch):
    """The tests' vocabulary of 400 is widened in four parts, the last one smaller."""
    monkeypatch.setattr(head_module, "ROWS_AT_A_TIME", 120)


def make_model(tokenizer, dtype, bias=True):
    model = make_tiny_model(len(tokenizer)).to(dtype)
    head = torch.nn.Linear(32, len(tokenizer), bias=bias).to(dtype)
    head.weight.data.mul_(20)
    model.lm_head = head
    return model


def loss_of(logits, space, normalization):
    return (space.log_probs(logits, normalization=normalization) * torch.arange(1.0, 6.0)).sum()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("normalization", ["labels", "vocab"])
@pytest.mark.parametrize("frozen", [False, True])
def test_logits_and_gradients_are_those_of_a_whole_float32_head(tokenizer, dtype, normalization, frozen):
    space = LabelSpace(LABELS).bind(tokenizer)
    head = make_model(tokenizer, dtype).lm_head
    head.requires_grad_(not frozen)
    wide = copy.deepcopy(head).float()
    hidden = [torch.randn(3, 1, 32, generator=torch.Generator().manual_seed(0)).to(dtype) for _ in range(2)]
    for states in hidden:
        states.requires_grad_()

    class Model:
        def get_output_embeddings(self):
            return head

    read_head_in_float32(Model(), space if normalization == "labels" else None)
    with torch.autocast("cpu", torch.bfloat16):
        logits = head(hidden[0])
    expected = wide(hidden[1].float())
    assert logits.dtype == torch.float32
    torch.testing.assert_close(logits, expected, atol=2e-5, rtol=1e-5)
    for result in (logits, expected):
        loss_of(result[:, -1], space, normalization).backward()
    tolerance = {"atol": 1e-5, "rtol": 1e-5 if dtype == torch.float32 else 1e-2}
    torch.testing.assert_close(hidden[0].grad, hidden[1].grad, **tolerance)
    if not frozen:
        torch.testing.assert_close(head.weight.grad.float(), wide.weight.grad, **tolerance)
        torch.testing.assert_close(head.bias.grad.float(), wide.bias.grad, **tolerance)
    else:
        assert head.weight.grad is None


def test_only_the_labels_logits_carry_gradients_and_the_others_are_those_of_no_grad(tokenizer):
    space = LabelSpace(LABELS).bind(tokenizer)
    model = make_model(tokenizer, torch.bfloat16)
    read_head_in_float32(model, space)
    logits = model.lm_head(torch.ones(1, 32, dtype=torch.bfloat16))
    (gradient,) = torch.autograd.grad(logits.sum(), model.lm_head.bias)
    ids = sorted(i for ids in space.token_ids for i in ids)
    assert gradient.nonzero().flatten().tolist() == ids
    with torch.no_grad():
        torch.testing.assert_close(model.lm_head(torch.ones(1, 32, dtype=torch.bfloat16)), logits)


def test_labels_that_are_bound_later_are_known_when_they_are(tokenizer):
    space = LabelSpace(LABELS)
    model = make_model(tokenizer, torch.bfloat16)
    read_head_in_float32(model, space)
    states = torch.ones(1, 32, dtype=torch.bfloat16)
    (gradient,) = torch.autograd.grad(model.lm_head(states).sum(), model.lm_head.bias)
    assert (gradient == 1).all()
    space.bind(tokenizer)
    (gradient,) = torch.autograd.grad(model.lm_head(states).sum(), model.lm_head.bias)
    assert 0 < gradient.sum() < 100


def test_no_float32_copy_of_a_half_precision_head_is_made(tokenizer):
    """Neither in the forward nor in the backward, with gradients or without."""
    from torch.utils._python_dispatch import TorchDispatchMode

    largest = []

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            out = func(*args, **(kwargs or {}))
            if isinstance(out, torch.Tensor) and out.dtype == torch.float32:
                largest.append(out.numel())
            return out

    for space in (LabelSpace(LABELS).bind(tokenizer), None):
        model = make_model(tokenizer, torch.bfloat16, bias=False)
        read_head_in_float32(model, space)
        with Watch():
            model.lm_head(torch.ones(2, 32, dtype=torch.bfloat16)).sum().backward()
    assert max(largest) <= 120 * 32
