"""A machine that exists in its clock alone: what is called takes as long as it is told, times some noise."""

import numpy as np

from score_sde.run.trial import fastest

NOISES = {
    "none": lambda now, draw: 1.0,
    "symmetric": lambda now, draw: np.exp(0.05 * draw.standard_normal()),
    "heavy-tailed": lambda now, draw: 1 + 0.2 * draw.pareto(1.5),
    "another program half of the time": lambda now, draw: 1 + (draw.random() < 0.5) * draw.uniform(0.5, 1.5),
    "another program in bursts": lambda now, draw: 1 + 1.5 * (int(now / 1.3) % 2),
    "growing slower": lambda now, draw: (1 + 0.2 * now) * np.exp(0.05 * draw.standard_normal()),
    "growing faster": lambda now, draw: (1 + 4 * np.exp(-now)) * np.exp(0.05 * draw.standard_normal()),
}


class Machine:
    """A clock, and ways that take ``true`` seconds times some noise."""

    def __init__(self, true, noise=NOISES["none"], seed=0):
        self.now, self.calls, self.noise, self.draw = 0.0, [], noise, np.random.default_rng(seed)
        self.ways = {name: lambda name=name, base=base: self.work(name, base) for name, base in true.items()}

    def __call__(self):
        return self.now

    def work(self, name, base):
        self.calls.append(name)
        self.now += base * self.noise(self.now, self.draw)

    def fastest(self, **options):
        return fastest(self.ways, clock=self, **options)
