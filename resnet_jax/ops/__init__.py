"""Operations with a program for each platform: convolution, pooling, normalization, memory."""
