# Copyright 2026 rt_panoptic_ros developers
# SPDX-License-Identifier: Apache-2.0
"""`rt-panoptic build-engine`, `compile-kernels`, `tune`, `verify`: what is done ahead of time about backends."""

from __future__ import annotations

import argparse
import re
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from rt_panoptic_ros.commands.options import add_device, add_model, add_tf32, natural
from rt_panoptic_ros.errors import InvalidInputError, UnavailableError
from rt_panoptic_ros.settings import parse_size

if TYPE_CHECKING:
    from rt_panoptic_ros.model.bundle import ModelBundle

_PRECISIONS = {"fp32": "float32", "fp16": "float16", "float32": "float32", "float16": "float16", "int8": "int8"}


def _build_engine(options: argparse.Namespace) -> None:
    from tqdm import tqdm

    from rt_panoptic_ros.inference import engine_cache, tensorrt_runtime
    from rt_panoptic_ros.inference.backends import resolve_device
    from rt_panoptic_ros.inference.base import made_current
    from rt_panoptic_ros.inference.tensorrt_backend import build_engine, warn_of_precision
    from rt_panoptic_ros.model.bundle import read_bundle
    from rt_panoptic_ros.progress import observing

    bundle = read_bundle(options.model)
    size = _network_size(options.size, bundle)
    precision = _PRECISIONS[options.precision]
    runtime = tensorrt_runtime.load_runtime(options.runtime)
    warn_of_precision(runtime, precision)
    how = tensorrt_runtime.BuildOptions(
        tf32=options.tf32, workspace_mb=options.workspace, timing_cache=options.timing_cache
    )
    folder = options.out or engine_cache.engine_folder()
    device = "cpu" if options.compute_capability else resolve_device(options.device)
    for target in options.compute_capability or [tensorrt_runtime.gpu_identity(device)]:
        with made_current(device), tqdm(total=100, desc=f"for {target}", unit="%", leave=False) as bar:

            def show(words: str, bar: tqdm[NoReturn] = bar) -> None:
                share = re.search(r"(\d+) %$", words)
                bar.n = int(share[1]) if share else bar.n
                bar.refresh()

            with observing(show):
                identity, plan, found = build_engine(bundle, size, precision, runtime, target, how, folder)
        path = folder / f"{identity.stem}.engine"
        if not path.exists():
            raise UnavailableError(
                f"expected to keep the engine in {folder}, it could not be written: check the disk's space and "
                "permissions, or choose another --out"
            )
        print(f"{'found' if found else 'built'}: {path} ({len(plan) / 1e6:.1f} MB, {runtime.name} {runtime.version})")


def _compile_kernels(options: argparse.Namespace) -> None:
    import warp

    from rt_panoptic_ros.geometry.boxes import BoxFinder
    from rt_panoptic_ros.inference.backends import resolve_device
    from rt_panoptic_ros.pipeline import load_frame_kernels

    device = resolve_device(options.device)
    load_frame_kernels(device)
    BoxFinder()
    print(f"kernels for {device}: {warp.config.kernel_cache_dir}")


def _verify(options: argparse.Namespace) -> None:
    from rt_panoptic_ros.inference.parity import verify_bundle
    from rt_panoptic_ros.model.bundle import read_bundle

    report = verify_bundle(read_bundle(options.model), options.image, options.device)
    print(report.format())
    if report.failures:
        raise InvalidInputError(
            f"expected the backends to agree on {options.model}, got differences beyond rounding: "
            f"{'; '.join(report.failures)}: see the table, and don't use those backends"
        )


def _tune(options: argparse.Namespace) -> None:
    from rt_panoptic_ros.inference.backends import open_backend, resolve_device
    from rt_panoptic_ros.inference.choice import check_tunable, tune, write_tuned
    from rt_panoptic_ros.model.bundle import read_bundle

    bundle = read_bundle(options.model)
    where = resolve_device(options.device)
    size = _network_size(options.size, bundle)
    check_tunable()
    times, left_out = tune(bundle, size, where, open_backend)
    for choice, time_ms in times:
        print(f"{choice.backend} in {choice.precision}: {time_ms:.1f} ms")
    print(*(f"not timed: {reason}" for reason in left_out), sep="\n", end="\n" * bool(left_out))
    best = times[0][0]
    print(
        f"auto is {best.backend} in {best.precision} on {where} for {bundle.name} (timed at {size[0]}x{size[1]}), "
        f"whenever it is loaded from now on with this cache: {write_tuned(bundle, times, size)}"
    )


def _network_size(text: str, bundle: ModelBundle) -> tuple[int, int]:
    size = parse_size("--size", text) or bundle.input.size
    if size is None:
        raise InvalidInputError(
            f"expected --size as HEIGHTxWIDTH in px, as {bundle.name} takes images of any size, got nothing"
        )
    return size


def add_commands(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the subcommands."""
    command = commands.add_parser("build-engine", help="build a model's TensorRT engine ahead of time")
    command.set_defaults(run=_build_engine)
    add_model(command)
    command.add_argument("--size", default="", help="HEIGHTxWIDTH px of the network's input (default: the model's own)")
    command.add_argument("--precision", default="fp16", choices=list(_PRECISIONS), help="default: %(default)s")
    add_tf32(command)
    add_device(command)
    command.add_argument("--runtime", default="auto", choices=("auto", "tensorrt", "tensorrt_rtx"))
    command.add_argument(
        "--compute-capability", nargs="+", default=[], metavar="X.Y",
        help="GPUs to build for, such as 8.9, one engine each; needs tensorrt_rtx, no GPU (default: the GPU at hand)",
    )  # fmt: skip
    command.add_argument(
        "--workspace", type=natural, default=0, metavar="MB", help="scratch memory at most (default: no limit)"
    )
    command.add_argument("--timing-cache", type=Path, metavar="FILE", help="keep timings here for the next build")
    command.add_argument("--out", type=Path, metavar="DIR", help="default: the cache, where the node finds it")

    command = commands.add_parser(
        "compile-kernels", help="compile the kernels of post-processing ahead of the first start, into WARP_CACHE_PATH"
    )
    command.set_defaults(run=_compile_kernels)
    add_device(command)

    command = commands.add_parser(
        "tune", help="time every backend of this machine, and have auto take the fastest of those that lose nothing"
    )
    command.set_defaults(run=_tune)
    add_model(command)
    command.add_argument("--size", default="", help="HEIGHTxWIDTH px of the network's input (default: the model's own)")
    add_device(command)

    command = commands.add_parser("verify", help="run a model with every backend of this machine and compare them")
    command.set_defaults(run=_verify)
    add_model(command)
    command.add_argument("--image", required=True, help="image to label")
    add_device(command)
