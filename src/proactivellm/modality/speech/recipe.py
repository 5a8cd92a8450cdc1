"""The table [speech] of a recipe: the front end that is trained, and on what."""

from typing import Any, Self

from huggingface_hub.errors import StrictDataclassError
from pydantic import Field, model_validator
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from proactivellm.backbone.hub import find_folder
from proactivellm.modality.base import Examples, FrontEndTable
from proactivellm.modality.speech.augmentation import Augmentation
from proactivellm.modality.speech.front_end import SpeechFrontEnd
from proactivellm.modality.speech.gate import GateSettings
from proactivellm.modality.speech.making import new_front_end, pretrained_front_end
from proactivellm.modality.speech.recordings import Recordings
from proactivellm.modality.speech.settings import SpeechSettings


class Speech(FrontEndTable):
    """The front end of a model that listens.

    `pretrained` is that of a model that listens, or a Whisper such as openai/whisper-base, whose
    encoder gets a new projector.
    """

    # Of a new encoder: keyword arguments of WhisperConfig.
    encoder: dict[str, Any] = Field(default_factory=dict)
    # Keyword arguments of WhisperFeatureExtractor.
    features: dict[str, Any] = Field(default_factory=dict)
    units: SpeechSettings = SpeechSettings()
    # Cuts out of recordings what it will hold back while streaming; without it they are heard whole
    # in training, and the default gate is saved for streaming.
    gate: GateSettings | None = None
    augment: Augmentation = Augmentation()

    @model_validator(mode="after")
    def _is_one_of_two(self) -> Self:
        if self.pretrained is not None and self.model_fields_set & {"encoder", "features"}:
            raise ValueError("`encoder` and `features` are those of `pretrained`: leave them out")
        return self

    def make_front_end(
        self, lm: PreTrainedModel, tokenizer: PreTrainedTokenizerBase
    ) -> SpeechFrontEnd:
        """The front end in fp32, with a gate for streaming."""
        width = lm.config.get_text_config().hidden_size
        if self.pretrained:
            units = self.units if "units" in self.model_fields_set else None
            front_end = pretrained_front_end(find_folder(self.pretrained), units, width)
        else:
            try:
                front_end = new_front_end(self.encoder, self.features, self.units, width)
            except (StrictDataclassError, ValueError, TypeError) as error:
                reason = " ".join(str(error).split())
                raise ValueError(f"[speech] does not fit: {reason}") from None
        front_end.gate = self.gate or front_end.gate or GateSettings()
        return front_end

    def make_examples(self, front_end: SpeechFrontEnd) -> Examples:
        """Recordings, augmented and gated as the table says."""
        return Recordings(front_end, self.augment, self.gate)
