"""Text around the moments of a video, as Qwen3-VL has it (arXiv 2511.21631, section 2).

"<0.2 seconds>", then the moment between the tokens that open and close what is seen. Legend: n =
tokens of a unit, W = width of the LM's input, D = that of an embedding.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from proactivellm.core.positions import Grid


@dataclass(frozen=True)
class Timestamps:
    """Puts text before and after each moment of a unit."""

    write: Callable[[str], Sequence[int]]  # token ids of a text
    embed: nn.Module  # embeddings [n, D] of token ids
    opens: int  # token between the time and its moment
    closes: int  # token after the moment

    def put(self, features_nW: Tensor, grid: Grid, times_s: Sequence[float]) -> tuple[Tensor, Grid]:
        """Features and grid of a unit with the text; `times_s` are those of its moments.

        A time is cut to a tenth of a second by Python, as the processor of transformers cuts it.
        """
        before = [[*self.write(f"<{time_s:.1f} seconds>"), self.opens] for time_s in times_s]
        grid = grid._replace(texts=tuple((len(ids), 1) for ids in before))
        ids = [token for each in before for token in (*each, self.closes)]
        text_nD = self.embed(torch.tensor(ids, device=features_nW.device)).to(features_nW)
        in_space = torch.from_numpy(grid.rows_in_space()).to(features_nW.device)
        whole_nW = features_nW.new_empty(grid.size, features_nW.shape[1])
        whole_nW[in_space] = features_nW
        whole_nW[~in_space] = F.pad(text_nD, (0, whole_nW.shape[1] - text_nD.shape[1]))
        return whole_nW, grid
