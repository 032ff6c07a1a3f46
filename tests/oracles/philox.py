"""Random numbers written out once more: numpy's Philox, Box and Muller, and a tree of midpoints."""

import math

import numpy as np


def words(seed, count, counter=(0, 0, 0, 0)):
    """``count`` 64-bit words of a seed behind a counter, the lowest word of four first."""
    key = np.random.SeedSequence(seed).generate_state(2, np.uint64)
    return np.random.Philox(key=key, counter=np.array(counter, np.uint64)).random_raw(count)


def normals(raw):
    """Two numbers per word, (2 n,): the radius from its low half, the angle from its high half."""
    u = ((raw & np.uint64(2**32 - 1)).astype(float) + 0.5) / 2**32
    angle = 2 * np.pi * (raw >> np.uint64(32)).astype(float) / 2**32
    radius = np.sqrt(-2 * np.log(u))
    return np.stack([radius * np.cos(angle), radius * np.sin(angle)], 1).ravel()


def interval(seed, octave, node, count):
    """The numbers of an interval of an octave's tree: 0 the whole octave, 1 its first halving, then as in a heap."""
    return normals(words(seed, -(-count // 2), (0, node, 0, 2**15 + octave)))[:count]


def brownian(seed, tau, count, depth=20):
    """W(tau) - W(2^k) of the octave of tau, by halving intervals: a midpoint lies about the mean of its ends."""
    octave = math.frexp(tau)[1] - 1
    low, high, node = 2.0**octave, 2.0 ** (octave + 1), 1
    at_low, at_high = np.zeros(count), math.sqrt(2.0**octave) * interval(seed, octave, 0, count)
    for _ in range(depth):
        middle = (low + high) / 2
        at_middle = (at_low + at_high) / 2 + math.sqrt((high - low) / 4) * interval(seed, octave, node, count)
        if tau < middle:
            high, at_high, node = middle, at_middle, 2 * node
        else:
            low, at_low, node = middle, at_middle, 2 * node + 1
    return at_low
