"""Images in files: where they come from, how they are decoded, how batches of them are made."""
