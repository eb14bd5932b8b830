"""Ridge regression as the classifier of a task, solved in closed form (R2-D2, Bertinetto et al. 2019)."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fsl_course.methods.base import FewShotLearner, check_labels


def solve_primal(rows: Tensor, targets: Tensor, l2: Tensor | float) -> Tensor:
    """Returns the minimiser W of |rows W - targets|^2 + l2 |W|^2 from D equations: (X'X + l2 I)^-1 X'Y.

    rows: X [..., S, D]; targets: Y [..., S, N]; l2: above 0 -> [..., D, N]
    """
    identity = torch.eye(rows.shape[-1], dtype=rows.dtype, device=rows.device)
    return torch.linalg.solve(rows.mT @ rows + l2 * identity, rows.mT @ targets)


def solve_dual(rows: Tensor, targets: Tensor, l2: Tensor | float) -> Tensor:
    """Returns the same W from S equations: X'(XX' + l2 I)^-1 Y, by Woodbury's identity. Shapes of `solve_primal`."""
    identity = torch.eye(rows.shape[-2], dtype=rows.dtype, device=rows.device)
    return rows.mT @ torch.linalg.solve(rows @ rows.mT + l2 * identity, targets)


def ridge(rows: Tensor, targets: Tensor, l2: Tensor | float) -> Tensor:
    """Returns the same W from the smaller of the two systems. Shapes of `solve_primal`."""
    return (solve_dual if rows.shape[-2] <= rows.shape[-1] else solve_primal)(rows, targets, l2)


def ridge_head(support: Tensor, labels: Tensor, n_way: int, l2: Tensor | float) -> tuple[Tensor, Tensor]:
    """Returns the linear head that fits the one-hot labels: weight [..., n_way, D], bias [..., n_way].

    The bias is not penalised: the best one moves the mean of the support onto the mean of the labels, so both are subtracted
    before the solve. A head with a penalised bias, or with none, would change when all embeddings move by the same vector.

    support: [..., S, D]; labels: int64 [..., S] in 0..n_way-1, every slot at least once
    """
    check_labels(labels, n_way)
    targets = F.one_hot(labels, n_way).to(support.dtype)
    centre, share = support.mean(-2, keepdim=True), targets.mean(-2, keepdim=True)
    weight = ridge(support - centre, targets - share, l2)
    return weight.mT, (share - centre @ weight).squeeze(-2)


class RidgeRegression(FewShotLearner):
    """Logits are a scale times the ridge regression from the support to its one-hot labels; gradient flows through the solve.

    encoder: pictures [B, c, H, W] -> embeddings [B, D]
    l2:      the strength lambda of the penalty before training; lambda = exp(log_l2) is learned and stays positive
    scale:   what multiplies the regression's outputs, which lie near 0 and 1, before training; learned as exp(log_scale)

    The defaults come from short trials on validation classes of Glyphs. The authors' code penalises its bias, too, and learns one
    offset for all logits together, which a softmax cannot see; it is left out.
    """

    def __init__(self, encoder: nn.Module, l2: float = 10.0, scale: float = 10.0) -> None:
        super().__init__()
        if l2 <= 0 or scale <= 0:
            raise ValueError(f"l2 and scale must be positive; got {l2} and {scale}.")
        self.encoder = encoder
        self.log_l2 = nn.Parameter(torch.tensor(math.log(l2)))
        self.log_scale = nn.Parameter(torch.tensor(math.log(scale)))

    @property
    def l2(self) -> float:
        """The learned strength of the penalty."""
        return self.log_l2.exp().item()

    @property
    def scale(self) -> float:
        """The learned factor on the outputs."""
        return self.log_scale.exp().item()

    def score(self, support: Tensor, labels: Tensor, query: Tensor, n_way: int) -> Tensor:
        """support [..., S, D], labels [..., S], query [..., M, D] -> logits [..., M, n_way]; leading axes are tasks."""
        weight, bias = ridge_head(support, labels, n_way, self.log_l2.exp())
        return self.log_scale.exp() * (query @ weight.mT + bias.unsqueeze(-2))
