"""The forms in which an encoder is shipped, and what each costs: bytes, time, memory, and how far it is from PyTorch."""

from __future__ import annotations

import logging
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fsl_course.data import ImageSet

TORCH, ONNX, FILTERS, INT8 = "PyTorch, float32", "ONNX Runtime, float32", "int8 filters", "ONNX Runtime, int8"
HALF = "ONNX Runtime, float16 means"
KINDS = (TORCH, ONNX, FILTERS, INT8, HALF)
BATCHES = (1, 64)
Run = Callable[[Tensor], Tensor]
# What a fresh process does to embed one batch. Its arguments: the file, the width of the net, the batch.
_FRESH = {
    "torch": "import sys, torch; torch.set_num_threads(1)\n"
    "from fsl_course.nets import conv4\n"
    "net = conv4(int(sys.argv[2])).eval(); net.load_state_dict(torch.load(sys.argv[1]))\n"
    "with torch.inference_mode(): net(torch.rand(int(sys.argv[3]), 1, 28, 28))\n",
    "onnx": "import sys, numpy, onnxruntime; o = onnxruntime.SessionOptions(); o.intra_op_num_threads = 1\n"
    "s = onnxruntime.InferenceSession(sys.argv[1], o, providers=['CPUExecutionProvider'])\n"
    "s.run(None, {'pictures': numpy.random.rand(int(sys.argv[3]), 1, 28, 28).astype('float32')})\n",
}
_PEAK = "print([int(l.split()[1]) for l in open('/proc/self/status') if l.startswith('VmHWM')][0] / 1024)\n"


def multiply_adds(net: nn.Module) -> int:
    """Counts the multiply-adds of all convolutions for one picture [1, 28, 28], by looking at what comes out of each."""
    counts: list[int] = []

    def count(layer: nn.Conv2d, inputs: Any, maps: Tensor) -> None:
        counts.append(maps.numel() * layer.weight[0].numel())

    hooks = [m.register_forward_hook(count) for m in net.modules() if isinstance(m, nn.Conv2d)]
    with torch.no_grad():
        net(torch.zeros(1, 1, 28, 28))
    for hook in hooks:
        hook.remove()
    return sum(counts)


def quantised(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Symmetric int8, one scale for each output channel. [o, ...] -> codes int8 [o, ...], scale [o]."""
    largest = weight.flatten(1).abs().amax(1)
    scale = torch.where(largest > 0, largest / 127, 1)
    return (weight / scale.view(-1, *[1] * (weight.dim() - 1))).round().to(torch.int8), scale


def with_int8_filters(net: nn.Module) -> tuple[nn.Module, int]:
    """Rounds the filters of a copy to int8 codes, used in float32. Returns it, and the bytes of codes, scales and shifts."""
    copy, size = deepcopy(net), 0
    for layer in copy.modules():
        if isinstance(layer, nn.Conv2d):
            codes, scale = quantised(layer.weight.detach())
            layer.weight.data = codes * scale[:, None, None, None]
            size += codes.numel() + 8 * len(scale)  # the scale, and one shift: batch norm is folded into these two
    return copy, size


def export(net: nn.Module, path: Path) -> None:
    """Writes the encoder as an ONNX file for any batch."""
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        shapes = ({0: torch.export.Dim("batch")},)
        program = torch.onnx.export(
            net, (torch.rand(4, 1, 28, 28),), dynamo=True, verbose=False, external_data=False, input_names=["pictures"],
            output_names=["embeddings"], dynamic_shapes=shapes,
        )  # fmt: skip
    for node in program.model.graph:
        node.metadata_props.clear()
    path.write_bytes(program.model_proto.SerializeToString())


def to_int8(path: Path, out: Path, calibration: Tensor) -> None:
    """Static quantisation: filters and maps in int8, the ranges of the maps from `calibration` [B, 1, 28, 28]."""
    from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        parts = iter(calibration.split(32))

        def get_next(self) -> dict[str, np.ndarray] | None:
            part = next(self.parts, None)
            return None if part is None else {"pictures": part.numpy()}

    folded = path.with_suffix(".folded.onnx")
    logging.disable(logging.WARNING)
    quant_pre_process(str(path), str(folded), skip_symbolic_shape=True)
    kinds = {"activation_type": QuantType.QUInt8, "weight_type": QuantType.QInt8}
    quantize_static(str(folded), str(out), Reader(), per_channel=True, **kinds)
    logging.disable(logging.NOTSET)


def runner(path: Path) -> Run:
    """Opens an ONNX file as a function of pictures [B, 1, 28, 28] -> embeddings [B, D], on one thread."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return lambda x: torch.from_numpy(session.run(None, {"pictures": x.numpy()})[0])


def by_torch(net: nn.Module) -> Run:
    """The net as such a function."""

    def run(x: Tensor) -> Tensor:
        with torch.inference_mode():
            return net(x)

    return run


def parity(run: Run, net: nn.Module, pictures: Tensor) -> dict[str, float]:
    """The largest difference of embeddings, and the length of the difference by that of the embeddings."""
    wanted = by_torch(net)(pictures)
    apart = run(pictures) - wanted
    return {"largest": float(apart.abs().max()), "relative": float(apart.norm() / wanted.norm())}


def ratios(runs: dict[str, Run], pictures: Tensor, rounds: int) -> dict[str, list[float]]:
    """Times every form in turns, and returns the quartiles of its time by that of the first form in the same round.

    It is the processor's time of this thread, on which all forms run: what else the machine does is not counted.
    """
    times: dict[str, list[float]] = {name: [] for name in runs}
    for number in range(rounds + 3):
        for name, run in runs.items():
            start = time.thread_time()
            run(pictures)
            if number >= 3:  # the first rounds warm up
                times[name].append(time.thread_time() - start)
    found = {name: np.array(t) for name, t in times.items()}
    first = found[next(iter(runs))]
    return {name: np.quantile(t / first, [0.25, 0.5, 0.75]).round(4).tolist() for name, t in found.items()}


def memory(kind: str, path: Path, width: int, batch: int = 64) -> float:
    """Peak resident MB of a fresh process that opens the file and embeds one batch. kind: "torch" or "onnx"."""
    command = [sys.executable, "-c", _FRESH[kind] + _PEAK, str(path), str(width), str(batch)]
    peaks = [float(subprocess.run(command, capture_output=True, text=True, check=True).stdout) for _ in range(3)]
    return round(sorted(peaks)[1], 1)


def measured(
    nets: dict[str, nn.Module], calibration: Tensor, test: ImageSet, rounds: int
) -> Iterator[tuple[dict[str, Any], Tensor]]:
    """Yields a row for every form of every net, and the embeddings [C*n, D] that it gives to all drawings of the test."""
    pictures = test.images.flatten(0, 1).float() / 255
    rows: list[dict[str, Any]] = []
    runs: dict[str, Run] = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, net in nets.items():
            path = {kind: Path(folder) / f"{name}-{k}" for k, kind in enumerate(("torch", "onnx", "int8"))}
            torch.save(net.state_dict(), path["torch"])
            export(net, path["onnx"])
            to_int8(path["onnx"], path["int8"], calibration)
            copy, size = with_int8_filters(net)
            made = {
                TORCH: (by_torch(net), path["torch"], "torch"), ONNX: (runner(path["onnx"]), path["onnx"], "onnx"),
                FILTERS: (by_torch(copy), None, ""), INT8: (runner(path["int8"]), path["int8"], "onnx"),
                HALF: (runner(path["onnx"]), None, ""),
            }  # fmt: skip
            for kind, (run, file, how) in made.items():
                row = {"label": f"{name}, {kind}", "seed": 0, "net": name, "multiply_adds": multiply_adds(net)}
                row |= {
                    "bytes": file.stat().st_size if file else size if kind == FILTERS else path["onnx"].stat().st_size
                }
                row |= {"parity": parity(run, net, pictures[:512])}
                if file:
                    row |= {"memory": memory(how, file, net.width)}
                    runs[row["label"]] = run
                rows.append(row | {"run": run})
        times = {batch: ratios(runs, pictures[:batch], rounds) for batch in BATCHES}
    for row in rows:
        run = row.pop("run")
        if row["label"] in runs:
            row["times"] = {str(batch): times[batch][row["label"]] for batch in BATCHES}
        yield row, torch.cat([run(part) for part in pictures.split(64)])
