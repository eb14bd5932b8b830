"""Matching Networks (Vinyals et al. 2016): a query's label is a weighted mean of the support's labels, weighted by attention."""

import torch
from torch import Tensor, nn

from fsl_course.episodes import Episode
from fsl_course.methods.base import FewShotLearner, check_labels, embed_episode
from fsl_course.methods.prototypical import cosine_similarities, squared_distances
from fsl_course.nets import embedding_size


def class_log_probabilities(similarity: Tensor, labels: Tensor, n_way: int) -> Tensor:
    """Sums the attention over the support by class (equation 1): log sum_{i in class k} softmax_i(similarity).

    similarity: [..., M, S]; labels: int64 [..., S], every slot at least once -> log-probabilities [..., M, n_way].
    Computed in logarithms throughout, because a class whose attention underflows in float32 would have the loss -log(0).
    """
    check_labels(labels, n_way)
    attention = similarity.log_softmax(-1)
    slot = labels.unsqueeze(-2).expand_as(attention)
    top = attention.new_full((*attention.shape[:-1], n_way), -torch.inf)
    top = top.scatter_reduce(-1, slot, attention.detach(), "amax")  # the largest of each class
    total = torch.zeros_like(top).scatter_add(-1, slot, (attention - top.gather(-1, slot)).exp())
    return total.log() + top


class SupportContext(nn.Module):
    """g: the support in the context of itself, by a bidirectional LSTM (appendix A.2), so its order changes predictions."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.lstm = nn.LSTM(features, features, batch_first=True, bidirectional=True)

    def forward(self, support: Tensor) -> Tensor:
        """[T, S, D] -> [T, S, D]: forward state + backward state + the embedding itself."""
        forward, backward = self.lstm(support)[0].chunk(2, dim=-1)
        return forward + backward + support


class QueryContext(nn.Module):
    """f: a query reads the support a few times before it is compared (appendix A.1, equations 3 to 6)."""

    def __init__(self, features: int, steps: int = 5) -> None:
        super().__init__()
        if steps < 1:
            raise ValueError(f"a query must read the support at least once; got steps={steps}.")
        self.cell = nn.LSTMCell(2 * features, features)  # takes [query, r], and h as its state: U[h, r] of equation 3
        self.steps = steps

    def forward(self, query: Tensor, support: Tensor) -> Tensor:
        """query [T, M, D], support [T, S, D], already in context -> [T, M, D]."""
        h, c = torch.zeros_like(query), torch.zeros_like(query)
        for _ in range(self.steps):
            read = (h @ support.mT).softmax(-1) @ support  # equations 5 and 6
            flat = torch.cat([query, read], -1).flatten(0, 1), (h.flatten(0, 1), c.flatten(0, 1))
            h, c = (t.unflatten(0, query.shape[:2]) for t in self.cell(*flat))
            h = h + query  # equation 4
        return h


class MatchingNetwork(FewShotLearner):
    """Predicts log-probabilities: attention over the support, summed by class.

    encoder:      pictures [B, c, H, W] -> embeddings [B, D]
    full_context: adds the two context modules ("FCE" in the paper)
    similarity:   "cosine" (the paper's) or "euclidean" (minus the squared distance; with one shot a prototypical network)
    scale:        multiplies the similarity; None: 10 for cosine, 1 for Euclidean. The paper has none, i.e. 1, at which cosine
                  attention is nearly flat (lesson 04)
    steps:        how often a query reads the support (full context only)
    features:     D, needed for the context; None finds it with a blank 28x28 picture
    """

    def __init__(
        self,
        encoder: nn.Module,
        full_context: bool = False,
        similarity: str = "cosine",
        scale: float | None = None,
        steps: int = 5,
        features: int | None = None,
    ) -> None:
        super().__init__()
        if similarity not in ("cosine", "euclidean"):
            raise ValueError(f'similarity must be "cosine" or "euclidean"; got {similarity!r}.')
        if not isinstance(full_context, bool):
            raise ValueError(f"full_context must be True or False; got {full_context!r}.")
        if scale is not None and not (isinstance(scale, (int, float)) and scale > 0):
            raise ValueError(f"scale must be a number above 0, or None; got {scale!r}.")
        self.encoder, self.similarity, self.full_context = encoder, similarity, full_context
        self.scale = scale if scale is not None else {"cosine": 10.0, "euclidean": 1.0}[similarity]
        if full_context:
            size = embedding_size(encoder) if features is None else features
            self.support_context, self.query_context = SupportContext(size), QueryContext(size, steps)

    def similarities(self, support: Tensor, query: Tensor) -> Tensor:
        """support [..., S, D], query [..., M, D] -> scaled similarities [..., M, S]; their softmax is the attention."""
        if self.full_context:
            lead = support.shape[:-2]
            support, query = (t.reshape(-1, *t.shape[-2:]) for t in (support, query))
            support = self.support_context(support)
            query = self.query_context(query, support)
            support, query = (t.reshape(*lead, *t.shape[-2:]) for t in (support, query))
        if self.similarity == "cosine":
            return self.scale * cosine_similarities(query, support)
        return -self.scale * squared_distances(query, support)

    def score(self, support: Tensor, labels: Tensor, query: Tensor, n_way: int) -> Tensor:
        """support [..., S, D], labels [..., S], query [..., M, D] -> log-probabilities [..., M, n_way]."""
        return class_log_probabilities(self.similarities(support, query), labels, n_way)

    def attention(self, episode: Episode) -> Tensor:
        """One task -> the attention of each query over the support rows [N*Q, N*K]; each row sums to one."""
        return self.similarities(*embed_episode(self, episode)).softmax(-1)
