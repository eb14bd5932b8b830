"""Chooses where tensors are computed: a CUDA GPU, Apple's GPU (mps) or the processor (cpu)."""

import os

import torch


def there_is() -> list[str]:
    """Returns the names of this machine's devices in the order in which "auto" prefers them, e.g. ["cuda:0", "cuda:1", "cpu"]."""
    found = [f"cuda:{index}" for index in range(torch.cuda.device_count())] if torch.cuda.is_available() else []
    return found + (["mps"] if torch.backends.mps.is_available() else []) + ["cpu"]


def choose(name: str = "auto") -> torch.device:
    """Returns the device with this name: "auto", "cpu", "cuda", "cuda:1", ... or "mps".

    "auto" takes CUDA, else mps, else the processor. If torchrun started several processes, "cuda" and "auto" give each
    process the GPU of its number on its machine (LOCAL_RANK); "auto" then never takes mps, over which processes cannot talk.
    Raises ValueError for a device that is not there; the message lists those that are.
    """
    here = there_is()
    several = int(os.environ.get("WORLD_SIZE", "1")) > 1
    wanted = name.strip().lower()
    if wanted == "auto":
        wanted = "cuda" if here[0].startswith("cuda") else "mps" if "mps" in here and not several else "cpu"
    if wanted == "cuda":
        wanted = f"cuda:{os.environ.get('LOCAL_RANK', '0') if several else 0}"
    if wanted not in here:
        more = f" ({wanted} in this process)" if name.strip().lower() != wanted else ""
        raise ValueError(
            f'there is no device {name!r} here{more}: choose "auto" or one of {", ".join(here)}'
            + (", with at most one process for each GPU." if wanted.startswith("cuda") and several else ".")
        )
    return torch.device(wanted)
