import pytest
import torch

from fsl_course._system import devices
from fsl_course._system.devices import choose


@pytest.fixture
def machine(monkeypatch):
    """A machine with so many GPUs, and Apple's GPU or not; and an environment without torchrun."""
    for name in ("WORLD_SIZE", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)

    def have(gpus: int = 0, mps: bool = False) -> None:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: gpus > 0)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)

    return have


def test_auto_takes_cuda_then_mps_then_the_processor(machine):
    machine(gpus=2, mps=True)
    assert choose() == torch.device("cuda:0")
    machine(mps=True)
    assert choose("auto") == torch.device("mps")
    machine()
    assert choose("auto") == torch.device("cpu")


def test_a_device_is_taken_by_its_name(machine):
    machine(gpus=2, mps=True)
    assert choose("cuda") == torch.device("cuda:0")
    assert choose("cuda:1") == torch.device("cuda:1")
    assert choose(" MPS ") == torch.device("mps")
    assert choose("cpu") == torch.device("cpu")


@pytest.mark.parametrize("name", ["cuda", "cuda:2", "mps", "gpu", "", "cuda:-1"])
def test_what_is_not_there_is_refused_with_what_is(machine, name):
    machine()
    with pytest.raises(ValueError, match=f"there is no device '{name}' here.*one of cpu\\."):
        choose(name)
    machine(gpus=2)
    if name != "cuda":
        with pytest.raises(ValueError, match="one of cuda:0, cuda:1, cpu\\."):
            choose(name)


def test_every_process_of_torchrun_gets_the_gpu_of_its_number(machine, monkeypatch):
    machine(gpus=2)
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert choose("auto") == choose("cuda") == torch.device("cuda:1")
    assert choose("cpu") == torch.device("cpu")
    monkeypatch.setenv("LOCAL_RANK", "2")
    with pytest.raises(ValueError, match=r"no device 'auto' here \(cuda:2 in this process\).*one process for each GPU"):
        choose("auto")
    machine(mps=True)
    assert choose("auto") == torch.device("cpu")  # processes cannot talk over mps


def test_what_this_machine_has_can_be_taken():
    for name in devices.there_is():
        assert str(choose(name)) == name
