"""Which parameters decay."""

from typing import Literal

DecayOn = Literal["kernels", "all", "all_but_norm", "all_but_named_norm"]
"""Parameters that weight decay acts on.

- "kernels": the kernels of convolutions and dense layers, as in timm, the Flax example and
  big_vision.
- "all": every parameter, as in torchvision's first recipe and in the papers of He et al.
- "all_but_norm": all but the parameters of normalization layers, as in torchvision's second recipe.
  The bias of the head therefore decays.
- "all_but_named_norm": the same, and also the normalization layers of shortcuts and the first two
  of a deep stem, as in FFCV and NVIDIA's examples. They exclude the parameters whose PyTorch name
  contains "bn".
"""
