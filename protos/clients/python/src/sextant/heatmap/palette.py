"""Perceptually even colour ramps (straight lines in OKLCH) for light and dark backgrounds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

Theme = Literal["light", "dark"]
_STEPS = 64


@dataclass(frozen=True)
class Metric:
    """One way to colour a cell. hues: of the weak and the strong end, degrees; chroma: of the strong end."""

    key: str
    title: str
    explanation: str
    hues: tuple[float, float]
    chroma: float


METRICS = (
    Metric(
        "prob", "Probability", "of the layer's first candidate, over the full vocabulary", (235, 268), 0.155
    ),
    Metric("entropy", "Entropy", "of the layer's distribution, in nats", (345, 300), 0.15),
    Metric(
        "kl",
        "KL to final",
        "KL(final layer || this layer), in nats; pale where the layer agrees",
        (80, 28),
        0.15,
    ),
    Metric("rank", "Rank of next", "of the token that came next; strong where it is first", (190, 158), 0.11),
)


def ramp(metric: Metric, theme: Theme) -> list[str]:
    """Hex colours from weak to strong; lightness moves evenly away from the page's background."""
    t = np.linspace(0, 1, _STEPS)
    weak, strong = (0.975, 0.44) if theme == "light" else (0.235, 0.83)
    lightness = weak + (strong - weak) * t
    chroma = 0.008 + (metric.chroma - 0.008) * t**0.9 * (1 if theme == "light" else 0.88)
    hue = np.radians(metric.hues[0] + (metric.hues[1] - metric.hues[0]) * t)
    rgb = _oklab_to_srgb(np.stack([lightness, chroma * np.cos(hue), chroma * np.sin(hue)], -1))
    return ["#" + "".join(f"{channel:02x}" for channel in colour) for colour in rgb]


def ink(colour: str) -> str:
    """Black or white, whichever contrasts more with `colour`: at least 4.5 to 1 (WCAG's bound)."""
    encoded = np.array([int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)])
    linear = np.where(encoded <= 0.04045, encoded / 12.92, ((encoded + 0.055) / 1.055) ** 2.4)
    luminance = float(linear @ [0.2126, 0.7152, 0.0722])
    return "#000000" if (luminance + 0.05) ** 2 > 1.05 * 0.05 else "#ffffff"


def _oklab_to_srgb(lab: np.ndarray) -> np.ndarray:
    """uint8 [..., 3] of OKLab [..., 3] (Ottosson's matrices), clipped to what a screen shows."""
    to_lms = np.array(
        [
            [1, 0.3963377774, 0.2158037573],
            [1, -0.1055613458, -0.0638541728],
            [1, -0.0894841775, -1.2914855480],
        ]
    )
    to_rgb = np.array(
        [
            [4.0767416621, -3.3077115913, 0.2309699292],
            [-1.2684380046, 2.6097574011, -0.3413193965],
            [-0.0041960863, -0.7034186147, 1.7076147010],
        ]
    )
    linear = np.clip((lab @ to_lms.T) ** 3 @ to_rgb.T, 0, 1)
    encoded = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    return np.round(encoded * 255).astype(np.uint8)
