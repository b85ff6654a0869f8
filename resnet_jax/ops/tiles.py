"""Pallas kernels that read arrays of images once, tile by tile.

Arrays of images are [N, P, C]: examples, pixels and channels.  Each of them comes with vectors
[V, L, C], which hold L values for each channel, either for every example by itself (V = N) or for
all of them (V = 1).  A kernel is written as a function of tiles: it takes float32[rows, columns]
of each array, where the rows are pixels and the columns are channels, and float32[1, columns] of
each vector.

The same kernels are compiled by Triton for GPUs and by Mosaic for TPUs.  The two differ in the
sizes of their tiles and in what they do at the edges of an array.  Triton needs sizes that are
powers of two, and must not touch memory outside the array, so that reads and writes are masked.
Mosaic needs tiles of whole registers or of the whole array, and pads and cuts by itself.
"""

from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp

Target = Literal["triton", "mosaic", "interpreter", "mosaic interpreter"]
"""What compiles a kernel.  The interpreters run what Triton or Mosaic would compile."""

TileFunction = Callable[[list[jax.Array], list[jax.Array]], Sequence[jax.Array]]
"""Maps tiles of all arrays and all vectors to tiles float32[rows, columns]."""

# Elements of a tile on GPUs: 16 for each of 128 threads, for every array.  Not measured yet.
_TRITON_ELEMENTS = 2048

# Most channels in a tile on GPUs: 256 bytes of bfloat16.
_TRITON_COLUMNS = 128

# Most tiles that one program on a GPU adds up.
_TRITON_STEPS = 16

# Largest tile on TPUs.  Six arrays of such tiles in float32, twice each, take 6 MiB of memory.
_MOSAIC_ROWS, _MOSAIC_COLUMNS = 512, 256


class Tiling(NamedTuple):
    """How an array of P pixels and C channels is divided.

    Attributes:
        pixels: P.
        channels: C.
        rows: pixels of a tile.
        columns: channels of a tile.
        steps: number of tiles, one below the other, that one program computes.
    """

    pixels: int
    channels: int
    rows: int
    columns: int
    steps: int

    @property
    def block_rows(self) -> int:
        """Number of pixels that one program computes."""
        return self.rows * self.steps

    @property
    def grid(self) -> tuple[int, int]:
        """Number of programs along channels and pixels."""
        return -(-self.channels // self.columns), -(-self.pixels // self.block_rows)


def tiling(pixels: int, channels: int, target: Target, *, sums: bool) -> Tiling:
    """Return the tiles of an array for a target.

    Args:
        pixels: number of pixels of an example, at least 1.
        channels: number of channels, at least 1.
        target: what compiles the kernel.
        sums: whether a program adds up several tiles, where that is faster.
    """
    if target.startswith("mosaic"):
        rows, columns = min(pixels, _MOSAIC_ROWS), min(channels, _MOSAIC_COLUMNS)
        return Tiling(pixels, channels, rows, columns, 1)
    columns = min(_next_power_of_two(channels), _TRITON_COLUMNS)
    rows = min(_next_power_of_two(pixels), _TRITON_ELEMENTS // columns)
    steps = min(-(-pixels // rows), _TRITON_STEPS) if sums else 1
    return Tiling(pixels, channels, rows, columns, steps)


def map_tiles(
    function: TileFunction,
    images: Sequence[jax.Array],
    vectors: jax.Array,
    dtypes: Sequence[Any],
    *,
    target: Target,
    name: str,
) -> list[jax.Array]:
    """Return arrays, each element of which is a function of the same element of all arrays.

    Args:
        function: computes the tiles of all results.
        images: [N, P, C] each, of any floating-point types.
        vectors: float32[V, L, C].
        dtypes: types of the results.
        target: what compiles the kernel.
        name: name of the kernel in profiles.

    Returns:
        [N, P, C] for each type.
    """
    _, pixels, channels = images[0].shape
    tiles = tiling(pixels, channels, target, sums=False)

    def kernel(*refs: Any) -> None:
        *inputs, rows = refs[: len(images) + 1]
        block = _Block(tiles)
        inside = block.inside(0)
        results = function(
            [_read(ref, tiles, 0, inside, target) for ref in inputs],
            _read_vectors(rows, block, target),
        )
        for ref, result in zip(refs[len(images) + 1 :], results, strict=True):
            _write(ref, 0, result.astype(ref.dtype), inside, target)

    outputs = [(images[0].shape, dtype, _image_block(tiles)) for dtype in dtypes]
    return _call(kernel, images, vectors, outputs, tiles, target=target, name=name)


def sum_tiles(
    function: TileFunction,
    images: Sequence[jax.Array],
    vectors: jax.Array,
    count: int,
    *,
    target: Target,
    name: str,
) -> jax.Array:
    """Return sums over pixels of functions of the elements of all arrays.

    Args:
        function: computes the tiles of all summands.
        images: [N, P, C] each, of any floating-point types.
        vectors: float32[V, L, C].
        count: number of summands.
        target: what compiles the kernel.
        name: name of the kernel in profiles.

    Returns:
        float32[N, count, C].
    """
    number, pixels, channels = images[0].shape
    tiles = tiling(pixels, channels, target, sums=True)

    def kernel(*refs: Any) -> None:
        *inputs, rows, output = refs
        block = _Block(tiles)
        values = _read_vectors(rows, block, target)

        def summands(step: Any) -> list[jax.Array]:
            inside = block.inside(step)
            read = [_read(ref, tiles, step, inside, target) for ref in inputs]
            found = function(read, values)
            return [x if inside is None else jnp.where(inside, x, 0.0) for x in found]

        if tiles.steps == 1:
            totals = summands(0)
        else:
            zeros = [jnp.zeros((tiles.rows, tiles.columns), jnp.float32)] * count
            totals = jax.lax.fori_loop(
                0,
                tiles.steps,
                lambda i, totals: [a + b for a, b in zip(totals, summands(i), strict=True)],
                zeros,
            )
        columns = block.columns_inside(1)
        for i, total in enumerate(totals):
            _write(output, i, jnp.sum(total, axis=0, keepdims=True), columns, target)

    parts = tiles.grid[1]
    of_sums: Block = ((None, None, count, tiles.columns), lambda j, i, n: (n, i, 0, j))
    outputs = [((number, parts, count, channels), jnp.float32, of_sums)]
    [sums] = _call(kernel, images, vectors, outputs, tiles, target=target, name=name)
    return jnp.sum(sums, axis=1)


Block = tuple[tuple[int | None, ...], Callable[..., Any]]


def _image_block(tiles: Tiling) -> Block:
    return (None, tiles.block_rows, tiles.columns), lambda j, i, n: (n, i, j)


def _call(
    kernel: Callable[..., None],
    images: Sequence[jax.Array],
    vectors: jax.Array,
    outputs: Sequence[tuple[tuple[int, ...], Any, Block]],
    tiles: Tiling,
    *,
    target: Target,
    name: str,
) -> list[jax.Array]:
    """Run a kernel for every block of every example."""
    # Importing Pallas with Triton and Mosaic takes 0.1 s, and most programs do not need them.
    from jax.experimental import pallas as pl

    repeated = vectors.shape[0] == 1
    of_vectors: Block = (
        (None, vectors.shape[1], tiles.columns),
        lambda j, _, n: (0 if repeated else n, 0, j),
    )
    varying = jax.typeof(images[0]).mat
    return pl.pallas_call(
        kernel,
        [
            jax.ShapeDtypeStruct(shape, dtype, manual_axis_type=varying)
            for shape, dtype, _ in outputs
        ],
        grid=(*tiles.grid, images[0].shape[0]),
        in_specs=[
            pl.BlockSpec(*block) for block in (*[_image_block(tiles)] * len(images), of_vectors)
        ],
        out_specs=[pl.BlockSpec(*block) for *_, block in outputs],
        interpret=target.endswith("interpreter"),
        compiler_params=_compiler_params(target),
        name=name,
    )(*images, vectors)


def _compiler_params(target: Target) -> Any:
    match target:
        case "triton":
            from jax.experimental.pallas import triton

            return triton.CompilerParams(num_warps=4)
        case "mosaic":
            from jax.experimental.pallas import tpu

            return tpu.CompilerParams(dimension_semantics=("parallel",) * 3)
    return None


class _Block:
    """The block of one program, and what of it is inside the array.

    The number of the program is read once, because the interpreter does not know it within loops.
    """

    def __init__(self, tiles: Tiling) -> None:
        from jax.experimental import pallas as pl

        self.tiles = tiles
        self.first_column = pl.program_id(0) * tiles.columns
        self.first_row = pl.program_id(1) * tiles.block_rows

    def inside(self, step: Any) -> jax.Array | None:
        """Return which elements of a tile are inside the array, or None for all of them.

        Args:
            step: number of the tile in the block.

        Returns:
            bool[rows, columns].
        """
        tiles, columns = self.tiles, self.columns_inside(self.tiles.rows)
        if tiles.pixels % tiles.block_rows == 0:
            return columns
        first = self.first_row + step * tiles.rows
        shape = tiles.rows, tiles.columns
        rows = first + jax.lax.broadcasted_iota(jnp.int32, shape, 0) < tiles.pixels
        return rows if columns is None else jnp.logical_and(rows, columns)

    def columns_inside(self, rows: int) -> jax.Array | None:
        """Return which channels are inside, bool[rows, columns], or None for all of them."""
        tiles = self.tiles
        if tiles.channels % tiles.columns == 0:
            return None
        columns = jax.lax.broadcasted_iota(jnp.int32, (rows, tiles.columns), 1)
        return self.first_column + columns < tiles.channels


def _read(
    ref: Any, tiles: Tiling, step: Any, inside: jax.Array | None, target: Target
) -> jax.Array:
    """Return a tile in float32.  Outside the array it is zero on GPUs and undefined on TPUs."""
    return _load(ref, step * tiles.rows, tiles.rows, inside, target).astype(jnp.float32)


def _read_vectors(ref: Any, block: _Block, target: Target) -> list[jax.Array]:
    """Return float32[1, columns] of each vector."""
    columns = block.columns_inside(1)
    return [_load(ref, i, 1, columns, target) for i in range(ref.shape[0])]


def _load(ref: Any, first: Any, rows: int, inside: jax.Array | None, target: Target) -> jax.Array:
    from jax.experimental import pallas as pl

    part = pl.ds(first, rows), slice(None)
    if target.startswith("mosaic"):
        return ref[part]
    from jax.experimental.pallas import triton

    other = None if inside is None else jnp.zeros((), ref.dtype)
    return triton.load(ref.at[part], mask=inside, other=other)


def _write(
    ref: Any, first: int, values: jax.Array, inside: jax.Array | None, target: Target
) -> None:
    from jax.experimental import pallas as pl

    part = pl.ds(first, values.shape[0]), slice(None)
    if target.startswith("mosaic"):
        ref[part] = values
        return
    from jax.experimental.pallas import triton

    triton.store(ref.at[part], values, mask=inside)


def _next_power_of_two(number: int) -> int:
    return 1 << (number - 1).bit_length()
