"""Tensors without storage: a model with fake weights, and a mode that tracks all other storages."""

from __future__ import annotations

import weakref
from typing import Any


def fake_weights(model: Any) -> None:
    """Give the tensors of a model on the meta device a fake CPU storage, and drop gradients as soon as they are
    computed.
    """
    import torch

    def drop(parameter: torch.Tensor) -> None:
        parameter.grad = None

    made: dict[int, torch.nn.Parameter] = {}
    for module in model.modules():
        for name, old in module._parameters.items():
            if old is None:
                continue
            if id(old) not in made:
                new = torch.nn.Parameter(torch.empty(old.shape, dtype=old.dtype), requires_grad=old.requires_grad)
                if new.requires_grad:
                    new.register_post_accumulate_grad_hook(drop)
                made[id(old)] = new
            module._parameters[name] = made[id(old)]
        for name, buffer in module._buffers.items():
            if buffer is not None:
                module._buffers[name] = torch.empty(buffer.shape, dtype=buffer.dtype)


def make_tracker(model: Any) -> Any:
    """A mode that tracks the storages that are created under it, without those of the model's tensors.

    torch's `MemTracker` (torch.distributed._tools) fails on frozen parameters, which models with adapters have.
    """
    import torch
    from torch.utils._python_dispatch import TorchDispatchMode
    from torch.utils._pytree import tree_map_only

    class Tracker(TorchDispatchMode):
        """Bytes of the storages that are alive, and their maximum so far."""

        def __init__(self) -> None:
            super().__init__()
            self.current = self.peak = 0
            # Kept alive, so that no other storage gets the same address.
            self.given = [tensor.untyped_storage() for tensor in (*model.parameters(), *model.buffers())]
            self.seen = {id(storage) for storage in self.given}

        def _gone(self, key: int, size: int) -> None:
            self.seen.discard(key)
            self.current -= size

        def _see(self, tensor: torch.Tensor) -> torch.Tensor:
            storage = tensor.untyped_storage()
            if id(storage) not in self.seen:
                self.seen.add(id(storage))
                self.current += storage.nbytes()
                self.peak = max(self.peak, self.current)
                weakref.finalize(storage, self._gone, id(storage), storage.nbytes())
            return tensor

        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            return tree_map_only(torch.Tensor, self._see, func(*args, **(kwargs or {})))

    return Tracker()
