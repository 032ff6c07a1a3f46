"""Flow maps: identity, teacher's weights, what the network is told, and closed forms."""

import pytest
import torch
from torch import nn

from sde import Denoiser
from sde.distillation import GUIDANCE_SCALE, FlowMap
from sde.distillation.flow_map import average_step
from tests.batteries.networks import OWN, build, inputs, shape_of
from tests.oracles.flow_maps import GaussianFlowMap
from tests.oracles.linear_gaussian import FullGaussian
from tests.oracles.processes import PROCESSES


def times(sde, count):
    """Times t and s <= t of each row, from end to end."""
    t = torch.linspace(sde.t_max, sde.t_min, count, dtype=torch.float64)
    return t, sde.t_min + 0.6 * (t - sde.t_min)


def pair(name, guidance=None, classes=3):
    """A teacher with random weights, its student, x and labels."""
    shape = shape_of(name)
    teacher = Denoiser(build(name, shape, classes), PROCESSES["vp"], "v", 0.7).eval()
    x, _ = inputs(shape, 3)
    return teacher, FlowMap.of(teacher, guidance).eval(), x, torch.tensor([0, 2, -1])


def set_free(student):
    """Random weights in what is told further."""
    for name, parameter in student.named_parameters():
        if ".further." in name:
            nn.init.normal_(parameter, std=0.5)


@pytest.mark.parametrize("name", OWN)
def test_a_student_begins_as_its_teacher(name):
    teacher, student, x, labels = pair(name, guidance=(1, 4))
    t, s = times(teacher.sde, 3)
    denoised = teacher(x, t, labels)
    torch.testing.assert_close(student.mean_denoised(x, t, s, labels), denoised, rtol=0, atol=0)
    expected = average_step(teacher.sde, x, t, s, denoised)
    torch.testing.assert_close(student(x, t, s, labels), expected, rtol=0, atol=0)
    new = student.state_dict().keys() - teacher.state_dict().keys()
    assert {key.partition(".further.")[1] for key in new} == {".further."}
    # And is one of its own.
    set_free(student)
    torch.testing.assert_close(teacher(x, t, labels), denoised, rtol=0, atol=0)


@pytest.mark.parametrize("name", OWN)
def test_the_network_is_told_the_level_of_arrival_and_the_scale_row_by_row(name):
    _, student, x, labels = pair(name, guidance=(1, 4))
    set_free(student)
    t, s = times(student.sde, 3)
    scale = torch.tensor([1.0, 2.0, 3.0])
    cond = {"labels": labels, GUIDANCE_SCALE: scale}
    together = student.mean_denoised(x, t, s, cond)
    for i in range(3):
        # One time for all, as in sampling, is the same as a time per row.
        own = student.bound(labels[i : i + 1], scale[i].item())
        torch.testing.assert_close(own(x[i : i + 1], t[i], s[i]), student(x, t, s, cond)[i : i + 1])
    other = student.mean_denoised(x, t, s * torch.tensor([0.9, 1.0, 1.0]), cond)
    stronger = student.mean_denoised(x, t, s, cond | {GUIDANCE_SCALE: scale * torch.tensor([1.3, 1.0, 1.0])})
    for changed in (other, stronger):
        torch.testing.assert_close(changed[1:], together[1:])
        assert (changed[0] - together[0]).abs().max() > 1e-4


@pytest.mark.parametrize("process", PROCESSES)
def test_the_average_step_is_the_flow_of_a_gaussian(process):
    """With M of the closed form x_s is exact, the open noise end included; M(x, t, t) is D(x, t)."""
    sde = PROCESSES[process]
    mean, root = torch.tensor([0.3, -0.4, 1.0]).double(), torch.randn(3, 3, dtype=torch.float64)
    covariance = root @ root.T
    flow = GaussianFlowMap(sde, mean, covariance)
    x = torch.randn(5, 3, dtype=torch.float64)
    t, s = times(sde, 5)
    t, s, x = t[:-1], s[:-1], x[:-1] * sde.sigma(t[:-1])[:, None]
    expected = flow(x, t, s)
    found = average_step(sde, x, t, s, flow.mean_denoised(x, t, s))
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(average_step(sde, x, t, t, torch.full_like(x, 9.0)), x)
    # The mean denoised value of a short way is the posterior mean.
    denoised = FullGaussian(sde, mean, covariance)(x, t)
    close = t - 1e-6 * (t - sde.t_min)
    torch.testing.assert_close(flow.mean_denoised(x, t, close)[1:], denoised[1:], rtol=1e-3, atol=1e-3)


def test_a_step_of_times_is_that_of_each_time():
    sde, x = PROCESSES["vp"], torch.randn(4, 2, dtype=torch.float64)
    t, s = times(sde, 4)
    m = torch.randn_like(x)
    rows = [average_step(sde, x[i : i + 1], t[i], s[i], m[i : i + 1]) for i in range(4)]
    torch.testing.assert_close(average_step(sde, x, t, s, m), torch.cat(rows))


def test_forward_mode_derivatives_by_state_and_both_times():
    teacher = Denoiser(build("mlp", (4,)), PROCESSES["vp"], "v").double()
    student = FlowMap.of(teacher)
    set_free(student)
    x, dx = torch.randn(2, 3, 4, dtype=torch.float64)
    t, s = times(student.sde, 3)
    t, s = 0.9 * t + 0.05, 0.9 * s + 0.05
    dt, ds = torch.tensor([1.0, -0.5, 0.3]).double(), torch.tensor([0.2, 1.0, -1.0]).double()
    _, slope = torch.func.jvp(student.mean_denoised, (x, t, s), (dx, dt, ds))
    h = 1e-5
    ends = [student.mean_denoised(x + sign * h * dx, t + sign * h * dt, s + sign * h * ds) for sign in (1, -1)]
    torch.testing.assert_close(slope, (ends[0] - ends[1]) / (2 * h), rtol=1e-6, atol=1e-6)


def test_rows_of_a_bound_map():
    _, student, x, labels = pair("mlp", guidance=(1, 4))
    set_free(student)
    t, s = torch.tensor(0.9).double(), torch.tensor(0.2).double()
    whole = student.bound(labels, 2.0)
    torch.testing.assert_close(whole.rows(torch.tensor([2, 0]))(x[[2, 0]], t, s), whole(x, t, s)[[2, 0]])
    torch.testing.assert_close(whole.jump(x, t, s), whole(x, t, s))


class Own(nn.Module):
    num_classes = None

    def forward(self, x, c_noise, cond=None):
        return x


@pytest.mark.parametrize("network", [Own(), nn.Linear(3, 3)], ids=["own", "linear"])
def test_networks_that_cannot_be_told_are_refused(network):
    with pytest.raises(ValueError, match="cannot be told a second noise level"):
        FlowMap(network, PROCESSES["vp"])


def test_what_is_refused():
    _, plain, x, labels = pair("mlp")
    _, ranged, _, _ = pair("mlp", guidance=(1, 4))
    t, s = times(plain.sde, 3)
    with pytest.raises(ValueError, match="no guidance scale among its inputs"):
        plain(x, t, s, {"labels": labels, GUIDANCE_SCALE: torch.ones(3)})
    with pytest.raises(ValueError, match="guidance_scale = 2: this flow map has no guidance scale"):
        plain.bound(labels, 2.0)
    with pytest.raises(ValueError, match="trained with scales from 1 to 4"):
        ranged.bound(labels, 4.5)
    with pytest.raises(ValueError, match="label 7 is out of range"):
        plain.bound(torch.tensor([7]))
    for guidance in ((4, 1), (1,), (-1, 2), (1, float("inf"))):
        with pytest.raises(ValueError, match=r"guidance = .*the least and the largest scale"):
            FlowMap.of(pair("mlp")[0], guidance)
