"""The trainer of students: stages and their teachers, targets, guidance scales, and states that go on."""

import copy

import pytest
import torch

from sde import VPSDE, Denoiser
from sde.data import Dataset
from sde.data.transform import Transform
from sde.distillation import GUIDANCE_SCALE, FlowMap, FlowMapTeacher, SolvedTeacher
from sde.distillation.teacher import guided_teacher
from sde.distillation.trainer import DistillationLoss, StudentTrainer
from sde.guidance.classifier_free import ClassifierFree
from sde.guidance.conditional import Conditional
from sde.networks import NETWORKS
from sde.training.options import TrainingOptions
from tests.batteries.networks import build, randomise
from tests.sde.small_training import same

STEPS = 12


def teacher():
    return Denoiser(build("mlp", (3,), 2), VPSDE(), "v").eval()


class Halving:
    """A method of three stages, whose losses say which stage they are of, and remember what they were given."""

    times, grid, sampler, needs_teacher = "uniform", "uniform", "jump", True

    def __init__(self, number=None, target_decay=0.0):
        self.number, self.target_decay, self.seen = number, target_decay, []

    def stages(self):
        return tuple(Halving(number, self.target_decay) for number in (4, 2, 1))

    def loss(self, student, x0, cond, draws, lesson):
        self.seen.append((lesson.progress, lesson.teacher, lesson.target, cond))
        self.began = {name: p.detach().clone() for name, p in student.named_parameters()}
        t, s = draws.t, torch.full_like(draws.t, student.sde.t_min)
        x = student.sde.perturb(x0, t, draws.noise(x0))
        # What a stage begins with is no end of it.
        return (student(x, t, s, cond) - 0.5 * lesson.teacher.solve(x, t, s, cond)).square().mean(1)


def trainer(method=None, guidance=None, steps=STEPS, cond_dropout=0.0, precision=None, **options):
    model = teacher()
    student = FlowMap.of(model, guidance)
    spare = copy.deepcopy(student)
    student.autocast = precision
    data = Dataset(torch.randn(23, 3, generator=torch.Generator().manual_seed(1)), torch.arange(23) % 2, 2, Transform())
    solved = SolvedTeacher(guided_teacher(model), Exact())
    loss = DistillationLoss(method or Halving(), solved, None, lambda cond: cond, cond_dropout)
    own = TrainingOptions(**{"steps": steps, "batch_size": 8, "warmup_steps": 2, "lr": 1e-2} | options)
    return StudentTrainer(student, spare, loss, data, own)


class Exact:
    """A solver whose step leads to D."""

    def step(self, model, x, t, s, noise, carry=None):
        return model(x, t), None


def test_stages_share_the_steps_and_follow_each_other():
    run = trainer()
    first = run.distillation.teacher
    teachers, rates = [], []
    for step in range(STEPS):
        before = copy.deepcopy(run.ema.module_state(run.module))
        run.training_step()
        rates.append(run.optimizer.param_groups[0]["lr"])
        assert run.stage == step // 4
        # Each average warms up anew, and soon forgets the stage before.
        assert run.ema.model_average.updates == step % 4 + 1
        assert run.distillation.method.number == (4, 2, 1)[run.stage]
        progress, asked, target, _ = run.distillation.method.seen[-1]
        assert progress == step % 4 / 4
        assert target is None
        teachers.append(asked)
        if step % 4 == 0 and step:
            # The averaged student of the stage before is the teacher, and where the student begins.
            assert isinstance(asked, FlowMapTeacher)
            assert same(asked.flow_map.state_dict(), before)
            assert same(run.distillation.method.began, dict(asked.flow_map.named_parameters()))
            assert all(not p.requires_grad for p in asked.flow_map.parameters())
            assert {memory["step"].item() for memory in run.optimizer.state.values()} == {1}
    assert all(asked is first for asked in teachers[:4])
    assert len({id(asked) for asked in teachers}) == 3
    # Each stage warms up and decays by itself.
    torch.testing.assert_close(torch.tensor(rates[4:8]), torch.tensor(rates[:4]))


@pytest.mark.parametrize(("stop", "decay"), [(2, 0.0), (4, 0.8), (6, 0.8), (11, 0.0)])
def test_a_state_goes_on_bit_for_bit(stop, decay):
    """In the middle of a stage, and at its beginning; with a target that is an average."""
    whole = trainer(Halving(target_decay=decay))
    for step in range(STEPS):
        if step == stop:
            state = copy.deepcopy(whole.state_dict())
        whole.training_step()
    again = trainer(Halving(target_decay=decay))
    again.training_step()
    again.load_state_dict(state)
    for _ in range(STEPS - stop):
        again.training_step()
    assert same(again.state_dict(), whole.state_dict())


def test_the_target_is_the_average_of_the_student():
    run = trainer(Halving(target_decay=0.8))
    mean = {name: p.detach().clone() for name, p in run.module.named_parameters()}
    for _ in range(3):
        run.training_step()
        mean = {name: 0.8 * mean[name] + 0.2 * p.detach() for name, p in run.module.named_parameters()}
    for name, p in run.distillation.target.named_parameters():
        torch.testing.assert_close(p, mean[name])
    # Another stage, another average.
    run.training_step()
    run.training_step()
    assert run.distillation.method.seen[-1][2] is run.distillation.target


def test_target_and_teachers_compute_in_the_dtype_of_the_student():
    """From the first step on, and from the first one that goes on: another dtype would be another curve."""
    run = trainer(Halving(target_decay=0.8), precision=torch.bfloat16)
    again = trainer(Halving(target_decay=0.8), precision=torch.bfloat16)
    for step in range(6):
        assert run.distillation.target.autocast == torch.bfloat16
        if step == 5:
            again.load_state_dict(run.state_dict())
        run.training_step()
    for one in (run, again):
        assert one.distillation.target.autocast == torch.bfloat16
        assert one.distillation.teacher.flow_map.autocast == torch.bfloat16


def test_a_longer_run_goes_on_in_its_last_stage():
    run = trainer()
    for _ in range(STEPS):
        run.training_step()
    longer = trainer(steps=40)
    longer.training_step()
    longer.load_state_dict(copy.deepcopy(run.state_dict()))
    longer.training_step()
    assert longer.stage == 2
    progress = longer.distillation.method.seen[-1][0]
    assert progress == (STEPS - 8) / (40 - 8)
    short = trainer(Single())
    with pytest.raises(ValueError, match="in stage 3, and here are 1"):
        short.load_state_dict(run.state_dict())


def test_steps_that_leave_a_stage_out():
    with pytest.raises(ValueError, match="steps = 2: needs at least one for each of 3 stages"):
        trainer(steps=2)
    run = trainer()
    for _ in range(4):
        run.training_step()
    with pytest.raises(ValueError, match="steps = 5: step 4 is then in stage 3, and it is in stage 1; needs more"):
        trainer(steps=5).load_state_dict(run.state_dict())


class Single(Halving):
    def stages(self):
        return (self,)


def test_scales_that_are_inputs_are_drawn_from_their_range_and_guide_the_teacher():
    run = trainer(Single(), guidance=(1.0, 4.0), batch_size=20, cond_dropout=0.5)
    run.training_step()
    cond = run.distillation.method.seen[-1][3]
    scale = cond[GUIDANCE_SCALE]
    assert scale.shape == (20,)
    assert scale.min() >= 1
    assert scale.max() <= 4
    assert scale.std() > 0.5
    # Conditions are dropped, scales are not.
    assert 0 < (cond["labels"] < 0).sum() < 20


def test_the_teacher_is_guided_row_by_row():
    model, x, labels = teacher(), torch.randn(4, 3), torch.tensor([0, 1, -1, 1])
    t = torch.tensor([0.9, 0.5, 0.3, 0.1], dtype=torch.float64)
    torch.testing.assert_close(guided_teacher(model, 3.0)(labels)(x, t), ClassifierFree(model, labels, 3.0)(x, t))
    torch.testing.assert_close(guided_teacher(model)(labels)(x, t), Conditional(model, labels)(x, t))
    torch.testing.assert_close(guided_teacher(model, 3.0)(None)(x, t), model(x, t))
    scale = torch.tensor([1.0, 2.0, 3.0, 0.5])
    rows = guided_teacher(model)({"labels": labels, GUIDANCE_SCALE: scale})(x, t)
    for i in range(4):
        own = ClassifierFree(model, labels[i : i + 1], scale[i].item())(x[i : i + 1], t[i])
        torch.testing.assert_close(rows[i : i + 1], own)
    # A scale of 1 for all takes one call.
    assert isinstance(guided_teacher(model)(labels), ClassifierFree)
    assert guided_teacher(model)(None) is model


def test_a_guided_teacher_is_told_how_its_items_were_augmented():
    """In both branches: it is no condition, and has no null."""
    options = {"widths": (8,), "depths": (1,), "head_widths": (8,), "mapping_width": 8, "augment_dim": 2}
    network = randomise(NETWORKS["hdit"]((1, 8, 8), 3, **options)).float()
    model, told = Denoiser(network, VPSDE(), "v").eval(), torch.tensor([[0.5, -1.0], [2.0, 1.0]])
    x, t, labels = torch.randn(2, 1, 8, 8), torch.tensor([0.7, 0.3], dtype=torch.float64), torch.tensor([0, 2])
    own, null = (model(x, t, {"labels": each, "augmentation": told}) for each in (labels, torch.full((2,), -1)))
    guided = guided_teacher(model, 3.0)({"labels": labels, "augmentation": told})(x, t)
    torch.testing.assert_close(guided, null + 3 * (own - null))
    assert not torch.allclose(own, model(x, t, labels))
