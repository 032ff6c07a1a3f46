"""Names at the edge: the library speaks of its own arguments, and here their flags and config keys are put in front."""

import re
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager

from score_sde.config.schema import DEFAULTS, NAMED, options_of

FOLDER = {"folder": "--workdir"}
"""What the library calls a folder is the flag."""

GRID = {"grid": "--grid", "start": "--mode edit --items", "start_time": "--start_time"}
"""Where a run of a sampler begins, and at which times it goes on."""


def keys_of(*sections: str) -> dict[str, str]:
    """By the name that the library gives an option, its config key, for all keys of these sections. A component's
    section, as "sde" or "model.network", stands for its ``name`` as well."""
    names = {}
    for section in sections:
        if section in NAMED:
            names[section.rpartition(".")[2]] = f"config.{section}.name"
            known = {name for component in NAMED[section].values() for name in options_of(component)}
        else:
            known = {name for name, value in DEFAULTS[section].items() if not isinstance(value, dict)}
        names |= {name: f"config.{section}.{name}" for name in known}
    return names


def named(sentence: str, names: Mapping[str, str]) -> str:
    """The sentence with each name replaced where the library marks it as an option: "name = value", "name=value", in
    backticks, or before a colon at its beginning."""
    if not names:
        return sentence
    words = "|".join(sorted(map(re.escape, names), key=len, reverse=True))
    marked = re.compile(rf"`({words})`|(?<![\w.-])({words})(?==| = )|^({words})(?=: )")
    return marked.sub(lambda found: names[found[1] or found[2] or found[3]], sentence)


def with_keys(*sections: str, **more: str) -> AbstractContextManager[None]:
    """Within, options have the config keys of these sections in what is refused and warned of."""
    names = keys_of(*sections) | more
    return _said(lambda sentence: named(sentence, names), warnings_too=True)


def with_flag(flag: str, value: object, **names: str) -> AbstractContextManager[None]:
    """Within, the flag and its value stand in front of what is refused; ``names`` are the keys of other options."""
    return with_words(f"{flag}={value}", **names)


def with_words(words: str, **names: str) -> AbstractContextManager[None]:
    """Within, these words stand in front of what is refused, flags and their values say; ``names`` as in with_flag."""
    return _said(lambda sentence: f"{words}: {named(sentence, names)}", warnings_too=False)


@contextmanager
def _said(say: Callable[[str], str], warnings_too: bool) -> Iterator[None]:
    """``say(sentence)`` in the place of each sentence that comes from within."""
    with warnings.catch_warnings():
        show = warnings.showwarning

        def show_said(message, category, *where, **options) -> None:
            show(UserWarning(say(str(message))) if category is UserWarning else message, category, *where, **options)

        if warnings_too:
            warnings.showwarning = show_said
        try:
            yield
        except (ValueError, FloatingPointError) as error:
            sentence = say(str(error))
            if type(error) not in (ValueError, FloatingPointError) or sentence == str(error):
                raise
            raise type(error)(sentence) from error
