"""Training runs: they learn, go on exactly where they were cut, and lose nothing when something goes wrong."""

import json
import os
import resource
import signal
import subprocess
import sys

import numpy as np
import pytest
import torch
from waiting import LONGEST_WAIT, wait

from brgsa.errors import BrgSAError, InputError, OutOfMemoryError, SetupError, UsageError
from brgsa.files.output_folder import MARK, output_folder
from brgsa.weights.folder import open_weights
from brgsa_training.cli import main
from brgsa_training.pretrain.checkpoint import TRAINING_RUN, load_checkpoint, save_checkpoint
from brgsa_training.pretrain.distributed import World
from brgsa_training.pretrain.material import material, open_material, set_aside
from brgsa_training.pretrain.trainer import TERMS, StoppedError, Trainer


def trainer(run, *options, **more):
    recipe = run.recipe(*options)
    return Trainer(recipe, open_material(recipe), **more)


def same(ours, theirs):
    """Whether two checkpoints hold the same, bit for bit."""
    if isinstance(ours, torch.Tensor):
        return torch.equal(ours, theirs)
    if isinstance(ours, dict):
        return ours.keys() == theirs.keys() and all(same(ours[name], theirs[name]) for name in ours)
    if isinstance(ours, list):
        return len(ours) == len(theirs) and all(map(same, ours, theirs))
    return ours == theirs


def assert_same_runs(ours, theirs, but=()):
    first, second = load_checkpoint(ours.out / "last.pt"), load_checkpoint(theirs.out / "last.pt")
    for name in first.keys() - {"recipe", *but}:
        assert same(first[name], second[name]), name


def assert_same_folders(ours, theirs):
    assert_same_runs(ours, theirs)
    first, second = load_checkpoint(ours.out / "best.pt"), load_checkpoint(theirs.out / "best.pt")
    for name in first.keys() - {"recipe"}:
        assert same(first[name], second[name]), name
    for name in ("history.csv", "weights/model.safetensors", "weights/README.md"):
        assert (ours.out / name).read_bytes() == (theirs.out / name).read_bytes(), name


def test_a_run_learns_and_leaves_weights_that_score(small_run):
    options = ("--optimizer.lr", "0.003", "--data.fewest_sentences", "3", "--data.sentences", "3")
    result = trainer(small_run, *options, "--training.epochs", "30", "--start.data_dependent", "20").run()
    losses = [row[2] for row in result.history]
    assert result.steps == 150 and losses[-1] < losses[0] - 1
    weights = open_weights(result.weights)
    assert weights.plan.shape == (8, 8, 8) and weights.trained
    model = weights.load_model()
    best = load_checkpoint(small_run.out / "best.pt")
    assert best["best"] == result.judgement == min(row[3] for row in result.history)
    assert all(torch.equal(tensor, best["model"][name]) for name, tensor in model.state_dict().items())
    card = (result.weights / "README.md").read_text()
    assert "21 studies (31 volumes)" in card and str(small_run.cache) not in card
    assert (small_run.out / "history.csv").read_text().startswith("step,epoch,train_loss,validation\n5,1.0,")


def test_a_folder_that_holds_a_persons_weights_is_refused_before_training_and_stays(small_run):
    mine = small_run.elsewhere("mine")
    (mine.out / "weights").mkdir(parents=True)
    (mine.out / "weights" / "two-years.safetensors").write_text("mine")
    with pytest.raises(UsageError, match="holds other files and no training run"):
        trainer(mine).run(until=1)
    assert [path.name for path in mine.out.rglob("*") if path.is_file()] == ["two-years.safetensors"]


def test_files_that_a_person_put_beside_the_weights_of_a_run_are_named_before_it_goes_on(small_run):
    mine = small_run.elsewhere("mine")
    trainer(mine).run(until=1)
    (mine.out / "weights").mkdir()
    (mine.out / "weights" / "notes.txt").write_text("mine")
    with pytest.raises(UsageError, match=r"holds notes.txt, which is not from here"):
        trainer(mine).run(resume=True)
    assert (mine.out / "weights" / "notes.txt").read_text() == "mine"


def test_a_run_that_is_cut_and_resumed_equals_an_uncut_one(small_run):
    """With dropout, so that random state counts, and a cut in the middle of an epoch."""
    options = ("--training.text_dropout", "true", "--training.save_every", "1", "--schedule.kind", "cosine")
    trainer(small_run, *options).run(until=13)
    cut = small_run.elsewhere("cut")
    trainer(cut, *options).run(until=7)
    trainer(cut, *options).run(resume=True, until=13)
    assert_same_runs(small_run, cut)
    other_dropout = small_run.elsewhere("other")
    trainer(other_dropout, *options, "--training.seed", "2").run(until=13)
    with pytest.raises(AssertionError):
        assert_same_runs(small_run, other_dropout)


def test_workers_change_nothing(small_run):
    trainer(small_run).run(until=7)
    others = small_run.elsewhere("workers")
    trainer(others, "--data.workers", "2").run(until=7)
    assert_same_runs(small_run, others)


def command(run, *options):
    return [sys.executable, "-m", "brgsa_training.cli", "pretrain", *run.options, *options]


ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1"}


def wait_for(path, process):
    wait(lambda: path.exists() or process.poll() is not None)
    assert process.poll() is None, process.communicate()


@pytest.mark.slow
def test_a_process_that_is_killed_goes_on_to_the_same_end(small_run):
    options = ("--training.save_every", "1", "--training.epochs", "60", "--training.text_dropout", "true")
    subprocess.run(command(small_run, *options), env=ENVIRONMENT, check=True)
    cut = small_run.elsewhere("cut")
    process = subprocess.Popen(command(cut, *options), env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    wait_for(cut.out / "last.pt", process)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert not (cut.out / "weights").exists()
    assert load_checkpoint(cut.out / "last.pt")["step"] < 300
    subprocess.run(command(cut, *options, "--resume", "auto"), env=ENVIRONMENT, check=True)
    assert_same_runs(small_run, cut)
    assert (cut.out / "history.csv").read_bytes() == (small_run.out / "history.csv").read_bytes()
    model = (cut.out / "weights" / "model.safetensors").read_bytes()
    assert model == (small_run.out / "weights" / "model.safetensors").read_bytes()


@pytest.mark.slow
def test_a_polite_signal_saves_the_step_in_hand(small_run):
    process = subprocess.Popen(
        command(small_run, "--training.epochs", "10000", "--training.save_every", "1"),
        env=ENVIRONMENT,
        stderr=subprocess.PIPE,
        text=True,
    )
    wait_for(small_run.out / "last.pt", process)
    process.terminate()
    _, errors = process.communicate(timeout=LONGEST_WAIT)
    assert process.returncode == 130
    assert "Go on with --resume auto." in errors and "Traceback" not in errors


def test_a_stop_request_saves_and_says_how_to_go_on(small_run):
    run = trainer(small_run)
    run.stop_requested = True
    with pytest.raises(StoppedError, match=r"stopped at step 1 of 20\. Go on with --resume auto"):
        run.run()
    assert load_checkpoint(small_run.out / "last.pt")["step"] == 1


def test_a_stop_request_that_comes_while_the_processes_talk_is_heard_in_the_next_step(small_run):
    class Interrupted(World):
        def mean(self, value):
            shared = super().mean(value)
            run.stop_requested = True  # as a signal handler does, when the request of this step has been shared
            return shared

    run = trainer(small_run, world=Interrupted())
    with pytest.raises(StoppedError, match="stopped at step 2 of 20"):
        run.run()


def test_a_stop_request_that_comes_in_validation_waits_until_all_processes_know_of_it(small_run):
    """Else one process saves and stops alone, and the others wait for it."""

    def judge(model):
        run.stop_requested = True
        return 1.0

    run = trainer(small_run, judge=judge)
    with pytest.raises(StoppedError, match="stopped at step 6 of 20"):
        run.run()


def test_no_process_goes_on_before_the_checkpoint_is_written(small_run):
    """Else one that has stopped ends first, and its launcher kills the one that is still writing."""
    seen = []

    class Watched(World):
        def objects(self, mine):
            seen.append((small_run.out / "last.pt").exists())
            return super().objects(mine)

    run = trainer(small_run, world=Watched())
    run.stop_requested = True
    with pytest.raises(StoppedError):
        run.run()
    assert seen == [False, True]


def test_training_stops_when_validation_no_longer_improves_and_stays_stopped(small_run):
    judgements = iter([3.0, 2.0, 2.5, 2.0, 9.0])
    options = ("--training.epochs", "40", "--training.patience", "2")
    result = trainer(small_run, *options, judge=lambda model: next(judgements)).run()
    assert (result.steps, result.best_step, result.judgement) == (20, 10, 2.0)
    again = trainer(small_run, *options).run(resume=True)
    assert again.steps == 20


@pytest.mark.parametrize("name", ["last.pt", "best.pt"])
def test_a_run_that_goes_on_in_another_folder_takes_its_best_checkpoint_along(small_run, name):
    judgements = iter([2.0, 3.0, 4.0, 5.0, 6.0, 7.0])
    trainer(small_run, judge=lambda model: next(judgements)).run(until=10)
    other = small_run.elsewhere("other")
    result = trainer(other, judge=lambda model: next(judgements)).run(resume=small_run.out / name)
    assert (result.steps, result.best_step, result.judgement) == (20, 5, 2.0)
    best = load_checkpoint(small_run.out / "best.pt")["model"]
    assert all(
        torch.equal(tensor, best[key]) for key, tensor in open_weights(result.weights).load_model().state_dict().items()
    )


def test_a_best_checkpoint_that_is_gone_is_missed_before_training(small_run):
    judgements = iter([2.0, 3.0])
    trainer(small_run, judge=lambda model: next(judgements)).run(until=10)
    (small_run.out / "best.pt").unlink()
    with pytest.raises(UsageError, match=r"the best step of the run, 5, is not in .*best\.pt"):
        trainer(small_run).run(resume=True)


@pytest.mark.parametrize("missing", [("best.pt",), ("history.csv",), ("best.pt", "history.csv")], ids=str)
def test_a_run_goes_on_whatever_file_of_its_last_step_is_missing(small_run, missing):
    trainer(small_run, judge=lambda model: 1.0).run()
    cut = small_run.elsewhere("cut")
    trainer(cut, judge=lambda model: 1.0).run(until=5)
    for name in missing:
        (cut.out / name).unlink()
    trainer(cut, judge=lambda model: 1.0).run(resume=True)
    assert_same_folders(small_run, cut)


@pytest.mark.parametrize("until", [5, 10, 20])
def test_a_run_that_was_killed_between_best_and_last_checkpoint_goes_on_from_the_best(small_run, until):
    """Every validation is the best so far, and each writes best.pt before last.pt and history.csv."""
    whole, cut, earlier = small_run, small_run.elsewhere("cut"), small_run.elsewhere("earlier")
    for run, last in ((whole, None), (cut, until), (earlier, until - 5)):
        judgements = iter(range(9, 0, -1))
        trainer(run, judge=lambda model, judgements=judgements: float(next(judgements))).run(until=last)
    for name in ("last.pt", "history.csv"):
        kept = earlier.out / name
        kept.replace(cut.out / name) if kept.exists() else (cut.out / name).unlink()
    with pytest.raises(UsageError, match="holds a run"):
        trainer(cut).run()
    judgements = iter(range(9 - until // 5, 0, -1))
    trainer(cut, judge=lambda model: float(next(judgements))).run(resume=True)
    assert_same_folders(whole, cut)


@pytest.mark.parametrize("content", [b"", b"no checkpoint"])
def test_a_damaged_best_checkpoint_is_written_again_where_the_last_is_the_best(small_run, content):
    trainer(small_run, judge=lambda model: -1.0).run(until=5)
    before = load_checkpoint(small_run.out / "best.pt")
    (small_run.out / "best.pt").write_bytes(content)
    trainer(small_run, judge=lambda model: 1.0).run(resume=True)
    assert same(load_checkpoint(small_run.out / "best.pt"), before)


def test_a_validation_without_a_number_is_never_the_best(small_run):
    judgements = iter([float("nan"), 3.0, float("nan"), 4.0])
    result = trainer(small_run, judge=lambda model: next(judgements)).run()
    assert (result.best_step, result.judgement) == (10, 3.0)


def test_validation_needs_no_double_precision(small_run):
    """Which Apple's GPUs do not have."""
    run = trainer(small_run)

    class Watch(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, function, types, arguments=(), keywords=None):
            made = function(*arguments, **(keywords or {}))
            assert not (isinstance(made, torch.Tensor) and made.dtype == torch.float64), function
            return made

    with Watch():
        run.run(until=5)


def test_a_finished_run_is_not_run_again(small_run):
    trainer(small_run).run()
    before = (small_run.out / "last.pt").stat().st_mtime_ns
    assert trainer(small_run).run(resume=True).steps == 20
    assert (small_run.out / "last.pt").stat().st_mtime_ns == before


def test_more_steps_may_be_asked_for_later(small_run):
    trainer(small_run, "--training.epochs", "2").run()
    trainer(small_run, "--training.epochs", "3").run(resume=True)
    straight = small_run.elsewhere("straight")
    trainer(straight, "--training.epochs", "3").run()
    assert_same_runs(small_run, straight)


def test_chunks_and_recomputed_blocks_train_the_same_model(small_run):
    """Compared by loss: Adam makes whole steps of rounding errors where a gradient is zero, as for the key biases."""
    whole = trainer(small_run).run(until=5).history[0]
    for name, options in {
        "chunks": ("--training.chunk", "3"),
        "blocks": ("--training.checkpoint_blocks", "true"),
    }.items():
        run = small_run.elsewhere(name)
        np.testing.assert_allclose(trainer(run, *options).run(until=5).history[0], whole, rtol=1e-4)


def test_mixed_precision_trains(small_run):
    result = trainer(small_run, "--training.precision", "bf16", "--training.epochs", "10").run()
    losses = [row[2] for row in result.history]
    assert losses[-1] < losses[0] - 0.5
    assert all(tensor.dtype == torch.float32 for tensor in load_checkpoint(small_run.out / "last.pt")["model"].values())


def test_bert_keeps_its_dropout_off_unless_asked(small_run):
    run = trainer(small_run)
    run._train_mode()
    assert run.model.training and not run.model.text.bert.training
    run.recipe.training.text_dropout = True
    run._train_mode()
    assert run.model.text.bert.training


def test_tensorboard_files_are_written(small_run):
    trainer(small_run, "--training.tensorboard", "true", "--training.log_every", "2").run()
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(small_run.out / "tensorboard"))
    events.Reload()
    tags = set(events.Tags()["scalars"])
    assert {"loss", "image_to_text", "bank_text_to_image", "gradient_norm", "lr", "validation"} <= tags
    assert [event.step for event in events.Scalars("loss")] == list(range(2, 21, 2))


def curves(run):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(run.out / "tensorboard"))
    events.Reload()
    return {name: [event.value for event in events.Scalars(name)] for name in events.Tags()["scalars"]}


@pytest.mark.slow
def test_two_processes_train_the_model_of_one(small_run, free_port):
    options = ("--training.epochs", "2", "--training.save_every", "5", "--training.tensorboard", "true")
    options += ("--training.log_every", "1")
    trainer(small_run, *options).run()
    two = small_run.elsewhere("two")
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port"]
    start = [*torchrun, str(free_port()), "-m", "brgsa_training.cli", "pretrain", *two.options, *options]
    subprocess.run(start, env=ENVIRONMENT, check=True)
    ours, theirs = (load_checkpoint(run.out / "last.pt") for run in (two, small_run))
    assert (ours["world"], ours["step"]) == (2, 10) and len(ours["random"]) == 2
    np.testing.assert_allclose(ours["history"][0][2:], theirs["history"][0][2:], rtol=1e-4)
    for name, values in curves(small_run).items():
        if name in (*TERMS, "loss"):
            np.testing.assert_allclose(curves(two)[name][:3], values[:3], rtol=1e-4, err_msg=name)
    with pytest.raises(UsageError, match=r"was written by 2 process.*this run has 1"):
        trainer(two, *options).run(resume=True)


# ------------------------------------------------------------------------------------------------------------ bad input


def fails(capsys, run, *options):
    """Exit code and the one line on stderr."""
    code = main(["pretrain", *run.options, *options])
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("brgsa-training: error: ")]
    assert len(lines) == 1
    return code, lines[0]


def test_a_run_in_the_folder_is_not_overwritten(small_run, capsys):
    trainer(small_run).run(until=2)
    before = (small_run.out / "last.pt").read_bytes()
    code, line = fails(capsys, small_run)
    assert code == 2 and "holds a run. Go on with --resume auto" in line
    assert (small_run.out / "last.pt").read_bytes() == before


def test_a_checkpoint_of_another_recipe_is_refused(small_run, capsys):
    trainer(small_run).run(until=2)
    code, line = fails(capsys, small_run, "--optimizer.lr", "0.5", "--loss.scale", "3", "--resume", "auto")
    assert code == 2 and "another recipe: loss.scale was 10.0, is 3.0; optimizer.lr was 0.01, is 0.5" in line


def test_a_checkpoint_of_other_data_is_refused(small_run, capsys):
    trainer(small_run).run(until=2)
    small_run.captions.write_text(small_run.captions.read_text().replace("heart size", "heart shape"))
    code, line = fails(capsys, small_run, "--resume", "auto")
    assert code == 2 and "other captions or volumes" in line


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04junk", b"\x80\x04c__builtin__\nprint\n."])
def test_a_damaged_checkpoint_is_named(small_run, content, capsys):
    small_run.out.mkdir()
    (small_run.out / MARK).write_text(f'{{"kind": "{TRAINING_RUN}"}}')
    (small_run.out / "last.pt").write_bytes(content)
    code, line = fails(capsys, small_run, "--resume", "auto")
    assert code == 4 and "last.pt is not a whole checkpoint" in line


def test_a_checkpoint_that_is_missing_is_named(small_run, capsys):
    code, line = fails(capsys, small_run, "--resume", "nowhere.pt")
    assert code == 4 and "no checkpoint nowhere.pt" in line


def test_two_trainers_on_one_folder_are_refused(small_run, capsys):
    with output_folder(small_run.out, TRAINING_RUN):
        code, line = fails(capsys, small_run)
    assert code == 2 and "is in use: process" in line


def test_a_missing_gpu_is_named(small_run, capsys):
    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    code, line = fails(capsys, small_run, "--training.device", "cuda")
    assert code == 4 and "no CUDA device" in line


def test_a_loss_that_is_not_finite_names_its_cases_and_keeps_the_checkpoint(small_run):
    run = trainer(small_run, "--training.save_every", "1")
    run.run(until=2)
    with torch.no_grad():
        run.model.vision_projection.bias.fill_(float("nan"))
    expected = [run.material.train[key].case for key in run.batches.batch(2)]
    with pytest.raises(BrgSAError, match=f"step 3 are not finite; its cases: {', '.join(expected)}") as caught:
        run._train(5)
    assert "\n" not in str(caught.value)
    saved = load_checkpoint(small_run.out / "last.pt")
    assert saved["step"] == 2 and all(tensor.isfinite().all() for tensor in saved["model"].values())


def test_running_out_of_memory_says_what_to_lower(small_run):
    run = trainer(small_run)

    def allocate(*_):
        torch.empty(1 << 60, dtype=torch.int8)

    run._one_step = allocate
    with pytest.raises(OutOfMemoryError, match=r"Lower training\.chunk or training\.batch_size"):
        run.run()


def test_a_full_disk_leaves_the_checkpoint_before_it(tmp_path):
    path = tmp_path / "last.pt"
    save_checkpoint(path, {"step": 1})
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limit[1]))
        with pytest.raises(BrgSAError, match="cannot write") as caught:
            save_checkpoint(path, {"step": 2, "model": torch.zeros(1_000_000)})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
        signal.signal(signal.SIGXFSZ, handler)
    assert "Free some space" in str(caught.value) and "\n" not in str(caught.value)
    assert load_checkpoint(path)["step"] == 1
    assert [entry.name for entry in tmp_path.iterdir()] == ["last.pt"]


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (("--config", "nothing"), 2, "no recipe 'nothing'"),
        (("--optimizer.lr", "fast"), 2, "optimizer.lr"),
        (("--optimizer.momentum", "1"), 2, "optimizer.momentum"),
        (("--training.batch_size", "400"), 3, "21 studies do not fill a batch of 400"),
        (("--data.shape", "[256,256,128]"), 2, "made with another plan: data.shape is (256, 256, 128)"),
        (("--data.crop", "[6,6,6]"), 2, "not a multiple of the patch"),
        (("--data.crop", "[16,8,8]"), 3, "larger than the volumes"),
        (("--data.sentences", "0"), 2, "data.fewest_sentences"),
        (("--data.split", "tuesday"), 3, "no studies in a split 'tuesday'"),
        (("--data.vocabulary", "none.txt"), 4, "no vocabulary none.txt"),
        (("--model.text_length", "99"), 2, "max_position_embeddings"),
        (("--start.image", "none.pth"), 4, "none.pth"),
        (("--start.weights", "nowhere"), 4, "no weights 'nowhere'"),
        (("--start.text", "nowhere"), 4, "config.json cannot be read"),
    ],
)
def test_a_recipe_that_does_not_fit_is_refused_in_one_line(small_run, capsys, options, code, message):
    seen, line = fails(capsys, small_run, *options)
    assert (seen, message in line) == (code, True), line
    assert not (small_run.out / "last.pt").exists()


def test_a_folder_that_cannot_be_written_is_named(small_run, capsys):
    small_run.out.write_text("a file")
    code, line = fails(capsys, small_run)
    assert code == 2 and "is a file" in line


# ---------------------------------------------------------------------------------------------------------------- plan


def test_a_dry_run_prints_the_plan_and_writes_nothing(small_run, capsys):
    assert main(["pretrain", *small_run.options, "--dry-run"]) == 0
    out = capsys.readouterr().out
    assert "21 studies (31 volumes), validation 6 studies" in out
    assert "20 of 4 pairs on 1 process(es); 5 per epoch" in out
    assert "8 x 8 x 8 voxels of 48 x 48 x 48 mm" in out and "memory" in out
    assert not small_run.out.exists()


def test_a_dry_run_refuses_what_training_would_refuse(small_run, capsys):
    code, line = fails(capsys, small_run, "--training.batch_size", "400", "--dry-run")
    assert code == 3 and "21 studies do not fill a batch of 400" in line


def test_too_few_studies_to_validate_on_are_refused_before_training(small_run, capsys):
    captions = json.loads(small_run.captions.read_text())
    captions["valid"] = dict(list(captions["valid"].items())[:1])
    small_run.captions.write_text(json.dumps(captions))
    code, line = fails(capsys, small_run)
    assert code == 2 and "1 studies are too few to validate on" in line
    assert not (small_run.out / "history.csv").exists() and not (small_run.out / "last.pt").exists()


def test_patients_are_set_aside_whole(small_run):
    recipe = small_run.recipe("--data.validation_split", "null", "--data.validation_share", "0.3")
    found = open_material(recipe)
    train, held_out = ({study.name for study in pairs.studies} for pairs in (found.train, found.validation))
    assert not train & held_out and len(train | held_out) == 21 and 2 <= len(held_out) <= 12
    with pytest.raises(InputError, match=r"too few to set 0\.01 of them aside"):
        set_aside(found.train.studies, found.train.volumes, 0.01)


def test_a_recipe_needs_no_validation(small_run):
    result = trainer(small_run, "--data.validation_split", "null", "--data.validation_share", "0").run()
    assert result.history == [] and open_weights(result.weights)


def test_the_library_takes_volumes_from_memory(small_run):
    from brgsa_training.data.arrays import ArrayVolumes
    from brgsa_training.data.captions import studies_of

    recipe = small_run.recipe()
    plan = open_material(recipe).train.volumes.plan
    volumes = ArrayVolumes(
        np.random.default_rng(0).integers(0, 255, (12, 8, 8, 8)).astype(np.uint8),
        plan,
        slope=2000 / 255,
        intercept=-1000,
    )
    studies = studies_of({str(n): ["there is lung nodule", "heart size normal"] for n in range(12)})
    result = Trainer(recipe, material(recipe, volumes, studies[:8], volumes, studies[8:])).run()
    assert result.steps == 8 and len(result.history) == 4


def test_recipes_of_the_repository_can_be_read():
    from brgsa_training.phantom.training_set import PhantomRecipe
    from brgsa_training.pretrain.command import parse
    from brgsa_training.pretrain.recipe import Recipe
    from brgsa_training.pretrain.recipe_file import RECIPES

    names = sorted(path.stem for path in RECIPES.glob("*.yaml"))
    assert {"brgsa", "no-bank", "no-summaries", "clip"} <= set(names)
    for name in names:
        kind = PhantomRecipe if name.startswith("phantom") else Recipe
        recipe, _, _ = parse(["--config", name], kind)
        json.dumps(recipe.to_dict())
    released = parse(["--config", "brgsa"])[0]
    assert (released.optimizer.lr, released.optimizer.betas, released.optimizer.clip) == (5e-5, (0.5, 0.999), 0.25)
    assert (released.training.batch_size, released.training.epochs) == (64, 39)
    assert released.schedule.kind == "constant" and released.data.crop == (224, 224, 112)
    assert parse(["--config", "no-bank"])[0].loss.bank_contrastive == 0


def test_setup_errors_have_one_line(small_run):
    with pytest.raises(SetupError) as caught:
        load_checkpoint(small_run.cache)
    assert "\n" not in str(caught.value)
