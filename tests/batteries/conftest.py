"""Which samplers meet which processes: those that have what the sampler needs."""

from pathlib import Path

from samplers.protocol import suits
from tests.oracles.processes import PROCESSES

HERE = Path(__file__).parent


def pytest_collection_modifyitems(config, items):
    """Leaves out what a sampler, named by ``name``, and a ``process`` make of each other where it does not suit."""
    from tests.batteries.variants import VARIANTS

    def meets(item):
        given = item.callspec.params if hasattr(item, "callspec") else {}
        sampler, process = VARIANTS.get(given.get("name")), PROCESSES.get(given.get("process"))
        return sampler is None or process is None or suits(sampler, process)

    apart = [item for item in items if HERE in item.path.parents and not meets(item)]
    if apart:
        config.hook.pytest_deselected(items=apart)
        items[:] = [item for item in items if item not in apart]
