"""Score-based generative modelling through SDEs: train, sample, likelihood, latents from one command line."""

import io
import sys


def main(argv: list[str] | None = None) -> int:
    """Exit status: 0, or 2 with one sentence for what a user can mend."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # A name that the terminal cannot show is no reason to stop.
            stream.reconfigure(errors="backslashreplace")
    from score_sde.cli.command import command

    return command(argv)
