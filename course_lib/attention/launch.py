"""How a launch of the decode kernel is shaped: arithmetic only, so it can be read and run without Triton."""

from dataclasses import dataclass


def next_power_of_2(number: int) -> int:
    """The smallest power of two that is not below a number of at least 1: a tile has such a length.

    Example:
        >>> [next_power_of_2(number) for number in (1, 3, 64, 80)]
        [1, 4, 64, 128]
    """
    return 1 << (number - 1).bit_length()


@dataclass(frozen=True)
class Config:
    """How one launch of the decode kernel is shaped."""

    group_part: int  # GP: query heads of a program
    tile: int
    num_warps: int
    num_stages: int


def choose_config(
    group: int, head_dim: int, bytes_per_number: int, capability: tuple[int, int] | None
) -> Config:
    """A shape for the launch.

    Args:
        group: query heads for each KV head.
        head_dim: D.
        bytes_per_number: of the cache; 2 for fp16.
        capability: of the GPU, such as (9, 0) for an H100; None for the interpreter.

    Returns:
        On Turing (sm_75), which has no tensor-core path in Triton, small tiles, and a group in parts such that
        GP x D stays within 1,024: larger ones spill registers. From Ampere on the group is padded to the 16 rows
        that a tensor core takes. Chosen so that nothing spills when compiled (`cross_compile.py`); no GPU has
        measured them yet.
    """
    padded_group, padded_dim = next_power_of_2(group), next_power_of_2(head_dim)
    if capability is None:
        return Config(padded_group, 32, 4, 1)
    if capability < (8, 0):
        return Config(min(padded_group, max(1, 1024 // padded_dim)), 16, 4, 1)
    wide = padded_dim > 128 or bytes_per_number == 4
    return Config(max(16, padded_group), 32 if wide else 64, 8 if bytes_per_number == 4 else 4, 2)


def choose_num_splits(num_programs: int, longest_table: int, tile: int, num_multiprocessors: int) -> int:
    """Into how many parts to cut the contexts, so that a small batch fills the GPU.

    Two programs for each multiprocessor are wanted; a part has four tiles at least, or the merge costs more than it
    wins. The longest context is not known without waiting for the GPU, so the width of the table stands for it.

    Args:
        num_programs: sequences x KV heads (x parts of a group).
        longest_table: slots that a row of the block tables can name.

    Example:
        >>> choose_num_splits(num_programs=8, longest_table=32_768, tile=64, num_multiprocessors=132)
        33
        >>> choose_num_splits(num_programs=512, longest_table=32_768, tile=64, num_multiprocessors=132)
        1
    """
    wanted = 2 * num_multiprocessors // max(1, num_programs)
    return max(1, min(wanted, longest_table // (4 * tile)))
