"""How a platform computes: formulations of convolution, pooling and normalisation."""
