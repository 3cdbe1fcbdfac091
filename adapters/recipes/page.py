"""`docs/recipes.md`, generated: `python -m acclimate.adapters.recipes.page > docs/recipes.md`."""

from __future__ import annotations

import dataclasses
import sys
from dataclasses import dataclass

import numpy as np

from acclimate.adapters.features import FeatureStatistics
from acclimate.adapters.guards import Guards
from acclimate.adapters.layout import Layout
from acclimate.adapters.manifest import Calibration
from acclimate.adapters.recipes import RECIPES, build, template, values
from acclimate.adapters.recipes.page_parts import drift_section, restoration_section
from acclimate.adapters.source import Source

CHANNELS, CLASSES, FEATURES, IMAGE = 688, 10, 64, (3, 32, 32)


@dataclass(frozen=True, slots=True)
class Card:
    """Where a recipe comes from, and the most it asks for per sample of a step at its defaults, guards not counted.

    `selective` marks recipes that ask for less where fewer samples are worth a gradient, or remembered.
    """

    origin: str
    forwards: int
    gradients: int
    selective: bool = False


CARDS: dict[str, Card] = {
    "source": Card("the frozen model", 0, 0),
    "norm": Card("Schneider et al. 2020, eq. 3", 1, 0),
    "norm_alpha": Card("You et al. 2021, eq. 3", 1, 0),
    "norm_ema": Card("running statistics of batch normalisation, Ioffe and Szegedy 2015", 2, 0),
    "tent": Card("Wang et al. 2021, eq. 1", 1, 1),
    "eta": Card("Niu et al. 2022, eqs. 2-5", 1, 1, True),
    "eata": Card("Niu et al. 2022, eqs. 2-9", 1, 1, True),
    "sar": Card("Niu et al. 2023, eqs. 2-6, algorithm 1", 2, 2),
    "rdumb": Card("Press et al. 2023, section 4", 1, 1, True),
    "deyo": Card("Lee et al. 2024, eqs. 5-9", 2, 1, True),
    "roid": Card("Marsden et al. 2024, eqs. 4-11", 2, 2, True),
    "cotta": Card("Wang et al. 2022, eqs. 1-8", 35, 1),
    "petal": Card("Brahma and Rai 2023, eqs. 6-9", 35, 1),
    "rotta": Card("Yuan, Xie and Li 2023, algorithm 1", 3, 1, True),
    "ostta": Card("Lee et al. 2023, eq. 4", 2, 1, True),
    "memo": Card("Zhang, Levine and Finn 2022, algorithm 1", 34, 32),
    "lame": Card("Boudiaf et al. 2022, eqs. 2-5", 1, 0),
    "label_shift": Card("Saerens, Latinne and Decaestecker 2002, eqs. 2.4, 2.9", 1, 0),
    "t3a": Card("Iwasawa and Matsuo 2021, algorithm 1", 1, 0),
    "cafa": Card("Jung et al. 2023, eqs. 3-5", 1, 1),
    "foa": Card("Niu et al. 2024, algorithm 1; Hansen 2016, figure 6", 28, 0),
    "zoa": Card("Deng et al. 2025; Spall 1992", 2, 0),
    "supervised": Card("cross-entropy on feedback", 1, 1, True),
    "tempo": Card("after TEMPO, arXiv 2604.19295", 1, 1, True),
    "auto": Card("`adapters/moves/shrinking.py`", 1, 1),
}


def markdown() -> str:
    """The page: one row per recipe, and what is not there."""
    source = _resnet20()
    rows = [_row(name, source) for name in sorted(RECIPES)]
    page = _PAGE.format(classes=CLASSES, parameters=2 * CHANNELS) + "\n".join(rows) + "\n" + _NOTES
    return f"{page}\n{restoration_section()}\n{drift_section()}"


def _row(name: str, source: Source) -> str:
    card, gradient = CARDS[name], f"{CARDS[name].gradients}"
    remembered = sum(value.nbytes for value in template(build(name, {}, source, Guards()), source).values())
    chosen = values(name, {})
    shown = ", ".join(f"`{field.name}` {chosen[field.name]:g}" for field in dataclasses.fields(RECIPES[name]))
    most = "at most " if card.selective and card.gradients else ""
    return f"| `{name}` | {card.origin} | {card.forwards} | {most}{gradient} | {remembered:,} | {shown} |"


def _resnet20() -> Source:
    """A source of the shape of the benchmark's ResNet-20."""
    return Source(
        parameters=Layout.of([("gamma", "norm.scale", (CHANNELS,)), ("beta", "norm.shift", (CHANNELS,))]),
        statistics=Layout.of([("mean", "norm.mean", (CHANNELS,)), ("var", "norm.var", (CHANNELS,))]),
        theta=np.ones(2 * CHANNELS, np.float32),
        stats=np.ones(2 * CHANNELS, np.float32),
        fisher=np.ones(2 * CHANNELS, np.float32),
        class_prior=np.full(CLASSES, 1 / CLASSES, np.float32),
        canary_inputs=np.zeros((0, *IMAGE), np.uint8),
        canary_labels=np.zeros(0, np.int64),
        calibration=Calibration(0.9, True, 0.9, 0.3, 0.5),
        features=FeatureStatistics(
            centres=np.zeros((CLASSES, FEATURES), np.float32),
            shares=np.full(CLASSES, 1 / CLASSES, np.float32),
            factor=np.zeros((FEATURES, 1), np.float32),
            residual=np.ones(FEATURES, np.float32),
            weight=np.ones((CLASSES, FEATURES), np.float32),
            bias=np.zeros(CLASSES, np.float32),
        ),
    )


_PAGE = """# Recipes

<!-- Generated: python -m acclimate.adapters.recipes.page > docs/recipes.md -->

A recipe says what a session does with the samples it has gathered: how its normalisation statistics follow them, how
its parameters move, what brings it back, and how its answers are corrected. Defaults are the papers', or those of
public CIFAR-10 settings where a paper has none for few classes; the docstring of each recipe says which. A parameter
is given when a session is opened, and keeps the name that it has here.

Three things differ from the papers' code for all of them. Steps are transactions: what the guards refuse is rolled
back. Statistics blend a session's past with its batch (`prior` says how many samples the past is worth; 0 is the batch
alone, the papers' setting), because a session's batches are small. Gradients flow through the batch statistics only
where `through_statistics` is 1, because a gradient with fixed statistics is asked for the selected samples alone.

**Forwards** and **gradients** are the most that a step asks for per sample at the defaults; the guards' own passes come
on top. **Bytes** is what a session remembers, for {parameters} parameters and as many statistics, {classes} classes,
64 features and 3 x 32 x 32 images (ResNet-20).

| recipe | from | forwards | gradients | bytes | parameters |
|---|---|--:|--:|--:|---|
"""

_NOTES = """
Where a recipe is less, or other, than its paper:

- `norm_ema`, `norm_alpha`: variances are biased, where public code takes torch's unbiased ones.
- `cotta`, `petal`: the papers adapt every parameter, here the adaptable ones. Where the source model is confident no
  views are asked for: 3 forwards. `petal`'s posterior has to be trained with the source model; the bundle's Fisher
  stands in for it.
- `rotta`: one update per step, so `batch_rows` is the paper's update interval.
- `roid`: the prior correction multiplies probabilities, as the paper says; the authors' code multiplies logits.
- `memo`: a chain of AugMix is one of CoTTA's views. What it learns is in the answers of the step and nowhere else, so
  it is for synchronous sessions.
- `lame`: nearness is measured between features in a step, where the bundle has them; in answers that the quantized
  graphs give, which have none, between predictions.
- `ostta`: the source model's confidence is measured under the session's statistics, so that only parameters differ.
- `foa`: evolves norm affines in 16 random directions, where the paper evolves prompts; no activation shift. A session
  whose step fails the canaries goes back and begins its search anew.
- `zoa`: one perturbation as in the paper, without its bank of domain parameters. Its discrepancy is that of the
  statistics that normalisations see; a model without running statistics has entropy alone.
- `t3a`: the layer's rows are those of the 8-bit weights. A session is answered by the float pass, several times the
  cost of the quantized one, since that alone has features; before its first step it answers as the source does.
- `cafa`: the classes share one covariance, and its 64 leading directions are kept.
- `t3a` and `cafa` need a bundle with features (`docs/bundle-format.md`); one without is refused.
- `lame`, `label_shift`, `t3a` and `roid` correct answers in an output stage: the answers of a step have passed it.
- `auto` rests: `eager` samples of a new domain are all looked at; then a step follows when the domain has grown by the
  share `growth`, after `longest` samples at most, for a gradient after every `every` samples, and at once when the
  inputs or the answers have changed by `alarm` standard errors. A step looks at `look` samples of its batch. A session
  that cannot pay when its stream has changed goes back to the source, reason `starved`.
- `supervised`, `tempo`: without feedback the first learns nothing and the second is `eata` to the bit.
- `tempo`: from 8 labels on, and until none has come for 64 steps, gradients flow through the batch statistics,
  so that every sample takes part in them, and steps are `boldness` times as long where two labels or more come a step,
  longer by as much less where fewer do. A label is learnt from once, with the
  statistics of its own batch; replaying remembered images made it worse (`docs/benchmarks.md`). Where the model's sure
  answers are wrong, more `feedback` helps.

Random views and masks are functions of the recipe's `seed`, the session's step and the sample's place in it, so a
replay or a step repeated from a snapshot draws them again to the bit.
"""

if __name__ == "__main__":
    sys.stdout.write(markdown())
