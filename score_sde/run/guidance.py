"""The guidance of a command: what its flags say."""

from dataclasses import dataclass, fields, replace

from score_sde.config.config import pick

BRANCHES = ("both", "conditional")
"""Where classifier-free guidance leaves a control: in both branches, as ControlNet does, or where the condition is."""


@dataclass(frozen=True)
class GuidanceOptions:
    """What the flags of guidance say. Raises ValueError for what no model could be guided by."""

    guidance_scale: float = 1.0
    classifier_scale: float = 0.0
    negative_labels: str | None = None
    autoguidance: str | None = None
    guidance_interval: str | None = None
    guidance_rescale: float = 0.0
    threshold: str | None = None
    negative_prompt: str | None = None
    control: str | None = None
    control_scale: str | None = None
    controls: str | None = None
    control_branches: str = BRANCHES[0]

    def __post_init__(self) -> None:
        pick("--control_branches", self.control_branches, BRANCHES)
        for name in ("negative_labels", "negative_prompt"):
            if getattr(self, name) and self.autoguidance:
                raise ValueError(
                    f"--{name}={getattr(self, name)} and --autoguidance={self.autoguidance} are both given, and each "
                    "takes the place of the unconditional branch: choose one"
                )
        for name in ("negative_labels", "negative_prompt", "autoguidance"):
            value = getattr(self, name)
            if value and self.guidance_scale == 1:
                raise ValueError(f"--{name}={value}: with --guidance_scale=1 it does nothing; try 2")
        for name, limit in (("guidance_interval", self.guidance_interval), ("guidance_rescale", self.guidance_rescale)):
            if limit and self.guidance_scale == 1 and not self.classifier_scale:
                raise ValueError(
                    f"--{name}={limit}: there is no guidance to limit; give --guidance_scale or --classifier_scale"
                )

    def given(self) -> str:
        """The flags that are not at their defaults."""
        return " and ".join(f"--{f.name}" for f in fields(self) if getattr(self, f.name) != f.default)

    @property
    def without_controls(self) -> "GuidanceOptions":
        """The same without what is said of controls, which condition a model and do not guide it."""
        return replace(self, control=None, control_scale=None, controls=None, control_branches=BRANCHES[0])


UNGUIDED = GuidanceOptions()
