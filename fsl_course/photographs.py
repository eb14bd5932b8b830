"""A network trained on photographs as an encoder: torchvision's ResNet-18 with ImageNet weights, if they are installed."""

import re
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file as load_safetensors
from torch import Tensor, nn

from fsl_course._system.torchvision_guard import import_torchvision
from fsl_course.data.assets import sha256

WEIGHTS = "resnet18-f37072fd.pth"  # torchvision's IMAGENET1K_V1; the name ends with the first digits of its SHA-256
FETCH = "from torchvision.models import resnet18; resnet18(weights='IMAGENET1K_V1')"
FEATURES = 512
PIXELS = 112  # half the side of its training, a quarter of the cost; smaller ones leave almost nothing of its last map


class PhotographEncoder(nn.Module):
    """Pictures [B, 1 or 3, H, W] in [0, 1] -> embeddings [B, 512].

    Grey pictures get three equal channels. All are resized to 112x112 and normalised as the photographs were. Drawings show ink
    as 1 on 0, but photographs of paper the other way round, so grey pictures are inverted.

    frozen: its weights are not trained, and batch norm keeps the statistics of the photographs, also in training mode
    """

    def __init__(self, resnet: nn.Module, frozen: bool = True) -> None:
        super().__init__()
        self.resnet, self.frozen = resnet.requires_grad_(not frozen), frozen
        self.register_buffer("mean", torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1), persistent=False)
        self.register_buffer("deviation", torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1), persistent=False)

    def train(self, mode: bool = True) -> "PhotographEncoder":
        """Sets the mode of the encoder. A frozen one stays in evaluation mode."""
        return super().train(mode and not self.frozen)

    def forward(self, x: Tensor) -> Tensor:
        if x.dim() != 4 or x.shape[1] not in (1, 3):
            raise ValueError(f"pictures must be [B, 1 or 3, H, W]; got {list(x.shape)}.")
        x = (1 - x).expand(-1, 3, -1, -1) if x.shape[1] == 1 else x
        x = F.interpolate(x, size=(PIXELS, PIXELS), mode="bilinear", antialias=True)
        return self.resnet((x - self.mean) / self.deviation)


def bare_encoder(frozen: bool = True) -> PhotographEncoder:
    """Makes the encoder with random weights, for others to be loaded into it. Raises ImportError if torchvision is missing."""
    resnet = import_torchvision().models.resnet18()
    resnet.fc = nn.Identity()
    return PhotographEncoder(resnet, frozen)


def load_photographs(encoder: PhotographEncoder, weights: str | Path | None = None) -> None:
    """Loads the weights of a ResNet-18 into an encoder. Never downloads, never executes what it reads.

    weights: torchvision's resnet18-f37072fd.pth, or a state dict of your own as .pth or .safetensors; None looks in torchvision's
             folder
    Raises FileNotFoundError if they are missing, ValueError if they are damaged or of another network.
    """
    path = Path(torch.hub.get_dir()) / "checkpoints" / WEIGHTS if weights is None else Path(weights).expanduser()
    if not path.is_file():
        where = "on this machine" if weights is None else f"at {path}"
        raise FileNotFoundError(
            f"the weights of ResNet-18 ({WEIGHTS}, 45 MB) are not {where}. With a network, this fetches them once into "
            f'torchvision\'s folder, where they are found without a path: python -c "{FETCH}"'
        )
    named = re.fullmatch(r"resnet18-([0-9a-f]{8})\.pth", path.name)
    if named and not sha256(path).startswith(named[1]):
        raise ValueError(f"{path} is damaged: its SHA-256 does not start with {named[1]}. Fetch it again.")
    try:
        safe = path.suffix == ".safetensors"
        read = load_safetensors(path) if safe else torch.load(path, weights_only=True, map_location="cpu")
        found = {name: tensor for name, tensor in read.items() if not name.startswith("fc.")}
        encoder.resnet.load_state_dict(found)
    except Exception as error:  # each format has errors of its own for files that are something else
        raise ValueError(f"{path} does not hold the weights of a ResNet-18 ({error!s:.200}).") from error
