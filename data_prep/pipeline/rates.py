"""How fast a machine trains and decodes models of any size, from a few that were measured.

A calibration is a JSON file of measurements (see ``dad-calibrate``). Seconds for a target token
are taken to be a power of the arithmetic that the token needs, fitted by least squares to what was
measured; a size that was measured keeps its own speed.
"""

import math
from dataclasses import dataclass, field
from pathlib import Path

from data_prep.manifest import read_json
from data_prep.model_sizes import PREFIX, SIZES, parameter_count

FORMAT = 1


def arithmetic(size, vocabulary, beam=1):
    """Multiplications for a target token, in millions: the weights that it meets.

    Source and target are taken to be equally long. The encoder reads a sentence once, decoder and
    output layer work for each hypothesis of the beam.

    Args:
        size: name such as ``small``.
        vocabulary: pieces of the joint vocabulary.
        beam: hypotheses; 1 in training.
    """
    shape = SIZES[size]
    counted = parameter_count(PREFIX + size, vocabulary)
    layers = counted["parameters"] - counted["embedding_parameters"]
    # a decoder layer has a second attention, a third of a layer's weights
    encoder = shape.encoder_layers * 3 / (shape.encoder_layers * 3 + shape.decoder_layers * 4)
    per_hypothesis = layers * (1 - encoder) + vocabulary * shape.width
    return (layers * encoder + beam * per_hypothesis) / 1e6


@dataclass(frozen=True)
class Speed:
    """Seconds for a target token: a power law through measurements.

    Attributes:
        measured: {(size, vocabulary, beam): seconds for a target token}.
    """

    measured: dict = field(default_factory=dict)

    def seconds(self, size, vocabulary, beam=1):
        """Seconds for a target token of a model, or None where nothing was measured."""
        if not self.measured:
            return None
        wanted = arithmetic(size, vocabulary, beam)
        slope, constant = self._law()
        same = [key for key in self.measured if key[0] == size]
        if same:  # nearest in what is not the size
            key = min(same, key=lambda key: abs(math.log(arithmetic(*key) / wanted)))
            return self.measured[key] * (wanted / arithmetic(*key)) ** slope
        return math.exp(constant) * wanted**slope

    def _law(self):
        """(slope, constant) of log seconds over log arithmetic; through one point with slope 1."""
        points = [(math.log(arithmetic(*key)), math.log(seconds))
                  for key, seconds in self.measured.items()]  # fmt: skip
        mean = [sum(values) / len(points) for values in zip(*points, strict=True)]
        square = sum((x - mean[0]) ** 2 for x, _ in points)
        slope = 1.0
        if square > 0.1:  # otherwise all are about as large, and noise would make the slope
            slope = sum((x - mean[0]) * (y - mean[1]) for x, y in points) / square
        return slope, mean[1] - slope * mean[0]

    def error(self):
        """Largest ratio, above 1, between law and measurement."""
        slope, constant = self._law()
        logs = [
            abs(constant + slope * math.log(arithmetic(*key)) - math.log(seconds))
            for key, seconds in self.measured.items()
        ]
        return math.exp(max(logs))


@dataclass(frozen=True)
class Rates:
    """What a machine does in how much time, and how that is known.

    Attributes:
        basis: in words, such as "measured on this machine on 21 November 2026".
        spread: by what factor an estimate may be off, either way.
        device: ``cpu`` or ``cuda``, where models run.
        training: {precision: ``Speed``}.
        decoding: {(backend, compute type): ``Speed``}.
        text: {step: pairs per second}.
        start: seconds that a command takes to start and end.
        sharing: what a stage that gets half of the cores keeps of its speed, 0.5 to 1.
    """

    basis: str
    spread: float
    device: str = "cpu"
    training: dict = field(default_factory=dict)
    decoding: dict = field(default_factory=dict)
    text: dict = field(default_factory=dict)
    start: float = 5.0
    sharing: float = 0.5

    def train(self, size, vocabulary, precision="fp32"):
        """Seconds for a target token of training, or None."""
        speed = self.training.get(precision) or (self.device == "cpu" and self.training.get("fp32"))
        return speed.seconds(size, vocabulary) if speed else None

    def decode(self, size, vocabulary, beam, backend, compute_type):
        """Seconds for a target token of decoding, or None."""
        speed = self.decoding.get((backend, compute_type)) or next(
            (speed for (name, _), speed in self.decoding.items() if name == backend), None
        )
        return speed.seconds(size, vocabulary, beam) if speed else None


def read_rates(path, basis, spread):
    """``Rates`` of a calibration file.

    Raises:
        FileNotFoundError: there is none.
        ValueError: it is damaged or of another format.
    """
    record = read_json(Path(path))
    if not isinstance(record, dict) or record.get("format") != FORMAT:
        raise ValueError(f"{path} is no calibration of this version; run dad-calibrate again")
    try:
        training, decoding = {}, {}
        for found in record["training"]:
            speeds = training.setdefault(found["precision"], {})
            speeds[found["size"], found["vocabulary"], 1] = 1 / found["tokens_per_second"]
        for found in record["decoding"]:
            speeds = decoding.setdefault((found["backend"], found["compute_type"]), {})
            key = found["size"], found["vocabulary"], found["beam"]
            speeds[key] = 1 / found["tokens_per_second"]
        return Rates(
            basis, spread, record["device"],
            {name: Speed(speeds) for name, speeds in training.items()},
            {name: Speed(speeds) for name, speeds in decoding.items()},
            record["text"], record["start_seconds"], record["sharing"],
        )  # fmt: skip
    except (KeyError, TypeError, ZeroDivisionError) as error:
        raise ValueError(f"{path} is damaged ({error}); run dad-calibrate again") from None
