"""Text around the moments of a video, as Qwen3-VL has it (arXiv 2511.21631, section 2).

"<0.2 seconds>", then the moment between the tokens that open and close what is seen. Legend: n =
tokens of a unit, W = width of the LM's input.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from proactivellm.core.packing import MEDIA_ID
from proactivellm.core.positions import Grid


@dataclass(frozen=True)
class Timestamps:
    """Puts text before and after each moment of a unit."""

    write: Callable[[str], Sequence[int]]  # token ids of a text
    embed: nn.Module  # embeddings of token ids
    opens: int  # token between the time and its moment
    closes: int  # token after the moment

    def around(self, grid: Grid, times_s: Sequence[float]) -> tuple[list[int], Grid]:
        """Token ids and grid of a unit with the text; `times_s` are those of its moments.

        MEDIA_ID stands for what is seen. A time is cut to a tenth of a second by Python, as the
        processor of transformers cuts it.
        """
        before = [[*self.write(f"<{time_s:.1f} seconds>"), self.opens] for time_s in times_s]
        grid = grid._replace(texts=tuple((len(ids), 1) for ids in before))
        texts = iter(token for each in before for token in (*each, self.closes))
        return [MEDIA_ID if seen else next(texts) for seen in grid.rows_in_space()], grid

    def put(self, features_nW: Tensor, grid: Grid, times_s: Sequence[float]) -> tuple[Tensor, Grid]:
        """Features and grid of a unit with the text, see `around`."""
        ids, grid = self.around(grid, times_s)
        id_n = torch.tensor(ids, device=features_nW.device)
        text_nD = self.embed(id_n.clamp(min=0)).to(features_nW)
        whole_nW = F.pad(text_nD, (0, features_nW.shape[1] - text_nD.shape[1]))
        whole_nW[id_n == MEDIA_ID] = features_nW
        return whole_nW, grid
