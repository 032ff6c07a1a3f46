"""Devices: which there are, what they hold, and what is done on the CPU for those without float64."""

from types import SimpleNamespace

import pytest
import torch

from samplers import host
from samplers.encode import slerp
from sde import VPSDE, device
from sde.data import Dataset
from sde.data.transform import Transform
from sde.inverse.operators import Blur, Grayscale
from tests.oracles import simulated_device as sim

FAR = Transform((1e9,), (2.0,))
"""A transform of data so far from zero that they need float64."""


@pytest.fixture(params=[True, False], ids=["float64", "no float64"])
def there(request):
    """A simulated device, and whether it has float64."""
    if not sim.available:
        pytest.skip("this torch has no interface for devices written in Python")
    sim.install()
    found = torch.device(sim.NAME)
    if request.param:
        yield found, True
    else:
        with sim.without_float64():
            yield found, False


def test_the_simulated_device_without_float64_refuses_it():
    if not sim.available:
        pytest.skip("this torch has no interface for devices written in Python")
    sim.install()
    x = torch.ones(2, dtype=torch.float32).to(sim.NAME)
    for wanted in (lambda: x.double(), lambda: torch.ones(2, dtype=torch.float64).to(sim.NAME),
                   lambda: torch.empty(2, dtype=torch.float64, device=sim.NAME)):  # fmt: skip
        assert wanted().dtype == torch.float64
        with sim.without_float64(), pytest.raises(TypeError, match=r"sim has no torch\.float64"):
            wanted()
    # As of a scalar, whatever its type.
    with sim.without_float64():
        assert (x * torch.tensor(2.0, dtype=torch.float64)).dtype == torch.float32


def test_wide(there):
    """float64 on its device where it has that, else on the CPU; of either package."""
    where, has = there
    x = torch.arange(3.0).to(where)
    for module in (device, host):
        assert module.has_float64(where) is has
        found = module.wide(x)
        assert found.dtype == torch.float64
        assert found.device.type == (where.type if has else "cpu")
        assert torch.equal(found.cpu(), torch.arange(3.0, dtype=torch.float64))


def test_intels_devices_say_whether_they_have_float64(monkeypatch):
    for has in (False, True):
        said = SimpleNamespace(has_fp64=has)
        monkeypatch.setattr(torch.xpu, "get_device_properties", lambda where, said=said: said)
        assert device.has_float64(torch.device("xpu")) is host.has_float64(torch.device("xpu")) is has


def test_data_far_from_zero(there):
    """They are encoded from where they lie, and decoded to where there is float64."""
    where, has = there
    x = 1e9 + torch.tensor([[1.0, 3.0]], dtype=torch.float64)
    assert device.fits(x, where) is has
    z = FAR.encode(device.placed(x, where))
    assert z.dtype == torch.float32
    assert torch.equal(z.cpu(), torch.tensor([[0.5, 1.5]]))
    back = FAR.decode(z.to(where))
    assert torch.equal(back.cpu(), x)
    assert back.device.type == (where.type if has else "cpu")
    data = Dataset(x, None, None, FAR)
    assert data.to(where).items.device.type == (where.type if has else "cpu")


def test_times_of_levels(there):
    where, has = there
    sde = VPSDE()
    log_snr = torch.tensor([-3.0, 0.5])
    found = sde.t_of_log_snr(log_snr.to(where))
    assert found.device.type == where.type
    assert found.dtype == (torch.float64 if has else torch.float32)
    torch.testing.assert_close(found.cpu().double(), sde.t_of_log_snr(log_snr), rtol=1e-6, atol=0)


@pytest.mark.parametrize("make", [Grayscale, lambda: Blur.gaussian(1.0)])
def test_operators_move(there, make):
    where, has = there
    x = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    wanted = make()(x)
    operator = make().to(where)
    assert {b.dtype for b in operator.buffers()} == {torch.float64 if has else torch.float32}
    torch.testing.assert_close(operator(x.to(where)).cpu(), wanted)


def test_arcs(there):
    where, _ = there
    a, b = torch.randn(2, 3, 5, generator=torch.Generator().manual_seed(0))
    found = slerp(a.to(where), b.to(where), [0.0, 0.3, 1.0])
    assert found.device.type == where.type
    assert torch.equal(found.cpu(), slerp(a, b, [0.0, 0.3, 1.0]))


def test_copies_to_mps_wait():
    """As memory of the host may be another tensor's before they are made (pytorch issue 139550); of either package."""
    asked = []

    class Moved(torch.Tensor):
        def to(self, where, *dtype, non_blocking):
            asked.append((where.type, non_blocking))

    for module in (device, host):
        for kind in ("cpu", "xpu", "mps"):
            module.send(torch.ones(2).as_subclass(Moved), torch.device(kind))
    assert asked == [("cpu", True), ("xpu", True), ("mps", False)] * 2


def test_what_is_sent_takes_a_type_that_is_there(there):
    where, has = there
    for dtype in (torch.float32, torch.float64):
        found = host.send(torch.arange(3.0, dtype=torch.float64), where, dtype)
        assert found.device.type == where.type
        assert found.dtype == (dtype if has else torch.float32)
        assert found.cpu().tolist() == [0, 1, 2]


def test_resident_data_take_a_share_of_free_memory(there, monkeypatch):
    where, _ = there
    data = Dataset(torch.zeros(100, 5), torch.zeros(100).long(), 2, Transform())
    size = data.items.nbytes
    for free, stays in ((4 * size, True), (4 * size - 4, False), (None, True)):
        monkeypatch.setattr("sde.data.dataset.free_memory", lambda where, free=free: free)
        moved = data.to(where)
        assert (moved.items.device.type == where.type) is stays
        # On the device that it lies on already nothing is asked.
        assert moved.to(moved.items.device, limit=0).items is moved.items or not stays
    assert data.to(where, limit=size - 1) is data
    assert data.to(torch.device("cpu"), limit=0).items is data.items


def test_free_memory(monkeypatch):
    assert device.free_memory(torch.device("cpu")) is None
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda where: (30, 80))
    assert device.free_memory(torch.device("cuda")) == 30
    monkeypatch.setattr(torch.mps, "recommended_max_memory", lambda: 50)
    monkeypatch.setattr(torch.mps, "driver_allocated_memory", lambda: 20)
    assert device.free_memory(torch.device("mps")) == 30


def test_devices_here(monkeypatch):
    assert device.devices_here()[-1] == "cpu"
    for name, count in (("cuda", 2), ("xpu", 1)):
        module = getattr(torch, name)
        monkeypatch.setattr(module, "is_available", lambda: True)
        monkeypatch.setattr(module, "device_count", lambda count=count: count)
    assert [name for name in device.devices_here() if name != sim.NAME] == ["cuda:0", "cuda:1", "xpu", "cpu"]
    if sim.available:
        sim.install()
        assert sim.NAME in device.devices_here()


def test_random_numbers_inside_are_not_seen_outside():
    before = torch.get_rng_state()
    with device.forked_random(torch.device("cpu")):
        torch.manual_seed(7)
        torch.rand(3)
    assert torch.equal(before, torch.get_rng_state())
