"""How other libraries name and arrange the tensors of a residual network."""
