"""The streaming objective for a model that listens: audio embeddings in the packed sequences, CTC.

A front end that is trained from scratch finds no alignment from the words of the LM alone: a linear
CTC head on the encoder (Graves et al. 2006) over the bytes of the transcript, used in training
only, shows it one. Legend: A = samples with a recording, L = bytes, T = mel frames, F = mel bands,
E = embeddings, P = encoder outputs, D = encoder width, H = LM width, B = batch, S = tokens of the
packed sequence.
"""

from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as nn_f
from torch import Tensor, nn
from transformers import PreTrainedModel

from proactivellm.modality.speech.front_end import SpeechFrontEnd
from proactivellm.model.folder import refusing
from proactivellm.model.layout import Layout
from proactivellm.model.packing import AUDIO_ID, IGNORE
from proactivellm.train.losses import Objective
from proactivellm.train.views import StreamingObjective

_CTC_FILE = "ctc.pt"
_BLANK = 0  # byte b of a transcript is class b + 1, whatever the tokenizer of the LM


class ListeningObjective(StreamingObjective):
    """A causal LM and its front end with the streaming objective on top.

    Args:
        model: the causal LM; trained in place.
        layout: layout of the packed sequences.
        objective: loss weights.
        front_end: trained in place.
        ctc_weight: weight of the CTC loss of the encoder; 0 = no head.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        layout: Layout,
        objective: Objective,
        front_end: SpeechFrontEnd,
        ctc_weight: float,
    ) -> None:
        super().__init__(model, layout, objective)
        self.front_end = front_end
        self.ctc_weight = ctc_weight
        self.ctc_head = nn.Linear(front_end.encoder.width, 1 + 256) if ctc_weight else None

    @property
    def part_names(self) -> tuple[str, ...]:
        """What the parts of the loss are called."""
        return (*super().part_names, "ctc") if self.ctc_weight else super().part_names

    def hidden(self, batch: dict[str, Tensor]) -> Tensor:
        """Hidden states of packed sequences, with audio in place of the ids AUDIO_ID.

        Args:
            batch: from `collate`.

        Returns:
            [B, S, H].
        """
        hidden_BSH: Tensor = self._listen(batch)[0].last_hidden_state
        return hidden_BSH

    def forward(self, **batch: Tensor) -> dict[str, Tensor]:
        """The training loss.

        Args:
            **batch: the tensors of `collate`.

        Returns:
            `loss` (scalar) and `parts` (detached), in the order of `part_names`.
        """
        if not self.objective.weighs_target:
            return self._hear_only(batch)
        output, outputs_APD = self._listen(batch)
        loss, parts = self.target_loss(batch, output)
        if self.ctc_head is None:
            return {"loss": loss, "parts": parts}
        ctc = loss.new_zeros(()) if outputs_APD is None else self._ctc(outputs_APD, batch)
        parts = torch.cat([parts, ctc.detach()[None]])
        return {"loss": loss + self.ctc_weight * ctc, "parts": parts}

    def save(self, folder: str | Path, dtype: torch.dtype) -> None:
        """Writes the front end beside the LM, and the CTC head for a run to be continued.

        Args:
            folder: that of the model.
            dtype: of the front end's weights.
        """
        self.front_end.save(folder, dtype)
        if self.ctc_head is not None:
            torch.save(self.ctc_head.state_dict(), Path(folder) / _CTC_FILE)

    def load(self, folder: str | Path) -> None:
        """Reads what `save` wrote.

        Args:
            folder: a checkpoint.

        Raises:
            ValueError: if something is missing, broken or of another shape.
        """
        stored = SpeechFrontEnd.load(folder, self.model.config.get_text_config().hidden_size)
        with refusing(f"cannot continue from {folder}"):
            self.front_end.load_state_dict(stored.state_dict())
        if self.ctc_head is not None and not (Path(folder) / _CTC_FILE).is_file():
            raise ValueError(f"cannot continue from {folder}: there is no {_CTC_FILE} in it")
        self.load_ctc_head(folder)

    def load_ctc_head(self, folder: str | Path) -> None:
        """Reads the CTC head that a run left beside its front end, if there is one.

        Args:
            folder: of a model or a checkpoint.

        Raises:
            ValueError: if it is broken or of another encoder.
        """
        file = Path(folder) / _CTC_FILE
        if self.ctc_head is not None and file.is_file():
            with refusing(f"{file} holds no CTC head of this encoder"):
                self.ctc_head.load_state_dict(torch.load(file, weights_only=True))

    def _listen(self, batch: dict[str, Tensor]) -> tuple[Any, Tensor | None]:
        """What the decoder returns, and encoder outputs [A, P, D] if there is audio."""
        ids_BS, outputs_APD = batch["input_ids"], None
        audio_BS = ids_BS == AUDIO_ID
        embeddings_BSH = self.model.get_input_embeddings()(ids_BS.masked_fill(audio_BS, 0))
        if "mel" in batch:
            embedded_AEH, outputs_APD = self.front_end(batch["mel"], batch["num_frames"])
            count_A = audio_BS.sum(1)[batch["mel_rows"]]
            place_E = torch.arange(embedded_AEH.shape[1], device=ids_BS.device)
            heard = embedded_AEH[place_E < count_A[:, None]]
            embeddings_BSH = embeddings_BSH.masked_scatter(
                audio_BS[..., None], heard.to(embeddings_BSH.dtype)
            )
        return self.decode(batch, embeddings_BSH), outputs_APD

    def _hear_only(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """CTC alone, without a forward of the LM: what an encoder from scratch learns first."""
        if "mel" not in batch:
            raise ValueError("there is a batch of texts alone, and all weights but CTC's are 0")
        outputs_APD = self.front_end.encoder(batch["mel"], batch["num_frames"])
        ctc = self._ctc(outputs_APD, batch)
        # Of nothing but silence, no gradient at all: there still is something to call backward on.
        loss = self.ctc_weight * ctc + 0.0 * outputs_APD.sum()
        parts = torch.cat([ctc.new_zeros(len(super().part_names)), ctc.detach()[None]])
        return {"loss": loss, "parts": parts}

    def _ctc(self, outputs_APD: Tensor, batch: dict[str, Tensor]) -> Tensor:
        """CTC of the transcripts, nats per byte of the batch, or of the update it is a part of."""
        assert self.ctc_head is not None
        kept_AL = batch["transcript"] != IGNORE
        spoken_A = kept_AL.any(1)
        if not spoken_A.any():
            return outputs_APD.new_zeros((), dtype=torch.float32)
        log_p_PAV = self.ctc_head(outputs_APD[spoken_A]).float().log_softmax(-1).transpose(0, 1)
        summed = nn_f.ctc_loss(
            log_p_PAV,
            batch["transcript"][kept_AL] + 1,
            self.front_end.encoder.num_outputs_of(batch["num_frames"][spoken_A]),
            kept_AL.sum(1)[spoken_A],
            blank=_BLANK,
            reduction="sum",
            zero_infinity=True,
        )
        return summed / batch.get("num_bytes", kept_AL.sum())
