"""Which parameters decay."""

from typing import Literal

DecayOn = Literal["kernels", "all", "all_but_norm", "all_but_named_norm"]
"""Parameters that weight decay acts on.

- "kernels": those of convolutions and dense layers. timm, the Flax example and big_vision do so.
- "all": every parameter, as in torchvision's first recipe and in the papers of He et al.
- "all_but_norm": all but those of normalization layers, as in torchvision's second recipe. The bias
  of the head decays.
- "all_but_named_norm": as "all_but_norm", but the normalization layers of shortcuts decay too, and
  so do the first two of a deep stem. FFCV and NVIDIA do so, because they exclude the parameters
  whose PyTorch name contains "bn".
"""
