"""What `fit` puts around a training step: a record of accuracies, convolutions in bfloat16, and the undoing of a failed step.

Why bfloat16 replaces the `forward` of networks for the time of a step: autocast around the whole step would lower distances and
losses, too; inside `embed`, every method would have to do it; a wrapper module around the encoder would rename its weights.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

import torch
from torch import Tensor, nn

from fsl_course.episodes import Episode
from fsl_course.methods.base import FewShotLearner


@contextmanager
def query_accuracies(learner: FewShotLearner) -> Iterator[list[float]]:
    """Yields a list to which every forward(episode) on class labels appends its accuracy while the block runs."""
    seen: list[float] = []

    def record(module: FewShotLearner, args: tuple, logits: Tensor) -> None:
        if args and isinstance(args[0], Episode) and not args[0].query_y.is_floating_point():
            seen.append(float((logits.detach().argmax(-1) == args[0].query_y).cpu().double().mean()))

    hook = learner.register_forward_hook(record)
    try:
        yield seen
    finally:
        hook.remove()


def embedding_networks(learner: FewShotLearner) -> list[nn.Module]:
    """Returns the networks that bfloat16=True applies to: the encoder, and the relation module if there is one.

    Raises ValueError for a learner without either.
    """
    networks = [net for name in ("encoder", "relation") if (net := getattr(learner, name, None)) is not None]
    if not networks:
        kind = type(learner).__name__
        raise ValueError(f"bfloat16 is for methods with an encoder; {kind} adapts its weights, which needs float32.")
    return networks


@contextmanager
def in_bfloat16(learner: FewShotLearner) -> Iterator[None]:
    """Computes embeddings (and relations) with convolutions in bfloat16 in the block, and everything after them in float32.

    Weights, their gradients and the statistics of batch norm stay float32.
    """

    def lowered(usual: Callable[..., Tensor], *inputs: Tensor) -> Tensor:
        with torch.autocast(inputs[0].device.type, torch.bfloat16):
            return usual(*inputs).float()

    own = {net: vars(net).get("forward") for net in embedding_networks(learner)}
    try:
        for net in own:
            net.forward = partial(lowered, net.forward)  # hides the method of its class
        yield
    finally:
        for net, before in own.items():
            del net.forward
            if before is not None:
                net.forward = before


@contextmanager
def undone_on_failure(learner: FewShotLearner) -> Iterator[list[tuple[Tensor, Tensor]]]:
    """Yields each buffer with a copy. If the step fails, puts the copies back and ends the training mode.

    Buffers are e.g. the running statistics of batch norm. Weights need no copy, because the optimiser moves them last.
    """
    buffers = [(buffer, buffer.clone()) for buffer in learner.buffers()]
    try:
        yield buffers
    except (FloatingPointError, ConnectionError):
        with torch.no_grad():
            for buffer, before in buffers:
                buffer.copy_(before)
        learner.eval()
        raise
