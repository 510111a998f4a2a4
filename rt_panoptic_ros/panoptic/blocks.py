# Copyright 2026 rt_panoptic_ros developers
# SPDX-License-Identifier: Apache-2.0
"""Kernels whose threads work together in blocks: what the threads of a block share.

Such a kernel is launched by `launching.launch_blocks`; its threads stride over the work, `for i in range(thread, count,
threads)`, and meet at `sync_block`, which all of them must reach equally often. A block has 256 threads on a GPU and
one on the CPU, so the same source is a serial program there.
"""

from __future__ import annotations

import warp as wp

wp.set_module_options({"enable_backward": False})

BLOCK_WORDS = wp.constant(2560)
"""32-bit words of a block's memory, as `block_memory` gives it."""


@wp.func_native("""
#if defined(__CUDA_ARCH__)
__syncthreads();
#elif defined(RT_PANOPTIC_SYNC_BLOCK)
RT_PANOPTIC_SYNC_BLOCK;
#endif
""")
def sync_block() -> None:
    """Wait until all threads of the block are here; what they wrote can be read behind it."""


@wp.func_native(f"""
#if defined(__CUDA_ARCH__)
__shared__ unsigned int words[{BLOCK_WORDS}];
return (wp::uint64)words;
#else
return (wp::uint64)(scratch.data + {BLOCK_WORDS} * (size_t)block);
#endif
""")
def block_memory(scratch: wp.array(dtype=wp.uint32), block: wp.int32) -> wp.uint64:
    """Return the address of the block's `BLOCK_WORDS` words: on a GPU fast memory, else a part of `scratch`."""


@wp.func_native("""
#if defined(__CUDA_ARCH__)
return __popc(word);
#else
return __builtin_popcount(word);
#endif
""")
def bit_count(word: wp.uint32) -> int:  # type: ignore[empty-body]  # the text above is its body
    """Return how many bits of a word are set."""


def make_scratch(blocks: int, device: wp.Device) -> wp.array:
    """Return memory for so many blocks of a kernel, which the CPU needs for `block_memory`."""
    return wp.zeros(blocks * BLOCK_WORDS if device.is_cpu else 1, dtype=wp.uint32, device=device)
