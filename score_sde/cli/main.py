"""Score-based generative modeling through SDEs: train, sample, likelihood, latents from one command line."""

import io
import os
import re
import sys

from score_sde.cli.help import help_text


def main(argv: list[str] | None = None) -> int:
    """Exit status: 0, or 2 with one sentence for what a user can mend."""
    arguments = sys.argv[1:] if argv is None else argv
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # A name that the terminal cannot show is no reason to stop.
            stream.reconfigure(errors="backslashreplace")
    try:
        text = help_text(arguments)
        if text:
            print(text, end="", flush=True)
            return 0
        fresh = "torch" not in sys.modules and os.environ.get("RANK", "0") == "0"
        if fresh and re.search(r"-mode[= ]train", " ".join(arguments)):
            # What comes now takes seconds.
            print("loading PyTorch ...", flush=True)
        from score_sde.cli.command import command

        return command(arguments)
    except BrokenPipeError:
        # Whoever reads has seen enough, as in --help | head; Python would write there once more at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


if __name__ == "__main__":
    sys.exit(main())
