"""A teacher that is another model: what it makes of prefixes, gathered at few tokens.

Whole distributions of a batch, [B, T, V], never exist: only the log-probabilities of the token
written and of the teacher's favourites are kept. Legend: B = prefixes, T = target tokens, K =
favourites, R = rows, V = vocabulary.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from proactivellm.core.packing import IGNORE
from proactivellm.forward.causal_lm import StreamingCausalLM
from proactivellm.forward.packed import packed_hidden
from proactivellm.modality.loading import load
from proactivellm.train.objectives.teaching import Teaching
from proactivellm.train.prefixes import Prefix
from proactivellm.train.rows import rows_within


def load_teacher(
    settings: Teaching,
    tokenizer: PreTrainedTokenizerBase,
    device: torch.device,
    read_token: str | None = None,
) -> StreamingCausalLM:
    """The model that `[distillation]` names; ValueError if it cannot be had, or has other tokens.

    `tokenizer` is that of the student, and `read_token` its control token, which is never written.
    """
    teacher = load(
        settings.teacher,
        adapter=settings.adapter,
        layout=settings.teacher_layout,
        device=str(device),
    )
    other = teacher.tokenizer.get_vocab()
    for token, number in tokenizer.get_vocab().items():
        if token == read_token or other.get(token) == number:
            continue
        raise ValueError(
            f"the teacher {settings.teacher!r} has other tokens than the student, such as "
            f"{token!r}: distillation compares them one by one, so choose one of the same family"
        )
    return teacher


class GatheredTeacher:
    """Judges prefixes by a model that stays as it is.

    Args:
        vocabulary: tokens of the student's output layer; those beyond are left out.
        logits_mib: memory that logits may take at once.
    """

    def __init__(
        self, model: StreamingCausalLM, settings: Teaching, vocabulary: int, logits_mib: int
    ) -> None:
        self.model, self.settings = model, settings
        own = model.model.config.get_text_config().vocab_size
        self.vocabulary = min(vocabulary, own)
        self.chunk = rows_within(logits_mib, own, num_views=1)
        # The control token of the teacher is none that may be written.
        self.top_k = min(settings.top_k, self.vocabulary - (model.read_id is not None))

    @torch.no_grad()
    def judge(self, prefixes: Sequence[Prefix]) -> dict[str, Tensor]:
        """`teacher_id` and `teacher_log_p` [B, T, K], `teacher_token` [B, T]: log-probabilities of
        its favourites and of the tokens that were written.
        """
        model = self.model
        full = self.settings.teacher_view == "full"
        views = [each.whole if full else each.schedule for each in prefixes]
        packed = [
            each.packed(model.prompt, model.layout, [g])
            for each, g in zip(prefixes, views, strict=True)
        ]
        hidden_BSD = packed_hidden(model, packed)
        most = max(len(each.tokens) for each in prefixes)
        shape = (len(prefixes), most, self.top_k)
        id_BTK = torch.zeros(shape, dtype=torch.long)
        log_p_BTK, token_BT = torch.zeros(shape), torch.zeros(shape[:2])
        for number, (one, each) in enumerate(zip(packed, prefixes, strict=True)):
            rows = [row for row, label in enumerate(one.label) if label != IGNORE]
            token_T = torch.tensor(each.tokens, device=model.device)
            hidden_TD = hidden_BSD[number, rows]
            parts = zip(hidden_TD.split(self.chunk), token_T.split(self.chunk), strict=True)
            length = slice(0, len(rows))
            found = [self._gather(*part) for part in parts]
            token_BT[number, length], log_p_BTK[number, length], id_BTK[number, length] = (
                torch.cat(each).cpu() for each in zip(*found, strict=True)
            )
        return {"teacher_id": id_BTK, "teacher_log_p": log_p_BTK, "teacher_token": token_BT}

    def _gather(self, hidden_RD: Tensor, token_R: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        log_p_RV = self.model.project(hidden_RD)[:, : self.vocabulary].log_softmax(-1)
        log_p_RK, id_RK = log_p_RV.topk(self.top_k)
        return log_p_RV.gather(-1, token_R[:, None])[:, 0], log_p_RK, id_RK
