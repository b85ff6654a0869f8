"""Images in files."""
