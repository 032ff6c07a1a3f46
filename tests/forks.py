"""Processes forked from one that has done the imports, which take longer than their work."""

import multiprocessing

FORK = multiprocessing.get_context("forkserver")
FORK.set_forkserver_preload(
    ["score_sde.cli.command", "matplotlib.pyplot", "torch._dynamo", "torch.distributed.run", "tests.sde.workers"]
)
