"""Sextant's client: generate with a window into the model.

import sextant
client = sextant.Client("127.0.0.1:7700")
out = client.generate("The capital of France is", lens=sextant.Lens(top_k=5))
print(out.text)
out.lens.heatmap("heat.html")
"""

from sextant import aio
from sextant.activations import Activations
from sextant.captures import CaptureInfo
from sextant.client import DEFAULT_ADDRESS, Client
from sextant.errors import SextantError
from sextant.events import Event, FinishedEvent, ReadingsEvent, StartedEvent, TokenEvent, WarningEvent
from sextant.following import Following
from sextant.generation import Generation
from sextant.heatmap import Heatmap
from sextant.lens import LensResult
from sextant.model import Limits, ModelInfo, Tokens
from sextant.readings import Tracked
from sextant.selection import SITES, Positions, PositionSet
from sextant.settings import Capture, Gate, Lens, Steer
from sextant.transcript import Stats
from sextant.vector_files import VectorFile, export_vector, read_vector
from sextant.vectors import Vector

__version__ = "0.1.0"

__all__ = [
    "DEFAULT_ADDRESS",
    "SITES",
    "Activations",
    "Capture",
    "CaptureInfo",
    "Client",
    "Event",
    "FinishedEvent",
    "Following",
    "Gate",
    "Generation",
    "Heatmap",
    "Lens",
    "LensResult",
    "Limits",
    "ModelInfo",
    "PositionSet",
    "Positions",
    "ReadingsEvent",
    "SextantError",
    "StartedEvent",
    "Stats",
    "Steer",
    "TokenEvent",
    "Tokens",
    "Tracked",
    "Vector",
    "VectorFile",
    "WarningEvent",
    "aio",
    "export_vector",
    "read_vector",
]
