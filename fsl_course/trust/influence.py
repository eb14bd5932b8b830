"""Why this answer: what changes when one support picture is taken away, in closed form and by fitting again."""

from __future__ import annotations

from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

from fsl_course.episodes import Episode
from fsl_course.evaluation import evaluation_mode
from fsl_course.methods.base import FewShotLearner, check_labels, class_means
from fsl_course.methods.prototypical import squared_distances


def prototypes_without_each(support: Tensor, labels: Tensor, n_way: int) -> Tensor:
    """Returns for every support row the prototype of its class without it: (K c - z) / (K - 1).

    support: embeddings [S, D]; labels: int64 [S] -> [S, D]. Raises ValueError if a class has a single row.
    """
    shots = F.one_hot(labels, n_way).sum(0)
    check_labels(labels, n_way)
    if int(shots.min()) < 2:
        raise ValueError(
            f"class {int(shots.argmin())} has a single support row: without it the class has no prototype."
        )
    count = shots[labels].unsqueeze(1)
    return (count * class_means(support, labels, n_way)[labels] - support) / (count - 1)


def prototype_scores_without_each(support: Tensor, labels: Tensor, query: Tensor, n_way: int) -> Tensor:
    """Returns the logits of a prototypical network without each support row. query [M, D] -> [S, M, n_way].

    Only the column of the row's own class differs from the logits of the whole support.
    """
    all_rows = -squared_distances(query, class_means(support, labels, n_way))
    own = -squared_distances(query, prototypes_without_each(support, labels, n_way))  # [M, S]
    member = F.one_hot(labels, n_way).bool()[:, None]  # [S, 1, N]
    return torch.where(member, own.T[:, :, None], all_rows)


def ridge_without_each(support: Tensor, labels: Tensor, query: Tensor, n_way: int, l2: Tensor | float) -> Tensor:
    """Returns the outputs of the ridge head of R2-D2 (Bertinetto et al. 2019) without each support row, from one fit.

    The fit is linear in the targets: output(q) = sum_i s(q, i) y_i. Without row i it equals the fit in which y_i is replaced by
    what the others predict for it, and that is y_i - e_i / (1 - s(i, i)), with the residual e_i (Allen 1974). So
    output_without_i(q) = output(q) - s(q, i) e_i / (1 - s(i, i)). The bias is free, as in `ridge_head`.

    support: [S, D]; labels: int64 [S]; query: [M, D]; l2: above 0 -> [S, M, n_way], without the learner's scale
    """
    check_labels(labels, n_way)
    targets, centre = F.one_hot(labels, n_way).to(support.dtype), support.mean(0)
    rows = support - centre
    gram = rows @ rows.T + l2 * torch.eye(len(rows), dtype=rows.dtype, device=rows.device)

    def smoother(points: Tensor) -> Tensor:  # [M, D] -> weights of the targets [M, S]; the bias gives 1/S to each
        cross = torch.linalg.solve(gram, rows @ (points - centre).T).T
        return cross - cross.mean(1, keepdim=True) + 1 / len(rows)

    own, asked = smoother(support), smoother(query)
    change = (targets - own @ targets) / (1 - own.diagonal()).unsqueeze(1)  # e_i / (1 - s(i, i)), [S, N]
    return asked @ targets - asked.T[:, :, None] * change[:, None]


@torch.no_grad()
def refitted_without_each(learner: FewShotLearner, episode: Episode) -> Tensor:
    """Returns the logits of any learner without each support row, by showing it the task S times -> [S, N*Q, N].

    Every class must keep a row. The closed forms above must agree with it.
    """
    with evaluation_mode(learner):
        keep = ~torch.eye(len(episode.support_x), dtype=torch.bool)
        return torch.stack(
            [learner(replace(episode, support_x=episode.support_x[k], support_y=episode.support_y[k])) for k in keep]
        )
