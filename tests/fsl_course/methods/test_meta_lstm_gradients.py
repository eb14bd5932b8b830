"""What the gradient of the LSTM meta-learner passes through, and where it is cut off."""

import pytest
import torch

from fsl_course.episodes import Episode
from fsl_course.methods.meta_lstm import MetaLSTM
from tests.fsl_course.methods.lines import flat, line, points


def test_gates_read_gradients_and_losses_as_constants():
    """Equations by loops once more, with the gradients and losses of the true run put in as numbers."""
    learner, episode = line(3), points()
    seen = []
    hook = learner.reader.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    claimed = torch.autograd.grad(learner.loss(episode), list(learner.parameters()))
    hook.remove()
    assert len(seen) == 3
    assert not any(inputs.requires_grad for inputs in seen)

    def with_constants(*parameters: torch.Tensor) -> torch.Tensor:
        """A function whose true gradient is the claimed one: what comes out of the reader's inputs stays fixed."""
        named = dict(zip((name for name, _ in learner.named_parameters()), parameters, strict=True))
        theta = torch.cat([named["model.weight"].flatten(), named["model.bias"]])
        i = f = torch.zeros_like(theta)
        state = torch.zeros(2, 4, dtype=theta.dtype), torch.zeros(2, 4, dtype=theta.dtype)
        for inputs in seen:
            gradient = inputs[:, 1] * (10 * inputs[:, 0]).exp()  # back from the preprocessed pair: none is tiny here
            state = torch.func.functional_call(
                learner.reader,
                {k.removeprefix("reader."): v for k, v in named.items() if k.startswith("reader.")},
                (inputs, state),
            )
            rows = torch.cat([state[0], theta[:, None]], 1)
            i, f = (
                (torch.cat([rows, g[:, None]], 1) @ named[f"{name}.weight"][0] + named[f"{name}.bias"]).sigmoid()
                for g, name in ((i, "input_gate"), (f, "forget_gate"))
            )
            theta = f * theta - i * gradient
        return (episode.query_x * theta[0] + theta[1] - episode.query_y).square().mean()

    parameters = tuple(p.detach().clone().requires_grad_() for p in learner.parameters())
    assert with_constants(*parameters).item() == pytest.approx(learner.loss(episode).item(), abs=1e-12)
    assert torch.autograd.gradcheck(with_constants, parameters, atol=1e-7)
    for expected, got in zip(torch.autograd.grad(with_constants(*parameters), parameters), claimed, strict=True):
        assert torch.allclose(expected, got, atol=1e-10)


def slopes(learner: MetaLSTM, episode: Episode) -> dict[str, torch.Tensor | None]:
    names, parameters = zip(*learner.named_parameters(), strict=True)
    return dict(zip(names, torch.autograd.grad(learner.loss(episode), parameters, allow_unused=True), strict=True))


@pytest.mark.parametrize("truncate", [3, 7])
def test_truncation_at_all_steps_cuts_nothing(truncate):
    whole, cut = slopes(line(3), points()), slopes(line(3, truncate=truncate), points())
    assert set(whole) == set(cut)
    for name, slope in whole.items():
        assert torch.equal(slope, cut[name]), name


@pytest.mark.parametrize("truncate", [1, 2])
def test_truncation_below_all_steps_cuts_off_the_start(truncate):
    whole, cut = line(3), line(3, truncate=truncate)
    assert torch.equal(flat(whole, points()), flat(cut, points()))  # values are untouched
    full, part = slopes(whole, points()), slopes(cut, points())
    for name in ("model.weight", "model.bias"):
        assert full[name].abs().max() > 1e-6
        assert part[name] is None, name
    for name in ("input_gate.weight", "forget_gate.bias", "reader.weight_ih"):
        assert part[name].abs().max() > 0, name
        assert not torch.allclose(part[name], full[name], rtol=1e-3), name


def test_truncation_cuts_the_state_and_the_last_gates_too():
    """Back through the last step only = a fresh graph from the values before it."""
    learner, episode = line(3, truncate=1), points()
    before, states = line(2), []
    hook = before.reader.register_forward_hook(lambda module, args, output: states.append(output))
    gates = {}
    hooks = [
        gate.register_forward_hook(lambda module, args, logits, name=name: gates.update({name: logits.sigmoid()}))
        for name, gate in (("input_gate", before.input_gate), ("forget_gate", before.forget_gate))
    ]
    theta = flat(before, episode).detach()
    for h in (hook, *hooks):
        h.remove()
    state = tuple(s.detach() for s in states[-1])
    inputs = []
    hook = learner.reader.register_forward_pre_hook(lambda module, args: inputs.append(args[0]))
    claimed = slopes(learner, episode)
    hook.remove()
    gradient = inputs[-1][:, 1] * (10 * inputs[-1][:, 0]).exp()
    rows = torch.cat([learner.reader(inputs[-1], state)[0], theta[:, None]], 1)
    i, f = (
        getattr(learner, name)(torch.cat([rows, gates[name].detach()], 1)).squeeze(1).sigmoid()
        for name in ("input_gate", "forget_gate")
    )
    w, b = f * theta - i * gradient
    loss = (episode.query_x * w + b - episode.query_y).square().mean()
    named = [(n, p) for n, p in learner.named_parameters() if not n.startswith("model")]
    for (name, _), expected in zip(named, torch.autograd.grad(loss, [p for _, p in named]), strict=True):
        assert torch.allclose(expected, claimed[name], atol=1e-10), name
