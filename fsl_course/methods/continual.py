"""Continual few-shot learning: classes come session by session, and the learner answers among all that it has met.

FrozenPrototypes   the encoder stays as it is, and a class is the running mean of its embedded pictures
GrowingNetwork     each session trains encoder and head: fine-tuning; with stored pictures (replay: Rebuffi et al. 2017), with
                   EWC (Kirkpatrick et al. 2017), or with a cosine head whose new rows are class means (Qi et al. 2018)

`learn` takes one session: pictures [S, c, H, W] and labels int64 [S], which go on counting from session to session. `extra_bytes`
says what is kept beside the encoder's own weights. Neither is a learner of episodes, and any encoder will do.
"""

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn
from torch.func import functional_call, grad, vmap

from fsl_course.inner_loop.functional import Params
from fsl_course.methods.prototypical import cosine_similarities, squared_distances
from fsl_course.nets import embedding_size

SCALE = 20.0  # of the cosine head


class FrozenPrototypes(nn.Module):
    """Running class means [C, D] of a frozen encoder's embeddings, with the counts [C] of pictures behind them."""

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder.eval()
        self.register_buffer("means", torch.zeros(0, embedding_size(encoder)))
        self.register_buffer("counts", torch.zeros(0, dtype=torch.int64))

    @torch.no_grad()
    def learn(self, pictures: Tensor, labels: Tensor) -> None:
        """Moves the means of the classes in labels, and leaves every other one bit for bit."""
        z, new = self.encoder(pictures), max(0, int(labels.max()) + 1 - len(self.means))
        self.means, self.counts = F.pad(self.means.to(z), (0, 0, 0, new)), F.pad(self.counts, (0, new))
        self.counts += labels.bincount(minlength=len(self.counts))
        for k in labels.unique():
            self.means[k] += (z[labels == k] - self.means[k]).sum(0) / self.counts[k]

    def forward(self, x: Tensor) -> Tensor:
        """Scores pictures [B, c, H, W] -> minus squared distances to all C means [B, C]; the nearest mean wins."""
        return -squared_distances(self.encoder(x), self.means)

    def extra_bytes(self) -> int:
        """Returns the bytes of the class means."""
        return self.means.nbytes


class GrowingNetwork(nn.Module):
    """An encoder and a head without bias that grows by a row for each new class.

    keep:   pictures of each class that are stored as uint8 and trained on again later
    ewc:    weight of `ewc_penalty`, with the empirical Fisher summed over the sessions; 0 leaves it out
    cosine: logits are SCALE * cos(z, w_k), and a new row starts at its class mean; else they are linear, and it starts at 0
    """

    def __init__(self, encoder: nn.Module, keep: int = 0, ewc: float = 0, cosine: bool = False, seed: int = 0) -> None:
        super().__init__()
        self.encoder, self.keep, self.ewc, self.cosine = encoder, keep, ewc, cosine
        self.weight = nn.Parameter(torch.zeros(0, embedding_size(encoder)))
        self.memory: list[tuple[Tensor, Tensor]] = []  # pictures and labels of each session
        self.anchor, self.fisher, self.generator = {}, {}, Generator().manual_seed(seed)

    def forward(self, x: Tensor) -> Tensor:
        """Scores pictures [B, c, H, W] for all C classes so far -> logits [B, C]."""
        z = self.encoder(x)
        return SCALE * cosine_similarities(z, self.weight) if self.cosine else z @ self.weight.mT

    def learn(self, pictures: Tensor, labels: Tensor, *, steps: int, lr: float, head_only: bool = False) -> None:
        """Trains on a session and on the memory: `steps` of Adam on random batches of 64. Only the first one moves batch norm."""
        first = len(self.weight) == 0
        self._grow(pictures, labels)
        x = torch.cat([pictures, *(stored.to(pictures) / 255 for stored, _ in self.memory)])
        y = torch.cat([labels, *(names for _, names in self.memory)])
        solver = torch.optim.Adam([self.weight] if head_only else self.parameters(), lr)
        self.encoder.train(first)
        for _ in range(steps):
            rows = torch.randperm(len(y), generator=self.generator)[:64]
            loss = F.cross_entropy(self(x[rows]), y[rows])
            if self.anchor:
                loss = loss + ewc_penalty(dict(self.named_parameters()), self.anchor, self.fisher, self.ewc)
            solver.zero_grad()
            loss.backward()
            solver.step()
        self.encoder.eval()
        kept = torch.cat([(labels == k).nonzero()[: self.keep, 0] for k in labels.unique()])
        self.memory.append(((pictures[kept] * 255).round().byte(), labels[kept]))
        if self.ewc:
            found = diagonal_fisher(self, pictures, labels)
            for name, old in self.fisher.items():
                found[name][: len(old)] += old
            self.fisher, self.anchor = found, {name: p.detach().clone() for name, p in self.named_parameters()}

    @torch.no_grad()
    def _grow(self, pictures: Tensor, labels: Tensor) -> None:
        old, new = len(self.weight), max(0, int(labels.max()) + 1 - len(self.weight))
        self.weight = nn.Parameter(F.pad(self.weight, (0, 0, 0, new)))
        if self.cosine and new:
            z = F.normalize(self.encoder.eval()(pictures), dim=1)
            self.weight[old:] = torch.stack([F.normalize(z[labels == old + k].sum(0), dim=0) for k in range(new)])

    def extra_bytes(self) -> int:
        """Returns the bytes of the head, the stored pictures, the anchor and the Fisher information."""
        stored = (pictures for pictures, _ in self.memory)
        return sum(t.nbytes for t in (self.weight, *stored, *self.anchor.values(), *self.fisher.values()))


def diagonal_fisher(model: nn.Module, x: Tensor, y: Tensor) -> Params:
    """Returns the mean over pictures [B, c, H, W] of the squared gradient of log p(y | x), for every parameter.

    y: int64 [B], the true labels (the empirical Fisher) or labels drawn from the model (the Fisher information)
    """
    params, buffers = {name: p.detach() for name, p in model.named_parameters()}, dict(model.named_buffers())

    def surprise(params: Params, x: Tensor, y: Tensor) -> Tensor:
        return F.cross_entropy(functional_call(model, params | buffers, x[None]), y[None])

    gradients = vmap(grad(surprise), in_dims=(None, 0, 0), chunk_size=64)(params, x, y)
    return {name: g.square().mean(0) for name, g in gradients.items()}


def ewc_penalty(params: Params, anchor: Params, fisher: Params, weight: float) -> Tensor:
    """Returns weight / 2 * sum_i F_i (theta_i - theta*_i)^2 (Kirkpatrick et al. 2017, equation 3), a scalar.

    A head has grown since the anchor was set: its new rows, below the anchor's, are free.
    """
    apart = [(fisher[k] * (params[k][: len(old)] - old).square()).sum() for k, old in anchor.items()]
    return weight / 2 * torch.stack(apart).sum()
