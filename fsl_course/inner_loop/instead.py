"""Other functions in place of PyTorch's, for the time of a block."""

from collections.abc import Callable, Mapping
from typing import Any

from torch.overrides import TorchFunctionMode


class Instead(TorchFunctionMode):
    """Calls other functions in place of PyTorch's: in `with Instead({F.conv2d: mine}): model(x)`, every F.conv2d is mine.

    functions: PyTorch's function -> the function that gets the same arguments in its place

    The model itself stays as it is, and a block affects only its own thread. The innermost block is asked first; a call that a
    replacement makes goes to the next one outwards, and in the end to PyTorch. Every call of PyTorch in the block passes through
    Python once more, so enter a block only for models that need it.
    """

    def __init__(self, functions: Mapping[Callable, Callable]) -> None:
        super().__init__()
        self.functions = functions

    def __torch_function__(self, function: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        """Called by PyTorch for each of its functions in the block."""
        return self.functions.get(function, function)(*args, **(kwargs or {}))
