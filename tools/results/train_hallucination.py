"""Trains the drawers of lesson 16 on Glyphs: a conditional VAE and a conditional GAN around the same drawer.

    OMP_NUM_THREADS=1 python -m tools.results.train_hallucination vae
    OMP_NUM_THREADS=1 python -m tools.results.train_hallucination gan

Each writes data/checkpoints/hallucination-glyphs-NAME.safetensors and its card, in half a minute on one quiet core. Both learn
from pairs of drawings of one training letter; the card says what the VAE reaches on validation letters, in nats.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from fsl_course import load_glyphs
from fsl_course._system.files import replace_file
from fsl_course.methods.hallucination import Drawer, DrawingVAE
from fsl_course.weights.checkpoints import save_file

OUT = Path(__file__).resolve().parents[2] / "data" / "checkpoints"
STEPS, BATCH = 1000, 32


class Critic(nn.Module):
    """Judges whether x is a real drawing of the letter of its reference -> logits [B]."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for channels, outputs in ((2, width), (width, 2 * width), (2 * width, 4 * width)):
            layers += [nn.Conv2d(channels, outputs, 3, 2, 1), nn.LeakyReLU(0.2)]
        self.net = nn.Sequential(*layers, nn.Flatten(), nn.Linear(4 * width * 16, 1))

    def forward(self, x: Tensor, reference: Tensor) -> Tensor:
        """x, reference [B, 1, 28, 28] -> [B]."""
        return self.net(torch.cat([x, reference], dim=1))[:, 0]


def pairs(images: Tensor, count: int, generator: Generator) -> tuple[Tensor, Tensor]:
    """Draws pairs of different drawings of one letter: uint8 [C, n, 1, 28, 28] -> twice [count, 1, 28, 28] in 0..1."""
    letters, drawings = images.shape[:2]
    letter = torch.randint(letters, (count,), generator=generator)
    first = torch.randint(drawings, (count,), generator=generator)
    second = (first + torch.randint(1, drawings, (count,), generator=generator)) % drawings
    return images[letter, first].float() / 255, images[letter, second].float() / 255


def train_vae(images: Tensor, seed: int, steps: int = STEPS) -> DrawingVAE:
    """Minimises reconstruction plus KL by Adam; the rate rises and falls once. Returns the VAE in evaluation mode."""
    torch.manual_seed(seed)
    vae, generator = DrawingVAE(), Generator().manual_seed(seed)
    optimiser = torch.optim.Adam(vae.parameters())
    plan = torch.optim.lr_scheduler.OneCycleLR(optimiser, 4e-3, total_steps=steps)
    for step in range(1, steps + 1):
        x, reference = pairs(images, BATCH, generator)
        noise = torch.randn(BATCH, vae.drawer.latent, generator=generator)
        coins, kl = (part.mean() for part in vae.terms(x, reference, noise))
        optimiser.zero_grad()
        (coins + kl).backward()
        optimiser.step()
        plan.step()
        report(step, steps, coins=coins, kl=kl)
    return vae.eval()


def train_gan(images: Tensor, seed: int, steps: int = STEPS) -> Drawer:
    """Trains drawer and critic in turns, with the logistic losses of Goodfellow et al. 2014. Returns the drawer."""
    torch.manual_seed(seed)
    drawer, critic, generator = Drawer(), Critic(), Generator().manual_seed(seed)
    turns = [torch.optim.Adam(net.parameters(), 5e-4, betas=(0.5, 0.9)) for net in (critic, drawer)]
    for step in range(1, steps + 1):
        x, reference = pairs(images, BATCH, generator)
        fake = drawer(reference, torch.randn(BATCH, drawer.latent, generator=generator))
        judged = F.softplus(-critic(x, reference)) + F.softplus(critic(fake.detach(), reference))
        turns[0].zero_grad()
        judged.mean().backward()
        turns[0].step()
        fooled = F.softplus(-critic(fake, reference)).mean()
        turns[1].zero_grad()
        fooled.backward()
        turns[1].step()
        report(step, steps, critic=judged.mean(), drawer=fooled)
    return drawer.eval()


def file_name(name: str, seed: int) -> str:
    """Returns the name of the file of "vae" or "gan". Seed 0 ships; the others serve comparisons."""
    return f"hallucination-glyphs-{name}{f'-seed{seed}' if seed else ''}.safetensors"


def report(step: int, steps: int, **losses: Tensor) -> None:
    """Prints the losses ten times in all."""
    if step % max(1, steps // 10) == 0:
        print(f"step {step}: " + ", ".join(f"{k} {v.item():.2f}" for k, v in losses.items()), flush=True)


@torch.no_grad()
def nats(vae: DrawingVAE, images: Tensor) -> dict[str, float]:
    """Measures both terms on 1000 pairs of other letters, in nats."""
    generator = Generator().manual_seed(0)
    noise = torch.randn(1000, vae.drawer.latent, generator=generator)
    coins, kl = vae.terms(*pairs(images, 1000, generator), noise)
    return {"reconstruction": round(coins.mean().item(), 2), "kl": round(kl.mean().item(), 2)}


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=("vae", "gan"))
    parser.add_argument("--steps", type=int, default=STEPS, help=f"updates ({STEPS})")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=OUT)
    options = parser.parse_args(argv)
    torch.set_num_threads(1)
    source, began = load_glyphs(), time.process_time()
    images = source.split("train").images
    trained: nn.Module = {"vae": train_vae, "gan": train_gan}[options.name](images, options.seed, options.steps)
    card: dict[str, Any] = {
        "method": "hallucination",
        "class": type(trained).__name__,
        "data": "glyphs",
        "command": f"python -m tools.results.train_hallucination {options.name} --steps {options.steps} --seed {options.seed}",
        "seed": options.seed,
        "torch": torch.__version__,
        "threads": 1,
        "parameters": sum(p.numel() for p in trained.parameters()),
        "minutes": round((time.process_time() - began) / 60, 1),
    }
    if isinstance(trained, DrawingVAE):
        card |= {
            "protocol": "1000 pairs of validation letters, nats",
            "test": nats(trained, source.split("val").images),
        }
    path = options.out / file_name(options.name, options.seed)
    save_file(path, trained.state_dict(), card)
    replace_file(path.with_suffix(".json"), (json.dumps(card, indent=2) + "\n").encode())


if __name__ == "__main__":
    main()
