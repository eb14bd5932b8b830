"""Few-shot learning with graph neural networks (Garcia, Bruna 2018): the pictures of a task pass messages to each other."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fsl_course.methods.base import FewShotLearner, check_labels
from fsl_course.nets import embedding_size

_FLOATS_AT_ONCE = 20_000_000  # of the differences |x_i - x_j| in memory


class Edges(nn.Module):
    """Learned edges, A = softmax over j of MLP(|x_i - x_j|) (equation 2): each row sums to one, and no node listens to itself.

    The first weights are made positive and the last ones negative, so that training starts where near nodes listen to each other.
    """

    def __init__(self, features: int, hidden: int) -> None:
        super().__init__()
        self.mlp = nn.Sequential(nn.Linear(features, hidden), nn.LeakyReLU(), nn.Linear(hidden, 1))
        with torch.no_grad():
            self.mlp[0].weight.abs_()
            self.mlp[2].weight.abs_().neg_()

    def forward(self, nodes: Tensor) -> Tensor:
        """nodes [B, V, F] -> A [B, V, V]."""
        logits = self.mlp((nodes.unsqueeze(2) - nodes.unsqueeze(1)).abs()).squeeze(-1)
        itself = torch.eye(nodes.shape[1], dtype=torch.bool, device=nodes.device)
        return logits.masked_fill(itself, -torch.inf).softmax(-1)


class Messages(nn.Module):
    """One layer: relu(A x W1 + x W2), or without relu at the end (equation 1, with the operators A and I)."""

    def __init__(self, features: int, out: int) -> None:
        super().__init__()
        self.others, self.own = nn.Linear(features, out), nn.Linear(features, out, bias=False)

    def forward(self, edges: Tensor, nodes: Tensor) -> Tensor:
        """A [B, V, V], nodes [B, V, F] -> [B, V, out]."""
        return edges @ self.others(nodes) + self.own(nodes)


class GraphNetwork(FewShotLearner):
    """Three layers of learned edges and messages; the logits are the output at the query's node (sections 4.1 and 4.2).

    A node is [embedding, label]: a one-hot label for the support, 1/N in each slot for a query. One graph holds the whole
    support and ONE query, so a query is judged alone. The weights belong to n_way slots: they serve tasks of that many classes
    only, and relabelling the slots permutes the logits on average over random slots, not by construction.

    encoder:      pictures [B, c, H, W] -> embeddings [B, D]
    transductive: True puts all queries of a task into one graph, so that each answer depends on the other queries
    hidden:       features that a layer adds to a node, and hidden units of the edges
    features:     D; None finds it by embedding a blank 28x28 picture
    """

    def __init__(
        self,
        encoder: nn.Module,
        transductive: bool = False,
        n_way: int = 5,
        hidden: int = 48,
        features: int | None = None,
    ) -> None:
        super().__init__()
        size = embedding_size(encoder) if features is None else features
        self.encoder, self.transductive, self.n_way, self.hidden = encoder, transductive, n_way, hidden
        self.norm = nn.LayerNorm(size)  # embeddings of any encoder become inputs of one size
        widths = [size + n_way + layer * hidden for layer in range(3)]
        self.edges = nn.ModuleList(Edges(width, hidden) for width in widths)
        self.messages = nn.ModuleList(Messages(*pair) for pair in zip(widths, [hidden, hidden, n_way], strict=True))

    def read(self, nodes: Tensor) -> Tensor:
        """Passes messages in B graphs: nodes [B, V, D + N] -> [B, V, N]. Dense: x <- [x, relu(layer(x))] (section 4.2)."""
        for edges, messages in zip(self.edges[:-1], self.messages[:-1], strict=True):
            nodes = torch.cat([nodes, F.leaky_relu(messages(edges(nodes), nodes))], -1)
        return self.messages[-1](self.edges[-1](nodes), nodes)

    def score(self, support: Tensor, labels: Tensor, query: Tensor, n_way: int) -> Tensor:
        """support [..., S, D], labels [..., S], query [..., M, D] -> logits [..., M, n_way]; leading axes are tasks."""
        if n_way != self.n_way:
            raise ValueError(f"this GraphNetwork has a head for {self.n_way} classes, and there are {n_way}.")
        check_labels(labels, n_way)
        if support.dim() > 2:
            tasks = zip(*(t.flatten(0, -1 - k) for t, k in ((support, 2), (labels, 1), (query, 2))), strict=True)
            return torch.stack([self.score(*task, n_way) for task in tasks]).unflatten(0, support.shape[:-2])
        known = torch.cat([self.norm(support), F.one_hot(labels, n_way).to(support)], -1)
        asked = F.pad(self.norm(query), (0, n_way), value=1 / n_way)  # [M, D + N]
        if self.transductive:
            return self.read(torch.cat([known, asked]).unsqueeze(0))[0, len(known) :]
        at_once = max(1, _FLOATS_AT_ONCE // ((len(known) + 1) ** 2 * self.edges[-1].mlp[0].in_features))
        graphs = (torch.cat([known.expand(len(p), -1, -1), p.unsqueeze(1)], 1) for p in asked.split(at_once))
        return torch.cat([self.read(graph)[:, -1] for graph in graphs])
