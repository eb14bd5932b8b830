"""easyfsl's side of time-to-95, a process of its own, written as in its documentation.

EasySet reads picture files, TaskSampler and DataLoader make episodes, PrototypicalNetworks trains with cross-entropy and Adam.
"""

from __future__ import annotations

import json
import random
import sys
import time
from pathlib import Path


def main() -> None:
    told = json.loads(sys.argv[1])
    import torch
    from torch import nn

    from fsl_course._system.torchvision_guard import import_torchvision
    from tools.benchmark.peers import easyfsl, loader, usual_conv4
    from tools.benchmark.report import report

    torch.set_num_threads(told["threads"])
    torch.manual_seed(told["seed"])
    random.seed(told["seed"])
    library, transforms = easyfsl(), import_torchvision().transforms
    # white ink on black, as on the other side
    pipeline = [transforms.Grayscale(1), transforms.Resize(28), transforms.ToTensor()]
    if not told["quick"]:
        pipeline.insert(2, transforms.RandomInvert(1.0))
    folder, device = Path(told["folder"]), told["device"]
    train, validation = (
        library.EasySet(folder / f"{split}.json", transform=transforms.Compose(pipeline)) for split in ("train", "val")
    )
    sampler = library.TaskSampler(train, told["way"], 1, told["query"], n_tasks=told["every"])
    collate = library.TaskSampler(validation, 5, 1, told["query"], n_tasks=1)
    fixed = json.loads((folder / "episodes.json").read_text())
    batches = loader(train, sampler, sampler, told["workers"], device)
    asked = loader(validation, fixed, collate, told["workers"], device)
    model = library.PrototypicalNetworks(usual_conv4()).to(device)
    criterion, optimiser = nn.CrossEntropyLoss(), torch.optim.Adam(model.parameters(), lr=told["lr"])
    began, trained, done, accuracy = time.time(), 0.0, 0, -1.0
    while done < told["most"] and accuracy < told["target"]:
        piece = time.time()
        model.train()
        for support_images, support_labels, query_images, query_labels, _ in batches:
            optimiser.zero_grad()
            model.process_support_set(support_images.to(device), support_labels.to(device))
            loss = criterion(model(query_images.to(device)), query_labels.to(device))
            loss.backward()
            optimiser.step()
            loss.item()
            done += 1
            if done == told["most"]:
                break
        trained += time.time() - piece
        if told["target"] <= 1:  # a target above 1 asks only for the time of a few steps
            accuracy = library.evaluate(model, asked, device=device, use_tqdm=False)
    report(began, done, accuracy, trained)


if __name__ == "__main__":
    main()
