"""Names of image files, and of files and folders that do not belong to the data."""

EXTENSIONS = (
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".avif"),
    *(".bmp", ".gif", ".tif", ".tiff", ".jp2", ".ppm", ".pgm"),
)
"""Endings of the names of image files, in lowercase letters."""

# Folders of thumbnails and metadata (Synology, QNAP, macOS), of deleted files, and of snapshots, in
# lowercase letters.
_FOLDERS_OF_PROGRAMS = frozenset(
    [
        *("@eadir", "@tmp", "@__thumb", "__macosx", "__pycache__"),
        *("#recycle", "@recycle", "$recycle.bin", "system volume information", "lost+found"),
        *("#snapshot", "@recently-snapshot"),
    ]
)


def is_hidden(name: str) -> bool:
    """Return whether a file or folder of this name belongs to a program, not to the data.

    These are the names that begin with a dot, such as ``.ipynb_checkpoints`` of Jupyter and
    ``._1.jpg`` of macOS, and the folders in which storage systems keep thumbnails, deleted files
    and snapshots.
    """
    return name.startswith(".") or name.lower() in _FOLDERS_OF_PROGRAMS
