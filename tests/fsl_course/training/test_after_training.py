"""What follows the last step of a training: once, with the weights that the learner keeps, and without traces in a checkpoint."""

import os
import signal

import torch

from fsl_course.training.loop import fit
from fsl_course.weights.checkpoints import load_file
from tests.fsl_course.training.processes import Centred, fit_toy, sampler, weights
from tests.fsl_course.training.toys import same


def mean_embedding(learner: Centred) -> torch.Tensor:
    with torch.no_grad():
        return learner.eval().embed(sampler().source.images.flatten(0, 1).double().div(255)).mean(0)


def test_it_is_called_once_in_evaluation_mode_with_the_best_weights():
    learner, last = Centred(), Centred()
    history = fit_toy(learner, 15, None)
    assert learner.calls == [(False, False)]
    assert learner.centre.abs().max() > 0.01
    assert torch.equal(learner.centre, mean_embedding(learner))
    fit_toy(last, history.best_step, None)
    assert same(weights(last), weights(learner))


def test_a_lengthened_run_has_no_trace_of_the_first_call_and_a_complete_one_that_is_called_again_repeats_it(tmp_path):
    path, whole, lengthened = tmp_path / "run.safetensors", Centred(), Centred()
    options = {"tasks": 2, "lr": 0.01, "progress": False}
    fit(whole, sampler(), steps=6, checkpoint=tmp_path / "whole.safetensors", **options)
    fit(lengthened, sampler(), steps=3, checkpoint=path, **options)
    assert load_file(path)[0]["model.centre"].abs().max() == 0
    fit(lengthened, sampler(), steps=6, checkpoint=path, **options)
    assert same(weights(whole), weights(lengthened))
    assert same(load_file(tmp_path / "whole.safetensors")[0], load_file(path)[0])
    again = Centred(seed=1)
    assert len(fit(again, sampler(), steps=6, checkpoint=path, **options).loss) == 6
    assert again.calls == [(False, False)]
    assert same(weights(whole), weights(again))


def test_an_interrupted_run_does_not_call_it():
    learner = Centred()
    hook = learner.register_forward_pre_hook(lambda *args: os.kill(os.getpid(), signal.SIGTERM))
    assert fit(learner, sampler(), steps=100_000, progress=False).interrupted
    hook.remove()
    assert learner.calls == []
    assert learner.centre.abs().max() == 0
