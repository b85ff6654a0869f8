"""Names of the splits in folders and tables."""

# Accepted names, in lowercase or uppercase letters, and the split that each of them means.
SPLITS = {
    "train": "train",
    "training": "train",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
    "test": "test",
}
