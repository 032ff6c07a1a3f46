"""Frozen text encoders of the ``transformers`` library, from a local folder: CLIP's (Radford et al. 2021), T5's (Raffel
et al. 2020), and others with a state for each token."""

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sde.condition.text.base import OUTPUTS, TextEncoder, check_outputs
from sde.condition.text.token_vectors import notes_of
from sde.condition.text.tokenizer import Tokens, word_at
from sde.condition.tree import Condition, Shapes
from sde.files import expanded, file_digest

CLASSES = {
    "clip": "CLIPTextModel",
    "clip_text_model": "CLIPTextModel",
    "t5": "T5EncoderModel",
    "mt5": "MT5EncoderModel",
    "umt5": "UMT5EncoderModel",
}
"""The class of the text encoder by the model_type of its config; of others AutoModel."""

WEIGHTS = ("*.safetensors", "pytorch_model*.bin")


def library() -> Any:
    """The library. Raises ImportError, which names the extra, where it is not installed."""
    try:
        import transformers
    except ImportError:
        raise ImportError(
            "text encoders of transformers need it installed: pip install 'score-sde[latent]', or pip install "
            "transformers"
        ) from None
    return transformers


class TransformersText(TextEncoder):
    """The last hidden states of a prompt's tokens, (B, max_tokens, width), and a vector: where there is a projection
    or a pooled state, as CLIP's, that; else the mean of the hidden states, as of T5. An empty prompt is null.

    The weights stay in their ``folder``, and are neither in the state dict nor among the parameters: they are read when
    they are first asked for, and must then have the same ``digest``. Raises ImportError without the library.
    """

    def __init__(
        self, folder: Path, digest: str, widths: tuple[int, int], max_tokens: int, outputs: Sequence[str] = OUTPUTS
    ) -> None:
        super().__init__()
        self.folder, self.digest, self.widths, self.max_tokens = folder, digest, widths, max_tokens
        self.outputs = check_outputs(outputs)
        self.device = torch.device("cpu")
        self._held: tuple[Any, Any] | None = None

    @classmethod
    def read(
        cls, folder: str, texts: Sequence[str] = (), max_tokens: int = 0, outputs: Sequence[str] = OUTPUTS
    ) -> "TransformersText":
        """The encoder in a folder, or in the sub-folders text_encoder and tokenizer of a pipeline's. ``max_tokens`` are
        taken, 0 for as many as the encoder has positions, or where these are relative, as T5's, as many as the longest
        of the texts has. Raises ValueError for a folder without one."""
        own, place = check_outputs(outputs), Path(expanded(folder))
        if not folder or not _encoder_of(place).joinpath("config.json").is_file():
            raise ValueError(
                f"folder = {folder!r}: needs a folder with the config.json, the weights and the tokenizer of a text "
                "encoder, as save_pretrained of the transformers library writes them"
            )
        model, tokenizer = _load(place)
        positions = getattr(model.config, "max_position_embeddings", None)
        if positions:
            # Of some positions none is for a token, which the tokenizer knows.
            limit = min(positions, tokenizer.model_max_length)
        else:
            # The end of a text is a token as well.
            longest = max((len(tokenizer(text, verbose=False)["input_ids"]) for text in {*texts}), default=2)
            limit = max_tokens or longest
        found = cls(place, _digest(place), (0, 0), min(max_tokens or limit, limit), own)
        found._held = (model, tokenizer)
        sequence, vector = found._states(["a"])
        found.widths = sequence.shape[2], vector.shape[1]
        return found

    @classmethod
    def build(cls, described: dict[str, Any]) -> "TransformersText":
        """The encoder of ``describe``; nothing is read yet."""
        return cls(
            Path(described["folder"]), described["digest"], tuple(described["widths"]), described["max_tokens"],
            described["outputs"],
        )  # fmt: skip

    def describe(self) -> dict[str, Any]:
        return {
            "name": "transformers", "folder": str(self.folder.resolve()), "digest": self.digest,
            "widths": list(self.widths), "max_tokens": self.max_tokens, "outputs": list(self.outputs),
        }  # fmt: skip

    @property
    def shapes(self) -> Shapes:
        own = {"sequence": (self.max_tokens, self.widths[0]), "vector": (self.widths[1],)}
        return {kind: own[kind] for kind in self.outputs}

    def _apply(self, function: Callable, recurse: bool = True) -> "TransformersText":
        self.device = function(torch.empty(0, device=self.device)).device
        if self._held is not None:
            self._held[0].to(self.device)
        return super()._apply(function, recurse)

    @property
    def _parts(self) -> tuple[Any, Any]:
        """The model and its tokenizer. Raises ValueError where the folder is gone, or holds other weights."""
        if self._held is None:
            if not self.folder.is_dir():
                raise ValueError(
                    f"the text encoder's folder {self.folder} does not exist any more: put it there again, or take "
                    "runs whose vectors are stored with them"
                )
            if _digest(self.folder) != self.digest:
                raise ValueError(f"{self.folder} holds other weights than the model was trained with")
            self._held = _load(self.folder)
            self._held[0].to(self.device)
        return self._held

    def forward(self, texts: Sequence[str]) -> Condition:
        own = dict(zip(OUTPUTS, self._states(texts), strict=True))
        return {kind: own[kind] for kind in self.outputs}

    @torch.no_grad()
    def _states(self, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        model, tokenizer = self._parts
        told = tokenizer(
            list(texts), padding="max_length", truncation=True, max_length=self.max_tokens, return_tensors="pt",
            return_attention_mask=True,
        )  # fmt: skip
        ids, there = told["input_ids"].to(self.device), told["attention_mask"].to(self.device)
        found = model(input_ids=ids, attention_mask=there)
        states, there = found.last_hidden_state.float(), there.bool().unsqueeze(2)
        pooled = getattr(found, "text_embeds", None)
        if pooled is None and model.config.model_type in ("clip", "clip_text_model"):
            pooled = found.pooler_output
        sequence = states.masked_fill(~there, torch.nan)
        vector = sequence.nanmean(1) if pooled is None else pooled.float()
        empty = torch.tensor([not text.strip() for text in texts], device=self.device)
        return sequence.masked_fill(empty[:, None, None], torch.nan), vector.masked_fill(empty[:, None], torch.nan)

    def notes(self, texts: Sequence[str]) -> list[str]:
        tokenizer = self._parts[1]
        return [note for text in texts for note in tokenizer_notes(tokenizer, text, self.max_tokens)]


def tokenizer_notes(tokenizer: Any, text: str, max_tokens: int) -> list[str]:
    """The sentences on what a tokenizer of the library does not know of a text, and what is cut off where it takes
    ``max_tokens``, those that begin and end a text among them."""
    told = tokenizer(text, add_special_tokens=False, return_offsets_mapping=tokenizer.is_fast, verbose=False)
    ids, unknown = told["input_ids"], []
    starts = [start for start, _ in told["offset_mapping"]] if tokenizer.is_fast else [len(text)] * len(ids)
    if tokenizer.unk_token_id not in (None, tokenizer.eos_token_id):
        lost = [start for i, start in zip(ids, starts, strict=True) if i == tokenizer.unk_token_id]
        unknown = [*dict.fromkeys(word_at(text, start) for start in lost)]
    return notes_of(text, Tokens(ids, starts, unknown), max_tokens - tokenizer.num_special_tokens_to_add())


def _encoder_of(folder: Path) -> Path:
    inner = folder / "text_encoder"
    return inner if inner.is_dir() else folder


def _digest(folder: Path) -> str:
    """sha256 of the encoder's files of weights."""
    found = hashlib.sha256()
    for pattern in WEIGHTS:
        for path in sorted(_encoder_of(folder).glob(pattern)):
            found.update(bytes.fromhex(file_digest(path)))
    return found.hexdigest()


def _load(folder: Path) -> tuple[Any, Any]:
    """The frozen model and the tokenizer of a folder, from the disk alone."""
    transformers, place = library(), _encoder_of(folder)
    words = folder / "tokenizer" if place != folder else folder
    try:
        config = transformers.AutoConfig.from_pretrained(place, local_files_only=True)
        name = CLASSES.get(config.model_type, "AutoModel")
        if "CLIPTextModelWithProjection" in (config.architectures or ()):
            name = "CLIPTextModelWithProjection"
        model = getattr(transformers, name).from_pretrained(place, local_files_only=True)
        tokenizer = transformers.AutoTokenizer.from_pretrained(words, local_files_only=True)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{folder} holds no text encoder that transformers reads ({error})") from None
    return model.eval().requires_grad_(False), tokenizer
