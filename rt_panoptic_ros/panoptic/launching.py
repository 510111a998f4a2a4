# Copyright 2026 rt_panoptic_ros developers
# SPDX-License-Identifier: Apache-2.0
"""How kernels are launched, what they take by address, and how their results come to the host."""

from __future__ import annotations

import functools
import math
import os
from concurrent.futures import Future, ThreadPoolExecutor, wait
from itertools import count
from threading import Event
from typing import TYPE_CHECKING, Any

import numpy as np
import warp as wp

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

MAX_BANDS = 4
"""More would wait for memory; and some cores should stay free for the rest of the robot."""

_ALIGNMENT = 256  # bytes

_MOST_RECORDED = 1024
_RECORDED: dict[tuple[object, ...], Any] = {}
"""{what a launch on the CPU depends on: Warp's record of it}"""

BLOCK_THREADS = 256
CPU_BLOCK_THREADS = 1
"""Of blocks whose threads work together; Warp runs a kernel in one thread on the CPU."""

STRIPS = 2
"""For each band: who is done with one takes the next, as objects, and other work on the cores, make some slower."""

LEAST_CELLS = 4096
"""Of a band: less is not worth waking a thread (measured at 480x640)."""

HELD_CELLS = 4 * LEAST_CELLS
"""Likewise where most cells hold nothing and cost little."""


def launch(kernel: wp.Kernel, shape: int | Sequence[int], *arguments: Any) -> None:
    """Launch a kernel on the device that holds the first array of its arguments."""
    _launch(kernel, shape, arguments, _device_of(arguments))


def launch_blocks(kernel: wp.Kernel, blocks: int, *arguments: Any) -> None:
    """Launch so many blocks of threads that work together (see `blocks`).

    The kernel's first argument is the number of threads of a block; its `tid()` is (block, thread).
    """
    device = _device_of(arguments)
    threads = CPU_BLOCK_THREADS if device.is_cpu else BLOCK_THREADS
    _launch(kernel, (blocks, threads), (threads, *arguments), device, block_dim=BLOCK_THREADS)


def _launch(
    kernel: wp.Kernel, shape: int | Sequence[int], arguments: Sequence[Any], device: wp.Device, **options: int
) -> None:
    """Launch a kernel; on the CPU what was recorded with the first launch of that kind, which spares most of its cost.

    A record holds the arguments' addresses and values, which its key has, too, and keeps nothing alive.
    """
    if device.is_cuda or device.is_capturing:
        wp.launch(kernel, shape, inputs=arguments, device=device, **options)
        return
    key = (kernel, shape, *(_content(argument) for argument in arguments))
    recorded = _RECORDED.get(key)
    if recorded is None:
        if len(_RECORDED) >= _MOST_RECORDED:
            _RECORDED.clear()
        recorded = wp.launch(kernel, shape, inputs=arguments, device=device, record_cmd=True, **options)
        if recorded is None:  # an empty shape
            return
        recorded.fwd_args = None  # it would keep the arrays
        _RECORDED[key] = recorded
    recorded.launch()


def _content(argument: Any) -> object:
    return (argument.ptr, argument.shape, argument.strides) if isinstance(argument, wp.array) else argument


def _device_of(arguments: Sequence[Any]) -> wp.Device:
    return next(argument.device for argument in arguments if isinstance(argument, wp.array))


def band_count(device: wp.Device) -> int:
    """Return how many bands kernels on `device` run in at most: the number of slots for what they count."""
    return min(MAX_BANDS, len(os.sched_getaffinity(0))) if device.is_cpu else 1


def launch_rows(
    kernel: wp.Kernel, shape: Sequence[int], *arguments: Any, least_cells: int = LEAST_CELLS, spans: bool = False
) -> None:
    """Launch a kernel over `shape`, whose first axis are rows that don't depend on each other.

    On the CPU it runs in bands of rows over several threads; Warp itself uses one there, but releases Python's lock, so
    bands run truly beside each other: measured on two cores, a kernel's time halves. A GPU takes it whole, as band 0.

    Args:
        kernel: Its first arguments are the first row of the band, to be added to its own, and the band's number.
        shape: Rows, and further axes.
        arguments: The kernel's further arguments.
        least_cells: Cells of the shape that are worth a band of their own.
        spans: A thread does a whole line of the last axis on the CPU, where it can skip much of it at once; the
            kernel's last argument is how many places a thread does.
    """
    rows, device = shape[0], _device_of(arguments)
    bands = max(1, min(band_count(device), math.prod(shape) // least_cells))
    if spans:
        shape, span = spanned(device, shape)
        arguments = (*arguments, span)
    strips = 1 if bands == 1 else bands * STRIPS
    starts = [rows * strip // strips for strip in range(strips + 1)]
    turns = count()

    def launch_band(band: int) -> None:
        while (strip := next(turns)) < strips:
            first, last = starts[strip], starts[strip + 1]
            _launch(kernel, (last - first, *shape[1:]), (first, band, *arguments), device)

    further = [_threads(MAX_BANDS - 1, "bands").submit(launch_band, band) for band in range(1, bands)]
    try:
        launch_band(0)
    finally:
        further = [band for band in further if not band.cancel()]  # those that got to it
        wait(further)  # none may write into the next frame's memory
    for band in further:
        band.result()


def divided(device: wp.Device, most: int) -> int:
    """Return among how many threads work is divided that one does on the CPU: `most` on a GPU, which has many."""
    return most if device.is_cuda else 1


def spanned(device: wp.Device, shape: Sequence[int]) -> tuple[tuple[int, ...], int]:
    """Return the shape of threads that each do a span of the last axis, and how long it is: on the CPU a whole line."""
    places = divided(device, shape[-1])
    return (*shape[:-1], places), shape[-1] // places


class Beside:
    """Work that another thread does beside the caller's, in order; without a core for that, the caller where it asks.

    As a context it ends when all of it is done: none may write into the next frame's memory.
    """

    def __init__(self, device: wp.Device) -> None:
        """Begin without work. On a GPU, which does what is launched in order, there is no other thread."""
        self._threads = _threads(1, "beside") if band_count(device) > 1 and not device.is_capturing else None
        self._works: list[tuple[Callable[[], None], Future[None] | None]] = []

    def begin(self, work: Callable[[], None]) -> None:
        """Have work done after what was begun before."""
        self._works.append((work, self._threads.submit(work) if self._threads else None))

    def end_next(self) -> None:
        """Return when the first work, if any, that has not been ended yet is done; raises what it raised."""
        if not self._works:
            return
        work, future = self._works.pop(0)
        if future is None:
            work()
        else:
            future.result()

    def __enter__(self) -> Beside:
        """Return itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Wait for what was begun."""
        wait([future for _, future in self._works if future is not None])


@functools.cache
def _threads(number: int, name: str) -> ThreadPoolExecutor:
    """Return so many of the process's threads, made when first needed.

    All are started at once: were there no memory for one later, its work would wait in the queue, for another frame.
    """
    threads, started = ThreadPoolExecutor(number, name), Event()
    try:
        for _ in range(number):
            threads.submit(started.wait)
    except RuntimeError:
        threads.shutdown(wait=False, cancel_futures=True)
        raise
    finally:
        started.set()
    return threads


class StructSlot:
    """Structs of arrays in a device's memory, for kernels to take by address; copied only when they have changed.

    Taken by value, a struct of arrays is copied at the start of every thread: 20 ns, where most threads take 5.
    """

    def __init__(self, kind: Any, device: wp.Device) -> None:
        """Make an empty slot for structs of a kind on `device`."""
        self._kind, self._device = kind, device
        self._held: list[object] = []
        self.array: wp.array = None
        """Of the last structs; others have another array."""

    def hold(self, *structs: Mapping[str, Any]) -> wp.array:
        """Return an array of structs with these fields, the last one again where they are the same.

        The array keeps alive what the structs refer to.
        """
        held: list[object] = [(name, _content(value)) for struct in structs for name, value in struct.items()]
        if held != self._held:
            made = [self._kind() for _ in structs]
            for struct, values in zip(made, structs, strict=True):
                for name, value in values.items():
                    setattr(struct, name, value)
            self.array, self._held = wp.array(made, dtype=self._kind, device=self._device), held
        self.array.structs = structs
        return self.array


class Packed:
    """Arrays that lie one behind the other on a device, so that neighbours come to the host in one copy."""

    def __init__(self, kinds: Mapping[str, tuple[tuple[int, ...], Any]], device: wp.Device) -> None:
        """Allocate arrays of {name: (shape, Warp's dtype)}; on a GPU, pinned memory on the host as well."""
        self._kinds, self._begins, end = dict(kinds), {}, 0
        for name, (shape, dtype) in kinds.items():
            self._begins[name] = end
            end += -(-math.prod(shape) * wp.types.type_size_in_bytes(dtype) // _ALIGNMENT) * _ALIGNMENT
        self._end = end
        self._buffer = wp.zeros(end, dtype=wp.uint8, device=device)
        self.arrays = self._views(self._buffer)
        self.come_to(wp.empty(end, dtype=wp.uint8, device="cpu", pinned=True) if device.is_cuda else self._buffer)

    def come_to(self, host: wp.array) -> None:
        """Have the host get the arrays in memory of its own, as large as all of them, or where they are."""
        self._host = host
        self._host_arrays = {name: array.numpy() for name, array in self._views(host).items()}

    def enqueue(self, first: str, last: str) -> None:
        """Have the arrays from `first` to `last` copied to the host after what has been launched so far."""
        if self._host is not self._buffer:
            begin = self._begins[first]
            end = min((other for other in self._begins.values() if other > self._begins[last]), default=self._end)
            wp.copy(self._host, self._buffer, dest_offset=begin, src_offset=begin, count=end - begin)

    def host(self) -> dict[str, np.ndarray]:
        """Wait for the last `enqueue`; return the arrays, of which those hold good until the next one."""
        if self._host is not self._buffer:
            wp.synchronize_stream(wp.get_stream(self._buffer.device))
        return self._host_arrays

    def _views(self, buffer: wp.array) -> dict[str, wp.array]:
        views = {}
        for name, (shape, dtype) in self._kinds.items():
            views[name] = wp.array(
                ptr=buffer.ptr + self._begins[name], shape=shape, dtype=dtype, device=buffer.device, copy=False
            )
            views[name].memory = buffer  # lives as long
        return views
