"""Image files: finding them, decoding and cropping them, and making batches of them."""
