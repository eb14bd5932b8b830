"""Other functions in place of PyTorch's, for the time of a block."""

from collections.abc import Callable, Mapping
from typing import Any

from torch.overrides import TorchFunctionMode


class Instead(TorchFunctionMode):
    """Calls other functions in place of PyTorch's: in `with Instead({F.conv2d: mine}): model(x)`, every F.conv2d is mine.

    functions: PyTorch's function -> the function that gets the same arguments in its place

    A layer such as nn.Conv2d fixes which function it calls, and torch.func.functional_call exchanges parameters, not functions.
    This mode exchanges the function when it is called, so the model itself stays as it is:
    - Threads: a block affects only the thread that runs it.
    - Nesting: the innermost block is asked first. A call that a replacement makes goes to the next block outwards, and in the
      end to PyTorch, so a replacement may call the function that it replaces.
    - Exceptions end the block like any other `with`.
    - Cost: every call of PyTorch in the block passes through Python once more, so enter a block only for models that need it.
    """

    def __init__(self, functions: Mapping[Callable, Callable]) -> None:
        super().__init__()
        self.functions = functions

    def __torch_function__(self, function: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        """Called by PyTorch for each of its functions in the block."""
        return self.functions.get(function, function)(*args, **(kwargs or {}))
