"""One batch gives the same gradients whole, shared by processes, and in chunks."""

import os

import torch
from torch import multiprocessing
from torch.nn.parallel import DistributedDataParallel

from brgsa.model import BrgSAConfig, BrgSAModel
from brgsa_training.pretrain.distributed import world_from_environment
from brgsa_training.pretrain.gradcache import PairEncoder, backward, repeated
from brgsa_training.pretrain.loss import LossWeights, loss_terms
from brgsa_training.pretrain.state import random_state

PAIRS = 64
CLIP = LossWeights(reconstruction=0, bank_contrastive=0)
TEXT = {"vocab_size": 50, "hidden_size": 16, "num_hidden_layers": 4, "num_attention_heads": 2, "intermediate_size": 32}


def small_model(dropout=False):
    torch.manual_seed(0)
    model = BrgSAModel(
        BrgSAConfig(
            embedding_size=24,
            patch_size=(4, 4, 4),
            position_grid=(2, 2, 2),
            vision_width=24,
            vision_depth=2,
            vision_heads=2,
            vision_mlp_size=48,
            text=TEXT,
            bank_size=40,
        )
    )
    return model.train(dropout)


def batch():
    generator = torch.Generator().manual_seed(1)
    volume = torch.randn(PAIRS, 1, 8, 8, 8, generator=generator)
    ids = torch.randint(5, 50, (PAIRS, 9), generator=generator)
    return volume, ids, torch.ones_like(ids)


def gradients(model):
    return {name: parameter.grad for name, parameter in model.named_parameters() if parameter.requires_grad}


def whole(weights):
    model = small_model()
    total, terms = backward(PairEncoder(model), batch(), weights)
    return gradients(model), total, terms.stacked()


def assert_same(ours, theirs):
    assert ours.keys() == theirs.keys()
    largest = max(gradient.abs().max() for gradient in theirs.values())
    assert largest > 1e-2
    for name, gradient in theirs.items():
        torch.testing.assert_close(ours[name], gradient, rtol=1e-5, atol=1e-5 * largest.item(), msg=name)


def test_chunks_give_the_gradients_of_the_whole_batch():
    for weights in (LossWeights(), CLIP):
        expected, total, terms = whole(weights)
        model = small_model()
        chunked_total, chunked_terms = backward(PairEncoder(model), batch(), weights, chunk=16)
        assert_same(gradients(model), expected)
        torch.testing.assert_close(chunked_total, total, rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(chunked_terms.stacked(), terms, rtol=1e-5, atol=1e-6)


def test_a_last_chunk_may_be_smaller():
    model = small_model()
    backward(PairEncoder(model), batch(), LossWeights(), chunk=24)
    assert_same(gradients(model), whole(LossWeights())[0])


def test_dropout_is_the_same_in_both_runs_of_a_chunk():
    """Expected: the chunks' graphs kept until one backward, with dropout drawn in the same order."""
    model = small_model(dropout=True)
    encoder = PairEncoder(model)
    torch.manual_seed(5)
    kept = [encoder(*part) for part in zip(*(part.split(16) for part in batch()), strict=True)]
    image, text = (torch.cat([getattr(part, name) for part in kept]) for name in ("image", "text"))
    loss_terms(encoder.rebuild(image, text)).total(LossWeights()).backward()
    expected = gradients(model)

    again = small_model(dropout=True)
    torch.manual_seed(5)
    backward(PairEncoder(again), batch(), LossWeights(), chunk=16)
    assert_same(gradients(again), expected)


def test_repeating_random_state_leaves_the_generator_where_it_was():
    torch.manual_seed(0)
    state = random_state(torch.device("cpu"))
    first = torch.rand(3)
    here = torch.get_rng_state()
    with repeated(state, torch.device("cpu")):
        assert torch.equal(torch.rand(3), first)
    assert torch.equal(torch.get_rng_state(), here)


CASES = [(weights, chunk) for weights in (LossWeights(), CLIP) for chunk in (None, 16)]


def shared_steps(rank, port, out):
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2"}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    torch.set_num_threads(1)
    with world_from_environment("cpu") as world:
        results = []
        for weights, chunk in CASES:
            model = small_model()
            encoder = DistributedDataParallel(PairEncoder(model))
            half = PAIRS // 2
            mine = tuple(part[rank * half : (rank + 1) * half] for part in batch())
            total, terms = backward(encoder, mine, weights, world, chunk)
            mean, mean_terms = world.mean(total), world.mean(terms.stacked())
            if world.first:
                results.append((gradients(model), mean, mean_terms))
        if world.first:
            torch.save(results, out)


def test_two_processes_give_the_gradients_of_the_whole_batch(free_port, tmp_path):
    out = tmp_path / "results.pt"
    multiprocessing.spawn(shared_steps, args=(free_port(), out), nprocs=2)
    results = torch.load(out, weights_only=True)
    for (weights, _), (ours, total, terms) in zip(CASES, results, strict=True):
        expected, whole_total, whole_terms = whole(weights)
        assert_same(ours, expected)
        torch.testing.assert_close(total, whole_total, rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(terms, whole_terms, rtol=1e-5, atol=1e-6)
