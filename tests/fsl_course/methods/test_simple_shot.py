"""SimpleShot: its oracle, the laws of centred unit features, the mean that training ends with, and what ships."""

import os
import signal

import numpy as np
import pytest
import torch
from torch import Tensor

from fsl_course.data import ImageSet
from fsl_course.episodes import EpisodeSampler
from fsl_course.evaluation import evaluate
from fsl_course.methods.base import ComparesEmbeddings
from fsl_course.methods.simple_shot import SimpleShot
from fsl_course.methods.transfer import TransferNetwork
from fsl_course.nets import conv4
from fsl_course.training.distributed import Processes
from fsl_course.training.loop import fit
from fsl_course.weights.checkpoints import load_file
from tests.conftest import permute_support, relabel, settled, toy_images
from tests.fsl_course.methods.laws import evaluating_twice_changes_nothing, judges_each_query_alone, other_queries
from tests.fsl_course.methods.transferring import LABELS, randn


@pytest.fixture
def learner(precise) -> SimpleShot:
    torch.manual_seed(0)
    made = settled(SimpleShot(conv4(8).double(), 12), precise).double()
    made.mean = made.embed(precise.support_x).mean(0).detach()
    return made


def of_features(mean: Tensor) -> SimpleShot:
    """A learner whose pictures are features already."""
    made = SimpleShot(torch.nn.Identity(), 3, features=len(mean)).double().eval()
    made.mean = mean
    return made


def centred_unit(rows: np.ndarray, mean: np.ndarray) -> np.ndarray:
    moved = rows - mean
    return moved / np.sqrt((moved**2).sum(1, keepdims=True))


def test_scores_are_those_of_an_independent_implementation_with_unequal_shots():
    support, query, mean = randn(6, 4, seed=1), randn(5, 4, seed=2), randn(4, seed=3)
    found = of_features(mean).score(support, LABELS, query, 3)
    z, q = (centred_unit(rows.numpy(), mean.numpy()) for rows in (support, query))
    expected = [[-((x - z[LABELS.numpy() == k].mean(0)) ** 2).sum() for k in range(3)] for x in q]
    assert np.allclose(found.numpy(), expected, rtol=0, atol=1e-12)
    assert found.std() > 0.05


def test_by_hand_in_the_plane():
    """Around the mean (1, 1) the support becomes (1, 0) and (0, 1), the query (0.6, 0.8); without centring, slot 0 would win."""
    support, query = torch.tensor([[9.0, 1.0], [1.0, 1.5]]).double(), torch.tensor([[1.6, 1.8]]).double()
    labels = torch.tensor([0, 1])
    found = of_features(torch.ones(2).double()).score(support, labels, query, 2)
    assert found[0].tolist() == pytest.approx([-0.8, -0.4])


def test_at_one_shot_the_nearest_neighbour_wins():
    support, query, mean = randn(7, 4, seed=1), randn(50, 4, seed=2), randn(4, seed=3)
    found = of_features(mean).score(support, torch.arange(7), query, 7).argmax(1)
    z, q = (centred_unit(rows.numpy(), mean.numpy()) for rows in (support, query))
    nearest = [int(np.argmin(np.linalg.norm(z - x, axis=1))) for x in q]
    assert found.tolist() == nearest
    assert len(set(nearest)) > 3


def test_moving_or_scaling_embeddings_and_mean_changes_nothing():
    support, query, mean, offset = randn(6, 4, seed=1), randn(5, 4, seed=2), randn(4, seed=3), 5 * randn(4, seed=4)
    usual = of_features(mean).score(support, LABELS, query, 3)
    moved = of_features(mean + offset).score(support + offset, LABELS, query + offset, 3)
    scaled = of_features(7 * mean).score(7 * support, LABELS, 7 * query, 3)
    assert torch.allclose(moved, usual, rtol=0, atol=1e-12)
    assert torch.allclose(scaled, usual, rtol=0, atol=1e-12)
    assert not torch.allclose(of_features(mean).score(support + offset, LABELS, query + offset, 3), usual, atol=1e-2)


def test_relabelling_slots_permutes_logits_and_order_of_support_changes_nothing(learner, precise):
    logits, new_slot = learner(precise), torch.tensor([3, 0, 4, 1, 2])
    assert logits.shape == (15, 5)
    assert logits.std() > 0.1
    assert torch.allclose(learner(relabel(precise, new_slot))[:, new_slot], logits, atol=1e-12)
    order = torch.randperm(10, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(learner(permute_support(precise, order)), logits, atol=1e-12)


def test_a_query_is_judged_alone_in_evaluation_mode_and_not_in_training_mode(learner, precise):
    judges_each_query_alone(learner, precise)
    learner.train()
    assert not torch.allclose(learner(precise)[0], learner(other_queries(precise))[0], rtol=0, atol=1e-4)


def test_stacked_tasks_equal_single_tasks(toys, learner):
    batch = EpisodeSampler(toys, 4, 2, 3, dtype=torch.float64).batch(0, 3)
    support, query = (
        learner.embed(x.flatten(0, 1)).unflatten(0, x.shape[:2]) for x in (batch.support_x, batch.query_x)
    )
    together = learner.score(support, batch.support_y, query, 4)
    assert torch.allclose(together, torch.stack([learner(episode) for episode in batch]), rtol=0, atol=1e-10)
    assert isinstance(learner, ComparesEmbeddings)


def test_evaluating_twice_gives_the_same_and_changes_nothing(toys):
    torch.manual_seed(0)
    evaluating_twice_changes_nothing(SimpleShot(conv4(8), 12), toys, 10)


def uneven(classes: int = 24) -> ImageSet:
    """Classes of 4 to 8 real drawings; the other places are full of ink and would move the mean."""
    full = toy_images(classes, 8, noise=120)
    counts = torch.arange(classes) % 5 + 4
    images = full.images.masked_fill((torch.arange(8) >= counts[:, None])[..., None, None, None], 255)
    return ImageSet(images, counts, full.class_names, full.groups, full.splits, full.name)


def fitted(source: ImageSet, steps: int = 6, seed: int = 0, **more) -> SimpleShot:
    torch.manual_seed(seed)
    made = SimpleShot(conv4(8), len(source))
    fit(made, EpisodeSampler(source, 4, 1, 2), steps=steps, tasks=2, progress=False, **more)
    return made


@pytest.mark.parametrize("source", [toy_images(90, 8), uneven()], ids=["more than one part", "uneven"])
def test_training_ends_with_the_mean_embedding_of_all_real_pictures(source):
    learner = fitted(source)
    total, count = torch.zeros(8, dtype=torch.float64), 0
    with torch.no_grad():
        for pictures, real in zip(source.images, source.counts.tolist(), strict=True):
            for picture in pictures[:real]:
                total += learner.encoder(picture[None].float() / 255)[0].double()
                count += 1
    assert count == int(source.counts.sum())
    assert torch.allclose(learner.mean.double(), total / count, rtol=0, atol=1e-6)
    assert learner.mean.abs().max() > 0.01
    assert not learner.mean.requires_grad
    if count < source.images.shape[0] * 8:  # the mean over all places, real or not, is another
        with torch.no_grad():
            every = learner.encoder(source.images.flatten(0, 1).float() / 255).mean(0)
        assert not torch.allclose(every, learner.mean, atol=1e-4)


def test_pretraining_is_that_of_the_transferred_learner():
    """The same seed gives the same weights, bit for bit."""
    source = toy_images(24, 8, noise=120)
    simple = fitted(source)
    torch.manual_seed(0)
    other = TransferNetwork(conv4(8), 24)
    fit(other, EpisodeSampler(source, 4, 1, 2), steps=6, tasks=2, progress=False)
    found = simple.state_dict()
    assert set(found) - set(other.state_dict()) == {"mean"}
    assert all(torch.equal(found[name], tensor) for name, tensor in other.state_dict().items())
    with pytest.raises(ValueError, match=r"has 11 base classes and met class number 11.*n_base=len\(source\)"):
        SimpleShot(conv4(8), 11).training_step(EpisodeSampler(toy_images(), 12, 1, 1).batch(0, 1))


def test_it_learns_in_seconds():
    source = toy_images(80, 8, noise=160)
    train, test = source.split("train"), EpisodeSampler(source.split("test"), 5, 1, 3, seed=9)
    torch.manual_seed(0)
    learner = SimpleShot(conv4(16), len(train))
    before = evaluate(learner, test, 50).mean
    history = fit(learner, EpisodeSampler(train, 20, 1, 3), steps=60, lr=5e-3, progress=False)
    assert sum(history.loss[-5:]) < 0.5 * sum(history.loss[:5])
    assert evaluate(learner, test, 50).mean > max(0.9, before + 0.1)


def test_a_run_that_goes_on_ends_with_the_same_weights_and_mean(tmp_path):
    source, path = uneven(), tmp_path / "run.safetensors"
    whole = fitted(source, 8).state_dict()
    torch.manual_seed(0)
    stopped, seen = SimpleShot(conv4(8), len(source)), []

    def press(*args) -> None:
        seen.append(args)
        if len(seen) == 3:
            os.kill(os.getpid(), signal.SIGTERM)

    hook = stopped.encoder.register_forward_pre_hook(press)
    history = fit(stopped, EpisodeSampler(source, 4, 1, 2), steps=8, tasks=2, checkpoint=path, progress=False)
    hook.remove()
    assert history.interrupted
    assert len(history.loss) == 3
    assert stopped.mean.abs().max() == 0
    resumed = fitted(source, 8, seed=7, checkpoint=path).state_dict()
    assert whole["mean"].abs().max() > 0.01
    assert all(torch.equal(resumed[name], tensor) for name, tensor in whole.items())
    assert load_file(path)[0]["model.mean"].abs().max() == 0  # a lengthened run finds no trace of it


def test_its_tasks_cannot_be_shared_where_batch_norm_sees_them_together():
    with pytest.raises(ValueError, match="normalises the pictures of all tasks of a step together"):
        Processes(0, 2).check(SimpleShot(conv4(4), 12), tasks=2)
    Processes(0, 2).check(SimpleShot(conv4(4, norm="group"), 12), tasks=2)
