"""A widget that runs the inner loop one step at a time, on a new task and from two starts (lesson 07)."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache, partial

import ipywidgets
import torch
import torch.nn.functional as F
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from torch import Tensor, nn
from torch.func import grad

from fsl_classroom.widgets._inner_path import RUNAWAY, Path
from fsl_classroom.widgets._panels import TICKS, LivePanel, control, log_scale, table, together, view, wrapping
from fsl_classroom.widgets._slider_names import SliderNames
from fsl_classroom.widgets._twin import WithTwin, status
from fsl_course.data import load_glyphs
from fsl_course.episodes import Episode, EpisodeSampler, SinusoidSampler
from fsl_course.figures import CHANCE, SLOTS, SUPPORT, slot_style
from fsl_course.inner_loop.functional import call, trainable
from fsl_course.methods.maml import support_loss
from fsl_course.nets import classifier, conv4, mlp
from fsl_course.weights.checkpoints import pretrained

RATES = torch.logspace(-4, 1, 25)  # step sizes of the slice, over the range of the rate slider
STARTS = {"sine": ("meta-learned", "pretrained on all curves", "random"), "glyphs": ("meta-learned", "random")}


@cache
def pretrained_on_all(seed: int = 1, steps: int = 300) -> nn.Sequential:
    """Returns a stand-in for lesson 07's net trained on all sine curves at once, made in a fraction of a second.

    At every x, the squared error averaged over all tasks equals the squared error to their mean curve plus a constant, so both
    have the same gradient (exercise 07.4). This function fits the mean curve itself, -(2/pi) 2.55 cos x for amplitudes 0.1..5
    and phases 0..pi, by Adam on a grid: the same goal without the noise of sampled curves.
    """
    with torch.random.fork_rng(devices=[]), torch.enable_grad():
        torch.manual_seed(seed)
        net = mlp()
        x = torch.linspace(-5, 5, 101)[:, None]
        mean = -(2 / math.pi) * 2.55 * x.cos()
        optimizer = torch.optim.Adam(net.parameters(), lr=0.01)
        for _ in range(steps):
            optimizer.zero_grad()
            F.mse_loss(net(x), mean).backward()
            optimizer.step()
    return net.requires_grad_(True)


@cache
def _start(data: str, name: str) -> nn.Module:
    if name == "meta-learned":
        learner = pretrained("maml", "sinusoids") if data == "sine" else pretrained("maml", "glyphs", 5, 1)
        return learner.model.eval()
    if name == "random":
        make = mlp if data == "sine" else (lambda: classifier(conv4(), 5))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(1)
            return make().eval()
    return pretrained_on_all().eval()


@cache
def _tasks(data: str) -> SinusoidSampler | EpisodeSampler:
    """Returns new tasks: curves from a seed that no training used, or letters of the test split."""
    if data == "sine":
        return SinusoidSampler(10, 100, seed=1)
    return EpisodeSampler(load_glyphs().split("test"), 5, 1, 5, seed=1)


def _steps(count: int) -> str:
    return f"{count} step" if count == 1 else f"{count} steps"


class InnerLoopStepper(WithTwin):
    """A new task, a meta-learned start and a second one; every click takes one inner step from both.

    Controls: data ("sine" or "glyphs"), other (the second start), rate, step, ten, reset, new_task. `paths` holds the history:
    `stepper.paths["meta-learned"].params` are the parameters after `stepper.taken` steps.
    """

    def __init__(self) -> None:
        super().__init__()
        self.add_class("fsl-inner-loop-stepper")
        self.index, self.paths = 17, {}
        kinds = [("sine curve, 10 points", "sine"), ("letters, 5-way 1-shot", "glyphs")]
        self.data = control(ipywidgets.Dropdown, "task", options=kinds)
        self.other = control(ipywidgets.Dropdown, "compare with", options=STARTS["sine"][1:])
        self.rate = control(
            ipywidgets.FloatLogSlider, "inner rate α", value=0.01, min=-4, max=1, step=0.1, readout_format=".2g",
            continuous_update=False,
        )  # fmt: skip
        self.step = control(ipywidgets.Button, "Step", button_style="primary")
        self.ten = control(ipywidgets.Button, "10 steps")
        self.reset = control(ipywidgets.Button, "Reset")
        self.new_task = control(ipywidgets.Button, "New task")
        self._views, self._table, self._status = [view() for _ in range(3)], view(), ipywidgets.HTML()
        # Sine and glyphs have panels of their own, because their axes differ: log or linear, curves or losses.
        self._panels = {data: [LivePanel(place) for place in self._views] for data in STARTS}
        self._changes = 0  # version of the panels' contents; the same number means the same picture
        self.children = [
            wrapping(self.data, self.other, self.rate),
            wrapping(self.step, self.ten, self.reset, self.new_task),
            wrapping(*self._views, self._table),
            self._status,
            SliderNames(),
        ]
        self.data.observe(self._switch, "value")
        self.other.observe(self._restart, "value")
        self.rate.observe(self._update, "value")
        self.step.on_click(lambda _: self.take(1))
        self.ten.on_click(lambda _: self.take(10))
        self.reset.on_click(self._restart)
        self.new_task.on_click(lambda _: self._turn())
        self._restart()

    # --- the loop

    @property
    def task(self) -> Episode:
        """The current task."""
        return _tasks(self.data.value)[self.index]

    @property
    def taken(self) -> int:
        """Steps since the last reset, of the start that took more."""
        return max(len(path.support) for path in self.paths.values()) - 1

    def _switch(self, _: object) -> None:
        data = self.data.value
        self.other.unobserve(self._restart, "value")
        self.rate.unobserve(self._update, "value")
        self.other.options = STARTS[data][1:]
        self.rate.value = 0.01 if data == "sine" else pretrained("maml", "glyphs", 5, 1).lr
        self.other.observe(self._restart, "value")
        self.rate.observe(self._update, "value")
        self._restart()

    def _turn(self) -> None:
        self.index += 1
        self._restart()

    def _restart(self, _: object = None) -> None:
        if self.other.value == "pretrained on all curves" and not pretrained_on_all.cache_info().currsize:
            self._status.value = status("Fitting a net to all curves at once; this takes a moment, once.")
        self.paths = {}
        for name in ("meta-learned", self.other.value):
            model = _start(self.data.value, name)
            path = Path(model, {k: p.detach() for k, p in trainable(model).items()})
            path.measure(self.task)
            self.paths[name] = path
        self._changes += 1
        self._update()

    def take(self, steps: int) -> None:
        """Takes steps with the current rate from both starts. A start that has diverged stays where it is."""
        if steps > 1:
            self._status.value = status(f"Taking {_steps(steps)}.")
        for path in self.paths.values():
            for _ in range(steps):
                if path.diverged:
                    break
                path.step(self.task, self.rate.value)
        self._changes += 1
        self._update()

    @property
    def rates(self) -> Tensor:
        """The rates that `slice` tries: 25, but only 9 with letters, where each one costs a pass through a Conv4."""
        return RATES if self.data.value == "sine" else RATES[::3]

    def slice(self, name: str) -> Tensor:
        """Returns the support loss after one gradient step with each of `rates`, from this start's current parameters."""
        path = self.paths[name]
        if path.slice is None:
            loss_fn = support_loss(path.model, self.task)
            with torch.no_grad():
                slope = grad(loss_fn)(path.params)
                steps = ({k: p - t * slope[k] for k, p in path.params.items()} for t in self.rates)
                path.slice = torch.stack([loss_fn(path.laid_out(params)) for params in steps])
        return path.slice

    # --- pictures

    def _curves(self, axes: Axes) -> None:
        task, x = self.task, torch.linspace(-5, 5, 121)[:, None]
        amplitude, phase = (float(v) for v in _tasks("sine").curves(self.index, 1))
        axes.plot(x, amplitude * torch.sin(x - phase), color="black", linewidth=1, label="the task")
        for slot, (name, path) in enumerate(self.paths.items()):
            with torch.no_grad():
                y = call(path.model, path.params, x).nan_to_num(nan=torch.nan, posinf=50, neginf=-50).clamp(-50, 50)
            style = slot_style(slot + 1)
            axes.plot(x, y, color=style["color"], linestyle=("-", "--")[slot], marker=style["marker"], markevery=15,
                      markersize=4, label=name)  # fmt: skip
        axes.scatter(task.support_x, task.support_y, color=SUPPORT, s=22, zorder=3, label="support")
        axes.set(title=f"after {_steps(self.taken)}", xlabel="x", ylim=(-6.5, 6.5), xlim=(-5, 5))
        axes.legend(fontsize=7, ncols=2, loc="upper center")

    def _lines(self, axes: Axes, which: str) -> None:
        for slot, (name, path) in enumerate(self.paths.items()):
            values = [v if v <= RUNAWAY else math.nan for v in getattr(path, which)]
            style = slot_style(slot + 1)
            axes.plot(values, label=name, linestyle=("-", "--")[slot], markersize=4, **style)
            if path.diverged:
                axes.axvline(len(values) - 1, color=style["color"], linestyle=":")
                axes.text(len(values) - 1, 0.5, "diverged ", ha="right", va="center", fontsize=8, rotation=90,
                          transform=axes.get_xaxis_transform())  # fmt: skip
        if which == "query" and self.data.value == "glyphs":
            axes.axhline(0.2, color=CHANCE, linestyle=":", label="chance")
            axes.set(title="accuracy on the queries", ylim=(-0.02, 1.05))
        else:
            axes.set(title="error on the queries" if which == "query" else "support loss")
            log_scale(axes, "y")
        axes.set(xlabel="inner steps", xlim=(-0.3, max(5, self.taken) + 0.3))
        axes.xaxis.set_major_locator(MaxNLocator(TICKS, integer=True))
        axes.legend(fontsize=7)

    def _slices(self, axes: Axes, slices: dict[str, Tensor]) -> None:
        top = 1.0
        for slot, (name, losses) in enumerate(slices.items()):
            shown = [v if 0 < v <= RUNAWAY else math.nan for v in losses.tolist()]
            now = self.paths[name].support[-1]
            if now <= RUNAWAY:
                top = max(top, now)
                axes.axhline(now, color=SLOTS[slot + 1], linewidth=0.8, linestyle=":")
            style = slot_style(slot + 1)
            axes.plot(
                self.rates,
                shown,
                label=name,
                markevery=len(shown) // 4,
                markersize=4,
                linestyle=("-", "--")[slot],
                **style,
            )
        axes.axvline(self.rate.value, color="black", linewidth=1, label="the rate")
        axes.set(
            title="support loss after the next step", xlabel="rate of that step (dotted: no step)", xlim=(1e-4, 10)
        )
        log_scale(axes, "x", "y")
        if not slices:
            axes.text(0.5, 0.5, "diverged: no next step", ha="center", transform=axes.transAxes)
        elif axes.get_ylim()[1] > 100 * top:
            axes.set_ylim(top=100 * top)
        axes.legend(fontsize=7, loc="upper left")

    def _draws(self) -> list[Callable[[Axes], None]]:
        first = self._curves if self.data.value == "sine" else partial(self._lines, which="support")
        slices = {name: self.slice(name) for name in self.paths if not self.paths[name].diverged}
        return [first, partial(self._lines, which="query"), partial(self._slices, slices=slices)]

    def _numbers(self) -> str:
        measure = "query error" if self.data.value == "sine" else "query accuracy"
        return "; ".join(
            f"{name}: support loss {path.support[0]:.3g} at first, {path.support[-1]:.3g} after "
            f"{_steps(len(path.support) - 1)}, {measure} {path.query[0]:.3g} and {path.query[-1]:.3g}"
            for name, path in self.paths.items()
        )

    def _verdict(self) -> str:
        gone = [f"{name} after {_steps(len(p.support) - 1)}" for name, p in self.paths.items() if p.diverged]
        if gone:
            return f"Diverged: {' and '.join(gone)}. The loss ran away from the optimum: take a smaller rate and reset."
        measure = "query error" if self.data.value == "sine" else "query accuracy"
        ends = ", ".join(f"{path.query[-1]:.3g} from the start '{name}'" for name, path in self.paths.items())
        return f"After {_steps(self.taken)}, rate {self.rate.value:.2g}: {measure} {ends}."

    def _update(self, _: object = None) -> None:
        numbers = self._numbers()
        first = "The task's curve, its support points and both fits" if self.data.value == "sine" else "Support loss"
        words = (first, "Query error or accuracy at each step", "Support loss after one more step, against its rate")
        # Another rate moves a line in the last panel only.
        states = (self._changes, self._changes, (self._changes, self.rate.value))
        for panel, draw, what, state in zip(self._panels[self.data.value], self._draws(), words, states, strict=True):
            panel.show(draw, f"{what}. {numbers}.", state)
        head = ["start", "steps", "support loss", "query error" if self.data.value == "sine" else "query accuracy"]
        rows = [
            [name, str(len(path.support) - 1), f"{path.support[-1]:.3g}", f"{path.query[-1]:.3g}"]
            for name, path in self.paths.items()
        ]
        self._table.value = table(f"Task {self.index}", head, rows)
        self._status.value = status(self._verdict())

    def twin(self) -> tuple[Figure, str]:
        """Returns the three panels as they are now."""
        return together(self._draws(), 3.6, 2.8), (
            f"The inner loop after {_steps(self.taken)} at rate {self.rate.value:.2g}: the fit, the error at each step, and the "
            f"support loss after one more step against its rate. {self._numbers()}."
        )
