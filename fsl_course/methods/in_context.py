"""Learning in context (Garg et al. 2022; Fifty et al. 2024): a transformer reads the support and answers, without an update."""

import math
import zlib
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from fsl_course.episodes import Episode
from fsl_course.inner_loop.functional import supervised_loss
from fsl_course.methods.base import FewShotLearner, by_embeddings, class_means, embed_episode
from fsl_course.nets import embedding_size


def context_mask(shots: int, queries: int) -> Tensor:
    """Returns bool [S+M, S+M], True where row i reads row j: all read the support, and a query also itself, but no other one."""
    rows = shots + queries
    return (torch.arange(rows) < shots) | torch.eye(rows, dtype=torch.bool)


def draw_codes(n_way: int, size: int, seed: int) -> Tensor:
    """Draws one random code for each class, of length about sqrt(size) -> [n_way, size], always in float64 on the CPU."""
    return torch.randn(n_way, size, generator=Generator().manual_seed(seed), dtype=torch.float64)


def code_order(support: Tensor, labels: Tensor, n_way: int) -> Tensor:
    """Ranks the classes by their means along a fixed direction. [..., S, D], [..., S] -> int64 [..., n_way]."""
    direction = draw_codes(1, support.shape[-1], seed=1)[0].to(support)
    return (class_means(support.detach(), labels, n_way) @ direction).argsort(-1).argsort(-1)


def linear_attention(support: Tensor, targets: Tensor, query: Tensor, lr: float = 1.0) -> Tensor:
    """Returns lr/S times the sum over i of y_i (x_i . x): one head of attention without softmax.

    It equals the predictions after one step of gradient descent from W = 0 on the loss 1/(2S) sum |W x_i - y_i|^2 (von Oswald et
    al. 2023, proposition 1). support [..., S, d], targets [..., S, o], query [..., M, d] -> [..., M, o]
    """
    return lr / support.shape[-2] * (query @ support.mT) @ targets


class Block(nn.Module):
    """One layer of a transformer: attention, then a small net for each row, each after a layer norm and added to its input.

    told: how many of the last numbers of a row hold its label. Queries and keys start with equal weights that leave these out, so
    that before training rows read from rows with similar inputs. From independent weights training stands still for long.
    """

    def __init__(self, width: int, heads: int, told: int) -> None:
        super().__init__()
        self.heads = heads
        self.before_attention, self.before_net = nn.LayerNorm(width), nn.LayerNorm(width)
        self.query_key_value, self.mix = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.net = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))
        with torch.no_grad():
            queries, keys, _ = self.query_key_value.weight.chunk(3)
            nn.init.orthogonal_(queries, gain=2.0)
            queries[:, width - told :] = 0
            keys.copy_(queries)

    def forward(self, rows: Tensor, mask: Tensor) -> Tensor:
        """rows [..., R, W], mask bool [R, R] as `context_mask` makes it -> [..., R, W]."""
        parts = self.query_key_value(self.before_attention(rows)).chunk(3, dim=-1)
        q, k, v = (part.unflatten(-1, (self.heads, -1)).transpose(-2, -3) for part in parts)  # [..., heads, R, W/heads]
        read = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        rows = rows + self.mix(read.transpose(-2, -3).flatten(-2))
        return rows + self.net(self.before_net(rows))


class InContextLearner(FewShotLearner):
    """A row of the support holds (embedding, code of the label), a query's (embedding, zeros); its answer is a code, too.

    encoder:  pictures [B, c, H, W] -> embeddings [B, D]; nn.Identity() for tasks whose inputs are rows of numbers
    features: D; None finds it by embedding a blank 28x28 picture
    tokens:   W, the numbers of a row in the transformer; codes: how many of them hold the code
    layers:   its depth; heads: how many attentions a layer has
    outputs:  0 for classes; else the targets are rows of so many numbers, and the loss is the squared error

    Codes are drawn anew for every task of training, so nothing can be learned about a slot, only how to use codes. In evaluation
    they are fixed, and the order of the classes' means along a fixed direction says which class gets which: relabelling the slots
    permutes the answers exactly. Rows have no positions, so the order of the support does not matter.
    """

    def __init__(
        self,
        encoder: nn.Module,
        features: int | None = None,
        tokens: int = 88,
        codes: int = 24,
        layers: int = 2,
        heads: int = 1,
        outputs: int = 0,
    ) -> None:
        super().__init__()
        if tokens % heads or codes >= tokens:
            raise ValueError(f"tokens must be a multiple of heads and above codes; got {tokens}, {heads} and {codes}.")
        size = embedding_size(encoder) if features is None else features
        self.encoder, self.features, self.tokens, self.codes = encoder, features, tokens, codes
        self.layers, self.heads, self.outputs = layers, heads, outputs
        self.norm = nn.Identity() if isinstance(encoder, nn.Identity) else nn.LayerNorm(size)
        self.read_x = nn.Linear(size, tokens - codes)
        self.read_y = nn.Linear(outputs, codes) if outputs else nn.Identity()
        self.blocks = nn.ModuleList(Block(tokens, heads, codes) for _ in range(layers))
        self.answer = nn.Sequential(nn.LayerNorm(tokens), nn.Linear(tokens, outputs or codes))

    def read(self, support: Tensor, targets: Tensor, query: Tensor) -> Tensor:
        """Runs the transformer: support [..., S, D], targets [..., S, o], query [..., M, D] -> [..., M, o]; o: codes, outputs."""
        shots = support.shape[-2]
        told = self.read_y(targets)
        told = torch.cat([told, told.new_zeros(*query.shape[:-1], self.codes)], dim=-2)
        rows = torch.cat([self.read_x(self.norm(torch.cat([support, query], dim=-2))), told], dim=-1)
        mask = context_mask(shots, query.shape[-2]).to(rows.device)
        for block in self.blocks:
            rows = block(rows, mask)
        return self.answer(rows[..., shots:, :])

    def score(self, support: Tensor, labels: Tensor, query: Tensor, n_way: int, codes: Tensor | None = None) -> Tensor:
        """Returns how much a query's answer resembles each class's code: logits [..., M, n_way]; leading axes are tasks."""
        if codes is None:
            codes = draw_codes(n_way, self.codes, seed=0).to(support)[code_order(support, labels, n_way)]
        coded = codes.take_along_dim(labels.unsqueeze(-1), dim=-2)  # [..., S, codes]
        return self.read(support, coded, query) @ codes.mT / math.sqrt(self.codes)

    def forward(self, episode: Episode, codes: Tensor | None = None) -> Tensor:
        """Predicts the queries of one task -> logits [N*Q, N] (regression: [Q, outputs]).

        With codes, as in training, the episode holds T stacked tasks of embeddings -> logits [T, N*Q, N].
        """
        if codes is not None:
            return self.score(episode.support_x, episode.support_y, episode.query_x, episode.n_way, codes)
        if self.outputs:
            support, query = embed_episode(self, episode)
            return self.read(support, episode.support_y, query)
        return by_embeddings(self, episode)

    def training_step(self, episodes: Episode) -> Tensor:
        """Returns the mean loss of T stacked tasks, a scalar. Each task has codes of its own, which its labels seed."""
        support, query = (torch.stack(part) for part in zip(*(embed_episode(self, e) for e in episodes), strict=True))
        if self.outputs:
            return supervised_loss(self.read(support, episodes.support_y, query), episodes.query_y)
        seeds = [zlib.crc32(torch.cat([e.classes, e.support_y, e.query_y]).cpu().numpy().tobytes()) for e in episodes]
        codes = torch.stack([draw_codes(episodes.n_way, self.codes, seed) for seed in seeds]).to(support)
        embedded = replace(episodes, support_x=support, query_x=query)
        logits = self(embedded, codes)  # a call of the module, so that `fit` can note the accuracy
        return F.cross_entropy(logits.flatten(0, 1), episodes.query_y.flatten())
