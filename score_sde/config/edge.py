"""The edge between users and the library: keys and flags put in front of what the library refuses."""

import re
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def naming(front: str = "", **names: str) -> Iterator[None]:
    """A ValueError from inside, with ``front`` before its sentence: ``--threshold=2: ``, say, or ``config.training.``.

    ``names`` says for some of the library's arguments which key or flag sets them: the sentence then speaks of those.
    """
    try:
        yield
    except ValueError as error:
        sentence = str(error)
        for argument, name in names.items():
            sentence = re.sub(rf"(?<![\w.]){argument}\b", name, sentence)
        raise ValueError(front + sentence) from None
