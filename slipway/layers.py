"""What images consist of, as a manifest has it: layers, which images share, and who made them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from slipway import engine
from slipway.manifest import Layer, ReleasedImage
from slipway.production import Image

# Instructions that change an image's configuration alone.
NO_LAYER = (
    *("ARG", "CMD", "ENTRYPOINT", "ENV", "EXPOSE", "HEALTHCHECK", "LABEL", "MAINTAINER"),
    *("ONBUILD", "SHELL", "STOPSIGNAL", "USER", "VOLUME"),
)


def instruction(made_by: str) -> str:
    """An instruction as ``docker history`` tells it, without how it says that it ran nothing."""
    return made_by.removeprefix("/bin/sh -c #(nop)").strip()


def layers_of(diff_ids: Sequence[str], history: Sequence[Mapping[str, Any]]) -> list[Layer]:
    """Pair layers with the instructions that made them.

    The history does not say which of its rows made a layer: those that have a size did, and of the
    others as many as are left, such as a WORKDIR that was there.

    :param diff_ids: the layers, lowest first.
    :param history: rows of ``docker history``, topmost first: ``CreatedBy``, ``Size`` in bytes.
    """
    rows = [(instruction(str(row["CreatedBy"])), int(row["Size"])) for row in reversed(history)]
    made = [(text, size) for text, size in rows if size or text.split(" ")[0] not in NO_LAYER]
    if len(made) != len(diff_ids):
        made = [(text, size) for text, size in made if size]
    if len(made) != len(diff_ids):  # an image that was imported or squashed has no history
        made = [("", 0)] * len(diff_ids)
    return [Layer(d, size, text) for d, (text, size) in zip(diff_ids, made, strict=True)]


def released_image(image: Image, kind: str, variant: str) -> ReleasedImage:
    """An image that is here, as a manifest has it."""
    found = engine.inspect_images(image.tag)[image.tag]
    ask = ["history", "--no-trunc", "--human=false", "--format", "{{json .}}", image.tag]
    history = [json.loads(row) for row in engine.ask(ask, f"look into {image.tag}").splitlines()]
    return ReleasedImage(
        alias=image.alias,
        kind=kind,
        variant=variant,
        id=str(found["Id"]),
        size=int(found["Size"]),
        layers=tuple(layers_of(found["RootFS"]["Layers"], history)),
    )
