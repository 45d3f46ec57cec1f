"""The ceiling of a study: the image encoder of a recipe trained with the true labels instead of words."""

import copy
from collections.abc import Callable

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F
from tqdm import tqdm

from brgsa.device import choose_device
from brgsa_training.data.loader import BatchLoader
from brgsa_training.data.pairs import to_model_input
from brgsa_training.data.sampler import StudyBatches
from brgsa_training.phantom.training_set import PhantomRecipe, PhantomSet
from brgsa_training.phantom.zero_shot import aurocs, image_embeddings
from brgsa_training.pretrain.build import new_model, new_optimizer
from brgsa_training.pretrain.material import material
from brgsa_training.pretrain.schedule import rate_share


def supervised_scores(
    recipe: PhantomRecipe,
    train: PhantomSet,
    validation: PhantomSet,
    test: PhantomSet,
    on_validation: Callable[[float], None] = lambda macro: None,
) -> tuple[np.ndarray, float]:
    """Train a linear classifier on v, and the encoder with it, for the steps of both stages of a recipe.

    Model, start, optimizer, rate, batches and choice of the checkpoint are those of the recipe.

    Args:
        on_validation: told the macro AUROC of every validation.

    Returns:
        Logits of the test phantoms, (N, abnormalities), and the macro AUROC of validation.
    """
    training, device = recipe.training, choose_device(recipe.training.device)
    steps = recipe.phantoms.long_steps + training.steps
    pairs = material(recipe, train.volumes, train.studies)
    torch.manual_seed(training.seed)
    model = new_model(recipe, pairs)
    classifier = nn.Linear(recipe.model.embedding_size, train.labels.shape[1])
    encoder = nn.ModuleList([model.vision, model.vision_projection, classifier]).to(device)
    model.to(device)
    optimizer = new_optimizer(encoder, recipe.optimizer)
    rows = {
        case: torch.from_numpy(labels).float() for case, labels in zip(train.volumes.cases, train.labels, strict=True)
    }

    def scores(phantoms: PhantomSet) -> np.ndarray:
        with torch.inference_mode():
            return classifier(image_embeddings(model, phantoms.volumes)).cpu().numpy()

    best, chosen = -1.0, encoder.state_dict()
    batches = StudyBatches(len(pairs.train), training.batch_size, training.seed)
    loader = iter(BatchLoader(pairs.train, batches))
    for step in tqdm(range(1, steps + 1), desc="labels", unit="step", disable=None):
        batch = next(loader)
        for group in optimizer.param_groups:
            group["lr"] = recipe.optimizer.lr * rate_share(step - 1, steps, recipe.schedule)
        volumes = to_model_input(
            batch.voxels.to(device), train.volumes.plan, train.volumes.slope, train.volumes.intercept
        )
        logits = classifier(model.embed_image(volumes))
        loss = F.binary_cross_entropy_with_logits(logits, torch.stack([rows[case] for case in batch.cases]).to(device))
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(encoder.parameters(), recipe.optimizer.clip)
        optimizer.step()
        if step % training.validate_every == 0 or step == steps:
            macro = float(np.nanmean(aurocs(scores(validation), validation.labels)))
            on_validation(macro)
            if macro > best:
                best, chosen = macro, copy.deepcopy(encoder.state_dict())
    encoder.load_state_dict(chosen)
    return scores(test), best
