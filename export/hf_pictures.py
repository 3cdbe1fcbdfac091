"""How a checkpoint of the transformers library wants its pictures: their size, and what happens to the pixels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

# Asked for first: without it, transformers names neither the package nor the extra.
import PIL  # noqa: F401
import transformers
from numpy.typing import NDArray
from optimum.utils import DummyVisionInputGenerator, NormalizedVisionConfig
from torch import Tensor, nn

from acclimate.export.calibration import CalibrationData
from acclimate.export.errors import CalibrationError, ExportError, UnsupportedModel
from acclimate.export.hf_model import IMAGES, first_line, normalized, quiet
from acclimate.export.trace import Preprocessing

_PROBE = 16
_AS_THEY_ARE = {"do_resize": False, "do_center_crop": False}
# Pixels become values of a few units; float32 arithmetic in another order differs by less.
_TOLERANCE = 1e-4


@dataclass(frozen=True)
class PictureFormat:
    """What a client sends, and what becomes of it.

    Attributes:
        channels: of a picture.
        size: height and width, or None where the checkpoint takes any.
        preprocessing: of the channels as they come.
        order: which channel of the picture the model's channels are; some models want blue first.
    """

    channels: int
    size: tuple[int, int] | None
    preprocessing: Preprocessing
    order: tuple[int, ...]

    def arguments(self, pixels: Tensor) -> Mapping[str, Tensor]:
        """Keywords of the model for preprocessed pixels `[B, C, H, W]`."""
        natural = self.order == tuple(range(self.channels))
        return {"pixel_values": pixels if natural else pixels[:, list(self.order)]}

    def checked(self, data: CalibrationData) -> CalibrationData:
        """The same data, if the checkpoint takes pictures like these.

        Raises:
            CalibrationError: other channels or another size than wanted.
        """
        shape = data.inputs.shape[1:]
        if len(shape) != 3 or shape[0] != self.channels:
            raise CalibrationError(
                f"calibration: samples have shape {list(shape)}; this checkpoint takes pictures with {self.channels} "
                "channels"
            )
        if self.size is not None and shape[1:] != self.size:
            raise CalibrationError(
                f"calibration: pictures are {shape[1]} x {shape[2]} (height x width); this checkpoint wants "
                f"{self.size[0]} x {self.size[1]}: resize them as clients will"
            )
        return data


def picture_format(source: str, config: Any) -> PictureFormat:
    """From the checkpoint's configuration and image processor.

    The processor is run on a few pictures, and what it does to pixels is read off; resizing stays with the client.

    Raises:
        ExportError: no processor. UnsupportedModel: it does more than scale, shift and reorder channels.
    """
    channels, configured = _configured(config)
    with quiet():
        try:
            loader: Any = transformers.AutoImageProcessor
            processor = loader.from_pretrained(source, trust_remote_code=False)
        except Exception as error:
            # Its loaders share no base class of errors.
            raise ExportError(
                f"model: {source!r} has no image processor ({first_line(error)}); it says how pixels are scaled: save "
                "one beside the weights, for instance transformers.ViTImageProcessor(…).save_pretrained(folder)"
            ) from error
        preprocessing, order = _measured(processor, channels)
    return PictureFormat(channels, _processed_size(processor) or configured, preprocessing, order)


def dummy(config: Any, pictures: PictureFormat) -> Tensor:
    """Two random preprocessed pictures `[2, C, H, W]`."""
    made: Tensor = _generator(config).generate("pixel_values")
    return made if pictures.size is None else nn.functional.interpolate(made, pictures.size)


def _generator(config: Any) -> Any:
    return DummyVisionInputGenerator(IMAGES, normalized(config, NormalizedVisionConfig), batch_size=2)


def _configured(config: Any) -> tuple[int, tuple[int, int] | None]:
    names, generator = normalized(config, NormalizedVisionConfig), _generator(config)
    sized = names.has_attribute("image_size") or names.has_attribute("input_size")
    return generator.num_channels, (generator.height, generator.width) if sized else None


def _processed_size(processor: Any) -> tuple[int, int] | None:
    """Height and width of what the processor makes of any picture."""
    for switch, key in (("do_center_crop", "crop_size"), ("do_resize", "size")):
        size = getattr(processor, key, None) if getattr(processor, switch, False) else None
        if size is None:
            continue
        height, width = size.get("height"), size.get("width")
        edge = size.get("shortest_edge")
        return (height, width) if height and width else (edge, edge) if edge else None
    return None


def _measured(processor: Any, channels: int) -> tuple[Preprocessing, tuple[int, ...]]:
    """Gain, offset and order of channels, from black, white, one channel at a time, and a check on noise."""
    black = np.zeros((channels, _PROBE, _PROBE), np.uint8)
    single = [np.where(np.arange(channels)[:, None, None] == k, np.uint8(255), black) for k in range(channels)]
    noise = np.random.default_rng(0).integers(0, 256, black.shape).astype(np.uint8)
    found = _processed(processor, [black, black + np.uint8(255), noise, *single])
    offset, white = (found[i].mean((1, 2)) for i in range(2))
    gain = (white - offset) / 255
    moved = np.stack([np.abs(picture.mean((1, 2)) - offset) for picture in found[3:]])
    order = moved.argmax(0)
    expected = noise[order] * gain[:, None, None] + offset[:, None, None]
    if set(order) != set(range(channels)) or gain.min() <= 0 or np.abs(found[2] - expected).max() > _TOLERANCE:
        raise UnsupportedModel(
            f"model: {type(processor).__name__} does more to pixels than scale, shift and reorder channels, which is "
            "all that a bundle can do; export the module with `acclimate export torch`"
        )
    back = np.argsort(order)
    std = 1 / gain[back]
    mean = -offset[back] * std
    return Preprocessing(tuple(mean.tolist()), tuple(std.tolist()), 1.0), tuple(order.tolist())


def _processed(processor: Any, pictures: list[NDArray[np.uint8]]) -> NDArray[np.float64]:
    try:
        made = processor(pictures, return_tensors="np", input_data_format="channels_first", **_AS_THEY_ARE)
        values = np.asarray(made["pixel_values"], np.float64)
    except Exception as error:
        # Whatever a processor raises for pictures of the configuration's channels.
        name, channels = type(processor).__name__, len(pictures[0])
        raise UnsupportedModel(
            f"model: {name} fails on pictures with {channels} channels ({first_line(error)})"
        ) from error
    if values.shape != (len(pictures), *pictures[0].shape):
        raise UnsupportedModel(
            f"model: {type(processor).__name__} makes {list(values.shape[1:])} of pictures {list(pictures[0].shape)}"
        )
    return values
