"""CTC on the encoder of a front end (Graves et al. 2006).

A front end that is trained from scratch finds no alignment from the words of the LM alone: a linear
head over the bytes of the transcript shows it one, and can be asked later what is heard
(`modality/speech/ctc.py`). Legend: A = samples with features, L = bytes, P = encoder outputs, D =
encoder width, V = classes.
"""

from typing import TYPE_CHECKING, Any

import torch.nn.functional as nn_f
from torch import Tensor, nn

from proactivellm.core.packing import IGNORE
from proactivellm.files.toml import Strict
from proactivellm.files.values import Weight
from proactivellm.modality.speech.ctc import BLANK, NUM_CLASSES
from proactivellm.train.objectives.objective import FRONT_END, Objective

if TYPE_CHECKING:
    from proactivellm.train.outputs import Outputs


class CtcSettings(Strict):
    """The key of CTC; its head is saved beside the model, as `ctc.pt`."""

    ctc_weight: Weight = 0.0


class Ctc(Objective):
    """CTC of the transcripts, with a head of its own."""

    name = "ctc"
    Settings = CtcSettings
    section = FRONT_END
    weight_keys = ("ctc_weight",)
    part_names = ("ctc",)
    teaches = True

    def __init__(self, settings: CtcSettings, model: Any, front_end: Any) -> None:
        super().__init__(settings)
        head = nn.Linear(front_end.width, NUM_CLASSES)
        self.weight, self.bias = head.weight, head.bias

    def count(self, batch: dict[str, Tensor]) -> Tensor:
        """Bytes of the transcripts."""
        spoken = batch.get("transcript")
        return batch["label"].new_zeros(()) if spoken is None else (spoken != IGNORE).sum()

    def forward(self, outputs: "Outputs") -> dict[str, Tensor]:
        if outputs.encoded_APD is None:
            ctc = outputs.batch["label"].new_zeros((), dtype=self.weight.dtype)
        else:
            ctc = self._loss(outputs.encoded_APD, outputs)
        return {"loss": self.weights[0] * ctc, "parts": ctc.detach()[None]}

    def _loss(self, encoded_APD: Tensor, outputs: "Outputs") -> Tensor:
        batch = outputs.batch
        kept_AL = batch["transcript"] != IGNORE
        spoken_A = kept_AL.any(1)
        if not spoken_A.any():  # nothing to learn, but still something to call backward on
            return 0.0 * encoded_APD.float().sum()
        logits_APV = nn_f.linear(encoded_APD[spoken_A], self.weight, self.bias)
        summed = nn_f.ctc_loss(
            logits_APV.float().log_softmax(-1).transpose(0, 1),
            batch["transcript"][kept_AL] + 1,
            outputs.learner.front_end.num_outputs(batch["num_frames"][spoken_A]),
            kept_AL.sum(1)[spoken_A],
            blank=BLANK,
            reduction="sum",
            zero_infinity=True,
        )
        return summed / outputs.count(self)
