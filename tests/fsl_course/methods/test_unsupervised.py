"""Learning without labels: NT-Xent against a loop, the laws of a prototypical network, and the proof that labels play no part."""

import math

import pytest
import torch

from fsl_course.data import ImageSet, load_glyphs
from fsl_course.episodes import Episode, EpisodeSampler, PictureSampler
from fsl_course.evaluation import evaluate
from fsl_course.methods.base import ComparesEmbeddings
from fsl_course.methods.prototypical import PrototypicalNetwork
from fsl_course.methods.unsupervised import OBJECTIVES, ProtoCLR, nt_xent
from fsl_course.nets import conv4
from fsl_course.training.loop import fit
from fsl_course.weights.checkpoints import card, pretrained
from tests.conftest import settled, toy_images
from tests.fsl_course.methods import laws


def rows(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.fixture
def episode() -> Episode:
    return EpisodeSampler(toy_images(), 5, 2, 3, dtype=torch.float64)[0]


@pytest.fixture(params=OBJECTIVES)
def learner(request: pytest.FixtureRequest, episode: Episode) -> ProtoCLR:
    torch.manual_seed(0)
    return settled(ProtoCLR(conv4(8), request.param).double(), episode)


def by_loops(first: torch.Tensor, second: torch.Tensor, temperature: float) -> float:
    """The loss of SimCLR once more, number by number."""
    both, count = [*first, *second], len(first)

    def likeness(a: torch.Tensor, b: torch.Tensor) -> float:
        return math.exp(float(a @ b / (a.norm() * b.norm())) / temperature)

    losses = []
    for i, z in enumerate(both):
        partner = both[(i + count) % (2 * count)]
        rivals = sum(likeness(z, other) for j, other in enumerate(both) if j != i)
        losses.append(-math.log(likeness(z, partner) / rivals))
    return sum(losses) / len(losses)


@pytest.mark.parametrize("temperature", [0.1, 0.5, 2.0])
def test_nt_xent_agrees_with_a_loop(temperature):
    first, second = rows(0, 6, 4), rows(1, 6, 4)
    assert float(nt_xent(first, second, temperature)) == pytest.approx(by_loops(first, second, temperature), abs=1e-10)


def test_nt_xent_by_hand():
    """Two pictures whose copies are themselves, at right angles: partner e, two rivals of 1 each."""
    both = torch.eye(2)
    assert float(nt_xent(both, both, 1.0)) == pytest.approx(math.log(1 + 2 / math.e), abs=1e-6)
    assert float(nt_xent(both[:1], both[1:], 1.0)) == pytest.approx(0.0, abs=1e-6)  # one picture has no rivals


def test_nt_xent_depends_neither_on_order_nor_on_length_nor_on_which_view_comes_first():
    first, second = rows(2, 7, 5), rows(3, 7, 5)
    loss, order = nt_xent(first, second), torch.randperm(7, generator=torch.Generator().manual_seed(0))
    for other in (
        nt_xent(first[order], second[order]),
        nt_xent(second, first),
        nt_xent(3 * first, second * rows(4, 7, 1).abs()),
    ):
        assert torch.allclose(loss, other, atol=1e-12)
    assert nt_xent(first[order], second) > loss or nt_xent(first[order], second) < loss


def test_gradient_of_nt_xent_agrees_with_finite_differences():
    assert torch.autograd.gradcheck(nt_xent, [rows(seed, 4, 3).requires_grad_() for seed in (5, 6)])


def test_the_laws_of_learners_that_compare_embeddings(learner, episode):
    laws.order_and_slots_do_not_matter(learner, episode)
    laws.judges_each_query_alone(learner, episode)
    laws.stacked_tasks_equal_single_tasks(learner, toy_images(), 1e-9)
    laws.evaluating_twice_changes_nothing(learner.float().train(), toy_images(), 4)
    assert isinstance(learner, ComparesEmbeddings)


def test_it_judges_a_task_as_a_prototypical_network_does(episode):
    torch.manual_seed(0)
    encoder = conv4(8).double().eval()
    for objective, like in (
        ("prototypes", PrototypicalNetwork(encoder)),
        ("nt_xent", PrototypicalNetwork(encoder, "cosine", 2.0)),
    ):
        assert torch.equal(ProtoCLR(encoder, objective)(episode), like(episode))
    assert torch.equal(ProtoCLR(encoder).loss(episode), PrototypicalNetwork(encoder).loss(episode))


def test_the_loss_of_nt_xent_pairs_every_copy_with_its_picture(learner):
    episode = PictureSampler(toy_images(), 6, 2, dtype=torch.float64)[0]
    support, query = learner.embed(episode.support_x), learner.embed(episode.query_x)
    copies = [torch.stack([query[episode.query_y == k][q] for k in range(6)]) for q in range(2)]
    wanted = torch.stack([nt_xent(support, part) for part in copies]).mean()
    assert torch.allclose(learner.loss(episode), wanted, atol=1e-10) == (learner.objective == "nt_xent")


def without_labels(source: ImageSet) -> ImageSet:
    """The same pictures in other classes, in another order and in another number of classes."""
    pictures = source.images.flatten(0, 1)
    moved = pictures[torch.randperm(len(pictures), generator=torch.Generator().manual_seed(9))]
    classes = len(pictures) // 2
    names = [f"nothing {k}" for k in range(classes)]
    return ImageSet(moved.unflatten(0, (classes, 2)), torch.full((classes,), 2), names, names, name=source.name)


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_pictures_moved_to_other_classes_give_the_same_weights_bit_for_bit(objective):
    source, found = toy_images(12, 8, noise=300), []
    for pictures in (source, without_labels(source)):
        torch.manual_seed(0)
        learner = ProtoCLR(conv4(4), objective)
        fit(learner, PictureSampler(pictures, 10, 2), steps=4, progress=False)
        found.append(learner.state_dict())
    assert all(torch.equal(tensor, found[1][name]) for name, tensor in found[0].items())


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_it_learns_in_seconds_and_its_rival_without_warps_does_not(objective):
    source = load_glyphs()
    letters, test = source.split("train").select(range(0, 916, 3)), EpisodeSampler(source.split("test"), 5, 1, 5)
    reached = {}
    for strength in (0.0, 1.0):
        torch.manual_seed(0)
        learner = ProtoCLR(conv4(16), objective, 0.2)
        fit(learner, PictureSampler(letters, 30, 1, strength=strength), steps=60, progress=False)
        reached[strength] = evaluate(learner, test, 60).mean
    assert reached[1.0] > reached[0.0] + 0.08


def test_wrong_settings_are_explained():
    with pytest.raises(ValueError, match="one of prototypes, nt_xent; got 'triplet'"):
        ProtoCLR(conv4(4), "triplet")
    with pytest.raises(ValueError, match=r"temperature must be above 0; got 0\.0"):
        ProtoCLR(conv4(4), temperature=0.0)


def test_shipped_weights_used_no_labels_and_reach_the_number_on_their_card():
    about = card("unsupervised", "glyphs")
    assert about["labels"].startswith("none")
    assert about["validation"] == []
    row = about["test"][0]
    sampler = EpisodeSampler(load_glyphs().split("test"), row["way"], row["shot"], row["query"])
    result = evaluate(pretrained("unsupervised", "glyphs"), sampler, 100)
    assert abs(result.mean - row["mean"]) < 2 * result.ci95
    assert row["mean"] > 0.85  # nearest neighbours of pixels reach 0.51
