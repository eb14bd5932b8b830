"""What PyTorch keeps on stacks of its own: modes, levels of torch.func, autocast and inference mode.

A context manager that is entered and never left stays there, and every later cell computes something else.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.utils._device import DeviceContext
from torch.utils._python_dispatch import _get_current_dispatch_mode_stack, _pop_mode, _push_mode

_DEVICES = ("cpu", "cuda")
_guards: list[Any] = []  # those that ended an inference mode; without a reference they would bring it back


def modes() -> tuple[list[Any], list[Any]]:
    """Returns the modes of `__torch_function__` and of `__torch_dispatch__` that are on, without that of the default device."""
    stack = [torch._C._get_function_stack_at(i) for i in range(torch._C._len_torch_function_stack())]
    return [mode for mode in stack if not isinstance(mode, DeviceContext)], list(_get_current_dispatch_mode_stack())


def set_modes(saved: tuple[list[Any], list[Any]]) -> None:
    """Puts back what `modes` returned."""
    popped = [torch._C._pop_torch_function_stack() for _ in range(torch._C._len_torch_function_stack())]
    devices = [mode for mode in reversed(popped) if isinstance(mode, DeviceContext)]  # these lie at the bottom
    for mode in [*devices, *saved[0]]:
        torch._C._push_on_torch_function_stack(mode)
    while _get_current_dispatch_mode_stack():
        _pop_mode()
    for mode in saved[1]:
        _push_mode(mode)


def levels() -> int:
    """Returns how many transforms of torch.func are open."""
    return len(torch._C._functorch.get_interpreter_stack() or ())


def set_levels(saved: int) -> None:
    """Closes the transforms that were opened after `levels` returned this number."""
    while levels() > saved:
        torch._C._functorch.pop_dynamic_layer_stack()


def autocast() -> tuple[Any, ...]:
    """Returns the state of autocast: for each device whether it is on and its dtype, then its cache and how deep it is nested."""
    torch.autocast_increment_nesting()
    nested = torch.autocast_decrement_nesting()
    each = tuple((torch.is_autocast_enabled(device), torch.get_autocast_dtype(device)) for device in _DEVICES)
    return each, torch.is_autocast_cache_enabled(), nested


def set_autocast(saved: tuple[Any, ...]) -> None:
    """Puts back what `autocast` returned."""
    each, cached, nested = saved
    for device, (enabled, dtype) in zip(_DEVICES, each, strict=True):
        torch.set_autocast_enabled(device, enabled)
        torch.set_autocast_dtype(device, dtype)
    torch.set_autocast_cache_enabled(cached)
    torch.clear_autocast_cache()
    while autocast()[2] > nested:
        torch.autocast_decrement_nesting()
    while autocast()[2] < nested:
        torch.autocast_increment_nesting()


def set_inference(saved: bool) -> None:
    """Switches inference mode on or off. The caller restores the gradient mode, which it changes, too."""
    _guards.append(torch._C._InferenceMode(saved))
