"""Configuration of progressive resizing: smaller training images at the beginning of a run."""

import dataclasses

from resnet_jax.config.validation import require, require_not_negative, require_positive


@dataclasses.dataclass(frozen=True)
class ResizingConfig:
    """Training images that grow during the run, so that the first epochs take less time.

    The size changes between epochs.  Evaluation always uses images of full size.
    """

    initial_size: int | None = None
    """Height and width in pixels of the training images of the first epochs. None trains on images
    of full size in all epochs, and the other fields of resizing then have no effect."""
    start_epoch: float = 0.0
    """Last epoch, counted from 0, with images of initial_size. After it, the size grows
    linearly."""
    end_epoch: float = 0.0
    """First epoch, counted from 0, with images of full size, which is the image_size of the
    data."""
    multiple_of: int = 32
    """Number of pixels of which the sizes in between are multiples. They are rounded to the nearest
    one. The training step is compiled once for each size, so a smaller number needs more
    compilations."""
    batch_sizes: tuple[tuple[int, int], ...] = ()
    """Pairs of an image size and the batch size of the epochs with images of that size:
    ((128, 2048), (160, 1536)), or 128 2048 160 1536 on the command line. Epochs with other sizes
    have batches of batch_size images. The learning rate follows learning_rate_scaling."""

    def __post_init__(self) -> None:
        require_positive(self, "multiple_of")
        require_not_negative(self, "start_epoch", "end_epoch")
        for pair in self.batch_sizes:
            require(min(pair) > 0, f"batch_sizes must be pairs of numbers above 0, not {pair}")
        sizes = [size for size, _ in self.batch_sizes]
        require(
            len(set(sizes)) == len(sizes),
            f"batch_sizes must list every image size once, but it lists {sizes}",
        )
        require(
            not self.batch_sizes or self.initial_size is not None,
            "batch_sizes needs initial_size, without which all images have full size; set it, or "
            "leave batch_sizes out",
        )
        if self.initial_size is not None:
            require_positive(self, "initial_size", "end_epoch")
            require(
                self.start_epoch <= self.end_epoch,
                f"start_epoch ({self.start_epoch:g}) must not be above end_epoch "
                f"({self.end_epoch:g})",
            )

    def size_at(self, epoch: int, full_size: int) -> int:
        """Return the height and width of the training images of an epoch, in pixels.

        This is ``get_resolution`` of libffcv/ffcv-imagenet, where halves are rounded to the even
        multiple.  Composer's progressive resizing is the same with ``start_epoch`` and
        ``end_epoch`` at the ends of its delay and its ramp.

        Args:
            epoch: number of the epoch, counted from 0.
            full_size: height and width of the images of the data, in pixels.
        """
        if self.initial_size is None or epoch >= self.end_epoch:
            return full_size
        if epoch <= self.start_epoch:
            return self.initial_size
        share = (epoch - self.start_epoch) / (self.end_epoch - self.start_epoch)
        size = self.initial_size + share * (full_size - self.initial_size)
        rounded = round(size / self.multiple_of) * self.multiple_of
        return min(max(rounded, self.initial_size), full_size)
