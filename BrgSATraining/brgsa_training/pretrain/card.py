"""The model card that training writes into its weights folder."""

import datetime

import brgsa
from brgsa_training.pretrain.material import Material
from brgsa_training.pretrain.recipe import Recipe, flat

CARD = """---
license: other
library_name: brgsa
tags: [chest-ct, zero-shot, vision-language]
---
# BrgSA weights trained by `brgsa-training pretrain`

{notice}* Trained on {studies} studies ({cases} volumes); validated on {validation} studies.
* Best checkpoint: step {step}, judged by validation{judgement}.
* Input: CT in HU, voxels of {spacing} mm, {shape} voxels, axes growing Left, Posterior, Superior.
* Written on {date} by brgsa {version}.
* Research use only. Not a medical device.

## Recipe

```yaml
{recipe}
```
"""
PATHS = ("out", "data.cache", "data.captions", "data.vocabulary", "data.validation_cache", "start.")


def model_card(recipe: Recipe, material: Material, step: int, judgement: float | None) -> str:
    """Markdown that tells what was trained, how, and on how much; paths of the machine stay out of it."""
    train, held_out, plan = material.train, material.validation, material.train.volumes.plan
    values = flat(recipe.to_dict()).items()
    return CARD.format(
        notice=f"**{recipe.weights.notice}**\n\n" if recipe.weights.notice else "",
        studies=len(train),
        cases=sum(len(study.cases) for study in train.studies),
        validation=len(held_out) if held_out else "no",
        step=step,
        judgement=f" ({judgement:.4f})" if judgement is not None else "",
        spacing=" x ".join(f"{size:g}" for size in plan.spacing),
        shape=" x ".join(map(str, plan.shape)),
        date=datetime.date.today().isoformat(),
        version=brgsa.__version__,
        recipe="\n".join(f"{name}: {value}" for name, value in values if not name.startswith(("weights.", *PATHS))),
    )
