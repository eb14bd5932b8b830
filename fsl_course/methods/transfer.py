"""Transfer: learns features on base classes by plain classification, then fits a small classifier to each task's support.

Baseline and Baseline++ of Chen et al. 2019, nearest class means, a linear probe, and fine-tuning of the whole network.
"""

import warnings
from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fsl_course.episodes import Episode
from fsl_course.inner_loop.functional import call_with
from fsl_course.methods.base import FewShotLearner, check_labels, class_means
from fsl_course.methods.prototypical import cosine_similarities
from fsl_course.nets import embedding_size

CLASSIFIERS = ("centroid", "probe", "linear", "cosine")


class CosineClassifier(nn.Module):
    """A head with logits scale * cos(z, w_k) and one learned scale (Qi et al. 2018; Gidaris and Komodakis 2018).

    Baseline++ (Chen et al. 2019, section 3.2) fixes the factor, 2 up to 200 classes and else 10, and learns a length per class.
    """

    def __init__(self, features: int, classes: int, scale: float = 10.0) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(classes, features))
        self.log_scale = nn.Parameter(torch.tensor(scale).log())  # the logarithm, because a scale must stay positive

    def forward(self, z: Tensor) -> Tensor:
        """Maps embeddings [B, D] -> logits [B, classes]."""
        return self.log_scale.exp() * cosine_similarities(z, self.weight)


def base_head(features: int, n_base: int, kind: str = "linear") -> nn.Module:
    """Makes the head of pretraining, "linear" or "cosine", with n_base outputs: none where weights ship without it."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Initializing zero-element tensors")
        return nn.Linear(features, n_base) if kind == "linear" else CosineClassifier(features, n_base)


def pretraining_loss(embed: Callable[[Tensor], Tensor], head: nn.Module, episodes: Episode) -> Tensor:
    """Returns the cross-entropy over all base classes of all pictures in T stacked tasks, support and query: a scalar.

    embed: pictures [B, c, H, W] -> [B, D]. head: from `base_head`. Raises ValueError for a class that the head has no output for.
    """
    slots = torch.cat([episodes.support_y, episodes.query_y], dim=1)
    target = episodes.classes.gather(1, slots).flatten()  # from slots back to the classes of the source
    if (met := int(target.max())) >= (known := len(head.weight)):
        cure = "make it with n_base=len(source) of the image set that it trains on"
        raise ValueError(f"this learner has {known} base classes and met class number {met}: {cure}.")
    pictures = torch.cat([episodes.support_x, episodes.query_x], dim=1).flatten(0, 1)
    return F.cross_entropy(head(embed(pictures)), target)


def _cross_entropies(logits: Tensor, labels: Tensor) -> Tensor:
    """Sums the tasks' mean cross-entropies: a mean would share gradients out. logits [..., S, N], labels [..., S] -> scalar."""
    chosen = logits.log_softmax(-1).gather(-1, labels.unsqueeze(-1))
    return -chosen.squeeze(-1).mean(-1).sum()


def fit_probe(support: Tensor, labels: Tensor, n_way: int, l2: float = 0.01) -> tuple[Tensor, Tensor]:
    """Fits the linear probe: logistic regression on the support, solved to its unique minimum.

    Minimises mean cross-entropy + l2 / 2 * (|W|^2 + |b|^2). support [..., S, D], labels [..., S] -> W [..., N, D], b [..., N]
    """
    check_labels(labels, n_way)
    # The last column is the bias. In float32 the line search gives up before the minimum, and some GPUs have no float64.
    z, labels = F.pad(support.detach().cpu().double(), (0, 1), value=1.0), labels.cpu()
    weight = z.new_zeros(*z.shape[:-2], n_way, z.shape[-1]).requires_grad_()
    until = {"max_iter": 200, "tolerance_grad": 1e-6, "tolerance_change": 1e-12}
    solver = torch.optim.LBFGS([weight], line_search_fn="strong_wolfe", **until)

    def objective() -> Tensor:
        solver.zero_grad()
        value = _cross_entropies(z @ weight.mT, labels) + 0.5 * l2 * weight.square().sum()
        value.backward()
        return value

    solver.step(objective)  # switches gradients on by itself
    weight = weight.detach().to(support)
    return weight[..., :-1], weight[..., -1]


def fit_linear(support: Tensor, labels: Tensor, n_way: int, steps: int = 100, lr: float = 0.1) -> tuple[Tensor, Tensor]:
    """Fits a new linear head by gradient descent on the support (the Baseline of Chen et al. 2019, section 3.1).

    The head starts at zero, so that no slot has an advantage. support [..., S, D], labels [..., S] -> W [..., N, D], b [..., N]
    """
    check_labels(labels, n_way)
    z = F.pad(support.detach(), (0, 1), value=1.0)
    weight = z.new_zeros(*z.shape[:-2], n_way, z.shape[-1])
    weight = _descend(weight, lambda w: _cross_entropies(z @ w.mT, labels), steps, lr)
    return weight[..., :-1], weight[..., -1]


def fit_cosine(
    support: Tensor, labels: Tensor, n_way: int, scale: float | Tensor, steps: int = 100, lr: float = 0.1
) -> Tensor:
    """Fits a new cosine head by gradient descent (as in Baseline++). The head starts at the class means (Qi et al. 2018).

    support [..., S, D], labels [..., S] -> W [..., N, D]; logits are scale * cos(z, W)
    """
    z = F.normalize(support.detach(), dim=-1)
    start = F.normalize(class_means(z, labels, n_way), dim=-1)
    return _descend(start, lambda w: _cross_entropies(scale * cosine_similarities(z, w), labels), steps, lr)


def _descend(weight: Tensor, objective: Callable[[Tensor], Tensor], steps: int, lr: float) -> Tensor:
    """Does plain gradient descent from `weight`, also inside torch.no_grad()."""
    with torch.enable_grad():
        for _ in range(steps):
            weight = weight.detach().requires_grad_()
            weight = weight - lr * torch.autograd.grad(objective(weight), weight)[0]
    return weight.detach()


class TransferNetwork(FewShotLearner):
    """A learner whose features are learned on base classes and then frozen; a task fits only a small classifier.

    encoder:    pictures [B, c, H, W] -> embeddings [B, D]
    n_base:     number of base classes; the episodes to train on must come from an image set with that many classes
    head:       for pretraining: "linear" (Baseline) or "cosine" (after Baseline++)
    classifier: for a task: "centroid" (cosine to the class means), "probe", "linear" or "cosine" (the fit_ functions above)
    steps, lr:  of the classifiers "linear" and "cosine"
    features:   D; None finds it by embedding a blank 28x28 picture
    """

    joins_tasks = True

    def __init__(
        self,
        encoder: nn.Module,
        n_base: int,
        head: str = "linear",
        classifier: str = "centroid",
        steps: int = 100,
        lr: float = 0.1,
        features: int | None = None,
    ) -> None:
        super().__init__()
        if head not in ("linear", "cosine"):
            raise ValueError(f'head must be "linear" or "cosine"; got {head!r}.')
        if classifier not in CLASSIFIERS:
            raise ValueError(f"classifier must be one of {', '.join(CLASSIFIERS)}; got {classifier!r}.")
        size = embedding_size(encoder) if features is None else features
        self.encoder, self.head = encoder, base_head(size, n_base, head)
        self.classifier, self.steps, self.lr, self.n_base = classifier, steps, lr, n_base

    def training_step(self, episodes: Episode) -> Tensor:
        """Returns the loss of pretraining (`pretraining_loss`) on T stacked tasks, a scalar."""
        return pretraining_loss(self.embed, self.head, episodes)

    def score(self, support: Tensor, labels: Tensor, query: Tensor, n_way: int) -> Tensor:
        """Scores queries [..., M, D], given support [..., S, D] with labels [..., S] -> [..., M, n_way]; other axes are tasks."""
        if self.classifier == "centroid":
            return cosine_similarities(query, class_means(F.normalize(support, dim=-1), labels, n_way))
        if self.classifier == "cosine":
            scale = self.head.log_scale.detach().exp() if isinstance(self.head, CosineClassifier) else 10.0
            return scale * cosine_similarities(query, fit_cosine(support, labels, n_way, scale, self.steps, self.lr))
        support, query = F.normalize(support, dim=-1), F.normalize(query, dim=-1)  # one rate and l2 for every encoder
        if self.classifier == "probe":
            weight, bias = fit_probe(support, labels, n_way)
        else:
            weight, bias = fit_linear(support, labels, n_way, self.steps, self.lr)
        return query @ weight.mT + bias.unsqueeze(-2)


class FineTuneAll(FewShotLearner):
    """A learner that trains a copy of the whole encoder and a new linear head on each task's support.

    encoder:   pretrained (fine-tuning) or fresh (training from scratch); it is never changed. In evaluation mode batch norm
               uses its running statistics, and every query is judged on its own
    steps, lr: of Adam on the mean cross-entropy of the whole support
    """

    def __init__(self, encoder: nn.Module, steps: int = 50, lr: float = 1e-3, features: int | None = None) -> None:
        super().__init__()
        self.encoder, self.steps, self.lr = encoder, steps, lr
        self.size = embedding_size(encoder) if features is None else features

    def predict(self, params: dict[str, Tensor], x: Tensor) -> Tensor:
        """Predicts pictures [B, c, H, W] -> logits [B, N], with weights from `adapt`."""
        encoder = {k.removeprefix("encoder."): p for k, p in params.items() if k.startswith("encoder.")}
        return F.linear(call_with(self.encoder, encoder, x), params["head.weight"], params["head.bias"])

    def adapt(self, support_x: Tensor, support_y: Tensor, n_way: int) -> Iterator[dict[str, Tensor]]:
        """Yields the weights before the first step and after each step: steps + 1 times the same dictionary, changed in place.

        support_x: [S, c, H, W]; support_y: int64 [S]. The head starts at zero, so that no slot has an advantage.
        """
        check_labels(support_y, n_way)
        params = {f"encoder.{k}": p.detach().clone().requires_grad_() for k, p in self.encoder.named_parameters()}
        # copies, because training mode would move the encoder's own running statistics
        buffers = {f"encoder.{k}": b.clone() for k, b in self.encoder.named_buffers()}
        params["head.weight"] = support_x.new_zeros(n_way, self.size).requires_grad_()
        params["head.bias"] = support_x.new_zeros(n_way).requires_grad_()
        solver = torch.optim.Adam(list(params.values()), lr=self.lr)
        params |= buffers
        yield params
        for _ in range(self.steps):
            solver.zero_grad()
            with torch.enable_grad():
                F.cross_entropy(self.predict(params, support_x), support_y).backward()
            solver.step()
            yield params

    def forward(self, episode: Episode) -> Tensor:
        """Predicts the queries of one task with the weights after the last step -> logits [N*Q, N]."""
        *_, params = self.adapt(episode.support_x, episode.support_y, episode.n_way)
        return self.predict(params, episode.query_x)
