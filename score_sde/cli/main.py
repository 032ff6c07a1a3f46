"""Score-based generative modelling through SDEs: train, sample, likelihood, latents from one command line."""


def main(argv: list[str] | None = None) -> int:
    """Exit status: 0, or 2 with one sentence for what a user can mend."""
    from score_sde.cli.command import command

    return command(argv)
