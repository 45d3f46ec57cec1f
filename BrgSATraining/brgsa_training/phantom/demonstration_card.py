"""The model card of the demonstration weights: what they are, how they were made, how good they are on phantoms."""

import datetime
from collections.abc import Sequence

import numpy as np

import brgsa
from brgsa_training.phantom.zero_shot import auroc_summary, auroc_table
from brgsa_training.pretrain.recipe import Recipe, flat
from brgsa_training.pretrain.trainer import TrainResult

CARD = """---
license: apache-2.0
library_name: brgsa
tags: [chest-ct, zero-shot, vision-language, digital-phantoms]
---
# Demonstration weights, trained on digital phantoms

**{notice}.**

They exist so that the software can be tried without anybody's scans. Digital phantoms are drawings; what these weights
say about a real scan has no meaning. Not a medical device.

* {parameters:.2f} million parameters; input {shape} voxels of {spacing} mm, HU from -1000 to 1000.
* Trained on {train} phantoms (seeds from {train_from}) with what their summaries ("There is X") and reports say:
  {long_steps} steps with captions of up to {long_sentences} sentences, then {steps} with short ones, {batch} pairs
  each. The checkpoint (step {best_step} of the latter) was chosen by the AUROC on {validation} other phantoms.
* One run, seed {seed}. How far other seeds lie from it: docs/phantoms.md, Demonstration weights.
* Made in {made} s for the phantoms and {trained} s for the training, on {machine}.
* Written on {date} by brgsa {version}. Make your own: `brgsa-training phantom train-demo --out DIR`.

## Zero-shot AUROC on {test} fresh phantoms

Score `final`, prompt "There is X", seeds from {test_from}, on which no choice was made. Intervals: DeLong, each
abnormality alone.

**{summary}**

{table}

## Recipe

```yaml
{recipe}
```
"""
HIDDEN = ("out", "data.", "weights.", "training.device", "training.log_every", "training.tensorboard")


def demonstration_card(
    recipe: Recipe,
    result: TrainResult,
    scores: np.ndarray,
    labels: np.ndarray,
    parameters: int,
    seconds: Sequence[float],
    machine: str,
) -> str:
    """Markdown of the card.

    Args:
        recipe: a `PhantomRecipe`.
        scores, labels: of the test phantoms, (N, abnormalities).
        seconds: for the phantoms, and for the training.
        machine: what it ran on, in words.
    """
    plan = recipe.phantoms
    train_seeds, _, test_seeds = plan.seeds()
    kept = {name: value for name, value in flat(recipe.to_dict()).items() if not name.startswith(HIDDEN)}
    kept |= {name: value for name, value in flat(recipe.to_dict()).items() if "sentences" in name}
    return CARD.format(
        notice=(recipe.weights.notice or "").capitalize(),
        parameters=parameters / 1e6,
        shape=f"64 x {plan.rows} x 64",
        spacing=6,
        train=plan.train,
        validation=plan.validation,
        test=len(labels),
        train_from=train_seeds.start,
        test_from=test_seeds.start,
        long_steps=plan.long_steps,
        long_sentences=plan.long_sentences,
        best_step=result.best_step,
        steps=result.steps,
        batch=recipe.training.batch_size,
        seed=recipe.training.seed,
        made=round(seconds[0]),
        trained=round(seconds[1]),
        machine=machine,
        date=datetime.date.today().isoformat(),
        version=brgsa.__version__,
        summary=auroc_summary(scores, labels),
        table="\n".join(auroc_table(scores, labels)),
        recipe="\n".join(f"{name}: {value}" for name, value in kept.items()),
    )
