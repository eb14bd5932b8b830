import pytest
import torch

from fsl_course.data.texts import encode
from fsl_course.nets import gru_encoder, hashed_ngrams, ngram_encoder

SENTENCES = ["Turn it up!", "turn it up!", "a", "", "é b"]


def by_hand(sentence: str, lengths: tuple[int, ...], buckets: int) -> list[int]:
    """The buckets of a sentence by a loop over its bytes."""
    small = bytes(b + 32 if 65 <= b <= 90 else b for b in sentence.encode())
    framed, found = b" " + small + b" ", []
    for n in lengths:
        for start in range(len(framed) - n + 1):
            number = int.from_bytes(b"", "big")
            for byte in framed[start : start + n]:
                number = number * 257 + byte
            found.append(number % (2**31 - 1) * 48271 % (2**31 - 1) % (buckets - 1) + 1)
    return sorted(found)


@pytest.mark.parametrize("sentence", SENTENCES)
def test_buckets_are_those_of_the_loop(sentence):
    found = hashed_ngrams(encode([sentence], 16).long(), (2, 3, 4), 97)[0]
    assert sorted(found[found > 0].tolist()) == by_hand(sentence, (2, 3, 4), 97)


@pytest.mark.parametrize("maker", [ngram_encoder, gru_encoder])
def test_padding_changes_nothing(maker):
    torch.manual_seed(0)
    net = maker(8).double()
    short, long = (net(encode(SENTENCES, length).long()) for length in (16, 40))
    assert torch.allclose(short, long, atol=1e-12)
    assert short.shape == (5, 8)
    assert torch.isfinite(short).all()


def test_n_grams_do_not_see_capitals_and_the_gru_does():
    x = encode(SENTENCES[:2]).long()
    torch.manual_seed(0)
    grams, gru = ngram_encoder(8)(x), gru_encoder(8)(x)
    assert torch.equal(grams[0], grams[1])
    assert not torch.equal(gru[0], gru[1])


def test_the_random_projection_keeps_cosines_about():
    torch.manual_seed(0)
    x = encode(["where is my train", "where is my bus", "water the roses"]).long()
    z = torch.nn.functional.normalize(ngram_encoder(512)(x), dim=-1)
    assert z[0] @ z[1] > z[0] @ z[2] + 0.2


def test_gradients_of_gradients_exist_for_n_grams():
    net = ngram_encoder(4, buckets=11, lengths=(2,)).double()
    x = encode(["ab", "bc"], 4).long()

    def inner(weight: torch.Tensor) -> torch.Tensor:
        out = torch.func.functional_call(net, {"vectors.weight": weight}, (x,)).tanh().sum()
        return torch.autograd.grad(out, weight, create_graph=True)[0]

    assert torch.autograd.gradcheck(inner, net.vectors.weight.detach().requires_grad_())
