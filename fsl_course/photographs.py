"""A network trained on photographs as an encoder: torchvision's ResNet-18 with ImageNet weights, if they are installed."""

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fsl_course._system.torchvision_guard import import_torchvision
from fsl_course.data.assets import sha256

WEIGHTS = "resnet18-f37072fd.pth"  # torchvision's IMAGENET1K_V1; the name ends with the first digits of its SHA-256
FETCH = "from torchvision.models import resnet18; resnet18(weights='IMAGENET1K_V1')"
PIXELS = (
    112  # half the size of its training, a quarter of the cost; smaller pictures leave almost nothing of its last map
)


class PhotographEncoder(nn.Module):
    """Pictures [B, 1 or 3, H, W] in [0, 1] -> embeddings [B, 512].

    Grey pictures get three equal channels. All are resized to 112x112 and normalised as the photographs were. Drawings show ink
    as 1 on 0, but photographs of paper the other way round, so grey pictures are inverted.
    """

    def __init__(self, resnet: nn.Module) -> None:
        super().__init__()
        self.resnet = resnet
        self.register_buffer("mean", torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1), persistent=False)
        self.register_buffer("deviation", torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        if x.dim() != 4 or x.shape[1] not in (1, 3):
            raise ValueError(f"pictures must be [B, 1 or 3, H, W]; got {list(x.shape)}.")
        x = (1 - x).expand(-1, 3, -1, -1) if x.shape[1] == 1 else x
        x = F.interpolate(x, size=(PIXELS, PIXELS), mode="bilinear", antialias=True)
        return self.resnet((x - self.mean) / self.deviation)


def photograph_encoder(weights: str | Path | None = None) -> PhotographEncoder:
    """Returns ResNet-18 with ImageNet weights in evaluation mode: [B, 1 or 3, H, W] in [0, 1] -> [B, 512]. Never downloads.

    weights: the file resnet18-f37072fd.pth; None looks in torchvision's folder
    Raises ImportError or FileNotFoundError if torchvision or the weights are missing, ValueError if the weights are damaged.
    """
    models = import_torchvision().models
    path = Path(torch.hub.get_dir()) / "checkpoints" / WEIGHTS if weights is None else Path(weights)
    if not path.is_file():
        raise FileNotFoundError(
            f"the weights of ResNet-18 ({WEIGHTS}, 45 MB) are not on this machine. With a network, this fetches them once: "
            f'python -c "{FETCH}"'
        )
    if not sha256(path).startswith(expected := WEIGHTS.split("-")[1].split(".")[0]):
        raise ValueError(
            f"{path} is damaged: its SHA-256 does not start with {expected}. Delete it and fetch it again."
        )
    resnet = models.resnet18()
    resnet.load_state_dict(torch.load(path, weights_only=True))
    resnet.fc = nn.Identity()
    return PhotographEncoder(resnet).eval().requires_grad_(False)
