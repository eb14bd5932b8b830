"""Drawing episodes, beside peers that draw from pictures in memory and that read a file for every picture."""

from __future__ import annotations

import json
import random
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import default_collate

from fsl_course._system.allocator import keep_memory
from fsl_course._system.torchvision_guard import import_torchvision
from fsl_course.data import ImageSet, load_folder
from fsl_course.episodes import BLOCK, EpisodeSampler
from tools.benchmark import measure, peers
from tools.benchmark.measure import COURSE, Disagreement, Row, Settings, Side

WAY, SHOT, QUERY = 20, 5, 15
Parts = tuple[Tensor, Tensor, Tensor, Tensor]  # support pictures and labels, query pictures and labels
Episodes = Callable[[ImageSet, int], Iterator[Parts]]  # (source, number) -> that many episodes


def numbered(classes: int, drawings: int) -> ImageSet:
    """Returns pictures [1, 28, 28] that can be told apart: two pixels hold the class, a third one the drawing."""
    images = torch.zeros(classes, drawings, 1, 28, 28, dtype=torch.uint8)
    number = torch.arange(classes)
    images[:, :, 0, 14, 14], images[:, :, 0, 14, 15] = (number // 256).byte()[:, None], (number % 256).byte()[:, None]
    images[:, :, 0, 14, 16] = torch.arange(drawings, dtype=torch.uint8)
    names = [f"{i:04d}" for i in range(classes)]
    return ImageSet(images, torch.full((classes,), drawings), names, ["numbers"] * classes, name="numbers")


def check(parts: Parts, source: ImageSet) -> float:
    """Checks an episode of numbered pictures: N classes with K and Q drawings, and no drawing in both support and query.

    Returns the largest difference of a pixel from the source's. Raises Disagreement, which says what is wrong, for other faults.
    """
    support_x, support_y, query_x, query_y = (part.cpu() for part in parts)
    seen: dict[int, list[tuple[int, int]]] = {}
    worst, slots = 0.0, {}
    for pictures, labels, count in ((support_x, support_y, SHOT), (query_x, query_y, QUERY)):
        if labels.bincount(minlength=WAY).tolist() != [count] * WAY:
            raise Disagreement(
                f"an episode has {labels.bincount().tolist()} pictures of its classes, not {count} each."
            )
        pixels = (pictures[:, 0, 14, 14:17] * 255).round().long()
        classes, drawings = pixels[:, 0] * 256 + pixels[:, 1], pixels[:, 2]
        worst = max(worst, float((pictures - source.images[classes, drawings].float() / 255).abs().max()))
        for slot, place in zip(labels.tolist(), zip(classes.tolist(), drawings.tolist(), strict=True), strict=True):
            if slots.setdefault(slot, place[0]) != place[0]:
                raise Disagreement(f"slot {slot} of an episode holds the classes {slots[slot]} and {place[0]}.")
            seen.setdefault(slot, []).append(place)
    if len(set(slots.values())) != WAY:
        raise Disagreement(f"an episode holds {len(set(slots.values()))} classes, not {WAY}.")
    for slot, places in seen.items():
        if len(set(places)) != SHOT + QUERY:
            raise Disagreement(f"slot {slot} of an episode holds a drawing twice: support and query share it.")
    return worst


def agreement(*sides: Episodes, classes: int = 300) -> Row:
    """Checks that all sides draw proper episodes, three each, from the same numbered pictures without changing a pixel."""
    source = numbered(classes, SHOT + QUERY)
    worst = max(check(parts, source) for side in sides for parts in side(source, 3))
    return measure.agree("classes, drawings and pixels of 3 episodes a side out of numbered pictures", worst, 1e-6)


def of_course(settings: Settings, source: ImageSet) -> Side:
    """Returns the course's side: seconds an episode, drawn one by one as `fit` does. Every round draws a new block."""
    sampler, count = EpisodeSampler(source.to(settings.device), WAY, SHOT, QUERY), 8 if settings.quick else BLOCK

    def seconds(number: int) -> float:
        began = time.perf_counter()
        for index in range(number * BLOCK, number * BLOCK + count):
            sampler.batch(index, 1)
        measure.synchronise(settings.device)
        return (time.perf_counter() - began) / count

    return seconds


def course_episodes(source: ImageSet, count: int) -> Iterator[Parts]:
    """Yields episodes as the course draws them."""
    sampler = EpisodeSampler(source, WAY, SHOT, QUERY)
    for index in range(count):
        episode = sampler[index]
        yield episode.support_x, episode.support_y, episode.query_x, episode.query_y


def easyfsl_loader(library: Any, dataset: Any, count: int, workers: int, device: str) -> Any:
    """Returns a loader of `count` episodes that easyfsl draws."""
    sampler = library.TaskSampler(dataset, n_way=WAY, n_shot=SHOT, n_query=QUERY, n_tasks=count)
    return peers.loader(dataset, sampler, sampler, workers, device)


def delivery(episodes: Callable[[], Iterator[Any]], device: str) -> Side:
    """Returns a side that times the episodes after the first one, so that starting the loading processes does not count."""

    def seconds(number: int) -> float:
        random.seed(number)
        stream = iter(episodes())
        next(stream)
        count, began = 0, time.perf_counter()
        for batch in stream:
            for part in batch[:4]:
                part.to(device)
            count += 1
        measure.synchronise(device)
        return (time.perf_counter() - began) / count

    return seconds


def faster(library: Any, dataset: Any, count: int, settings: Settings) -> tuple[Side, Row]:
    """Returns easyfsl's side with the number of loading processes that is faster here, and the fields that report the tries."""

    def side(workers: int) -> Side:
        return delivery(lambda: easyfsl_loader(library, dataset, count, workers, settings.device), settings.device)

    workers, about = peers.faster_workers(lambda w: min(side(w)(0), side(w)(1)), settings.quick)
    return side(workers), about


def task_list(dataset: Any, count: int) -> Iterator[Parts]:
    """Yields episodes as users of learn2learn draw them: lists positions, loads them one by one, collates, splits by rank."""
    of_class: dict[int, list[int]] = {}
    for position, label in enumerate(dataset.get_labels()):
        of_class.setdefault(label, []).append(position)
    names = list(of_class)
    for _ in range(count):
        places = [place for name in random.sample(names, WAY) for place in random.sample(of_class[name], SHOT + QUERY)]
        pictures, labels = default_collate([dataset[place] for place in places])
        slots = {int(name): slot for slot, name in enumerate(labels[:: SHOT + QUERY])}
        labels = torch.tensor([slots[int(name)] for name in labels])
        first = (torch.arange(len(places)) % (SHOT + QUERY)) < SHOT
        yield pictures[first], labels[first], pictures[~first], labels[~first]


def sampling_memory(settings: Settings) -> list[Row]:
    """Times 20-way 5-shot episodes with 15 queries a class from one uint8 tensor, beside easyfsl and learn2learn's way."""
    keep_memory()
    source, repeats, count = measure.pictures(settings, "train"), settings.rounds(7), 4 if settings.quick else 65
    dataset, ours = peers.Pictures(source), of_course(settings, source)
    setting = f"{WAY}-way {SHOT}-shot, {QUERY} queries a class, an episode, {source.name}"

    def row(peer: str, side: Side, agreed: Row, **more: Any) -> Row:
        seconds = measure.race({COURSE: ours, peer: side}, repeats)
        return measure.row(
            "sampling-memory", setting, peer, seconds[COURSE], seconds[peer], settings, agreement=agreed, **more
        )

    def listed(numbers: ImageSet, wanted: int) -> Iterator[Parts]:
        return task_list(peers.Pictures(numbers), wanted)

    rows: list[Row] = []
    try:
        library = peers.easyfsl()
    except peers.Missing as error:
        rows.append({"work": "sampling-memory", "peer": "easyfsl", "skipped": str(error)})
    else:
        agreed = agreement(course_episodes, easyfsl_in_memory(library))
        side, about = faster(library, dataset, count, settings)
        rows.append(row("easyfsl", side, agreed, peer_version=library.version, **about))
    rows.append(
        row(
            "learn2learn-style",
            delivery(lambda: task_list(dataset, count), settings.device),
            agreement(course_episodes, listed),
            note="learn2learn's way of drawing a task, written anew: its own is compiled for old versions of Python",
        )
    )
    return rows


def easyfsl_in_memory(library: Any) -> Episodes:
    """Returns easyfsl's way to draw episodes from pictures in memory."""

    def episodes(source: ImageSet, count: int) -> Iterator[Parts]:
        return (batch[:4] for batch in easyfsl_loader(library, peers.Pictures(source), count, 0, "cpu"))

    return episodes


def write_files(source: ImageSet, folder: Path) -> Path:
    """Writes the pictures as PNG files, a folder for each class, and the list of folders for EasySet. Returns the list's path."""
    roots = []
    for number, drawings in enumerate(source.images):
        root = folder / "pictures" / f"{number:04d}"
        root.mkdir(parents=True)
        for k, picture in enumerate(drawings):
            Image.fromarray(picture[0].numpy()).save(root / f"{k:02d}.png")
        roots.append(str(root))
    specs = folder / "classes.json"
    specs.write_text(json.dumps({"class_names": [Path(root).name for root in roots], "class_roots": roots}))
    return specs


def from_files(library: Any, specs: Path) -> Any:
    """Returns easyfsl's data set of picture files, converted to grey tensors as in its documentation."""
    transforms = import_torchvision().transforms
    grey = transforms.Compose([transforms.Grayscale(1), transforms.ToTensor()])
    return library.EasySet(specs, image_size=28, transform=grey)


@peers.or_skipped
def sampling_files(settings: Settings) -> list[Row]:
    """Times the same episodes if easyfsl reads the file of every picture; the course has read the folder once before."""
    keep_memory()
    library = peers.easyfsl()
    source = measure.pictures(settings, "train")
    source = source.select(range(min(len(source), 30 if settings.quick else 200)))

    def episodes_from_files(numbers: ImageSet, count: int) -> Iterator[Parts]:
        with tempfile.TemporaryDirectory() as scratch:
            dataset = from_files(library, write_files(numbers, Path(scratch)))
            yield from (batch[:4] for batch in easyfsl_loader(library, dataset, count, 0, "cpu"))

    def course_from_folder(numbers: ImageSet, count: int) -> Iterator[Parts]:
        with tempfile.TemporaryDirectory() as scratch:
            write_files(numbers, Path(scratch))
            yield from course_episodes(load_folder(Path(scratch, "pictures"), invert=False), count)

    agreed = agreement(course_from_folder, episodes_from_files, classes=30)
    with tempfile.TemporaryDirectory() as scratch:
        dataset = from_files(library, write_files(source, Path(scratch)))
        began = time.perf_counter()
        folder = load_folder(Path(scratch, "pictures"), invert=False)
        reading = time.perf_counter() - began
        side, about = faster(library, dataset, 3 if settings.quick else 17, settings)
        seconds = measure.race({COURSE: of_course(settings, folder), "easyfsl": side}, settings.rounds(5))
    saved = statistics.median(seconds["easyfsl"]) - statistics.median(seconds[COURSE])
    setting = f"{WAY}-way {SHOT}-shot, {QUERY} queries a class, an episode, {len(source)} classes of {source.name}"
    return [
        measure.row(
            "sampling-files", setting, "easyfsl", seconds[COURSE], seconds["easyfsl"], settings, agreement=agreed,
            peer_version=library.version, load_folder_s=reading, episodes_until_reading_is_paid=reading / saved,
            note="files of 28 x 28 pixels, which are quick to decode; the course has read them all once before, in "
            f"{reading:.2g} s that its time leaves out", **about,
        )
    ]  # fmt: skip
