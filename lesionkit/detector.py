"""The whole method: image in, detection out. Preprocess, depth, segmentation, fusion; both networks in one file.

A weight file is safetensors: the tensors of both networks, and in its header, under "lesionkit", the configuration as
JSON. It is loaded strictly: every tensor must be there, none may be left over.
"""

import json
from collections.abc import Iterable
from copy import deepcopy
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from lesionkit import fusion
from lesionkit.depth import DepthConfig, DepthNet
from lesionkit.devices import resolve
from lesionkit.files import write_bytes
from lesionkit.first_branch import give_first_branch
from lesionkit.fusion import Detection
from lesionkit.preprocess import STRIDE, ImageError, crop_resize, preprocess
from lesionkit.segmentation import DepthGuidedSegmenter, check_guidance

LARGEST_PX = 4096  # to which a depth network's image may be enlarged
ASSETS = Path(__file__).parent / "assets"


class WeightsError(RuntimeError):
    """A weight file that is missing, damaged or does not fit; one sentence."""


@dataclass(frozen=True)
class DetectorConfig:
    """What a weight file carries in its header beside the weights."""

    size_px: int = 256  # the networks' input; a multiple of 32
    guidance: str = "depth"
    encoder: str = "efficientnet-lite0"
    threshold: float = 0.5  # fixed on a validation part, see the model card
    trained_on: str = "nothing yet"
    depth_px: int = 256  # the depth network sees smaller images enlarged to this edge


class Detector:
    """`detector(image)` takes an h×w×3 uint8 array, or a b×3×h×w float tensor in [0, 1]."""

    def __init__(self, depth: DepthNet, segmenter: DepthGuidedSegmenter, config: DetectorConfig, device: str = "auto"):
        self.device = resolve(str(device))
        self.depth_net = depth.to(self.device, memory_format=torch.channels_last).eval()
        self.segmenter = segmenter.to(self.device, memory_format=torch.channels_last).eval()
        self.config, self.threshold, self.depth_net.sees_px = config, config.threshold, config.depth_px
        self.running = (self.depth_net, self.segmenter)  # what `maps` runs
        self.view = "auto"  # "whole": for frames whose view is not found

    @classmethod
    def from_pretrained(cls, weights: str | Path = "reference", device: str = "auto") -> "Detector":
        """`weights`: "reference" for what the kit ships, or a file that `save` wrote. Raises WeightsError."""
        path = ASSETS / "reference.safetensors" if str(weights) == "reference" else Path(weights)
        header, tensors = _open(path)
        if "lesionkit" not in header:
            raise WeightsError(f"{path} holds no lesionkit configuration: give a file that lesionkit wrote")
        try:
            config = _configuration(json.loads(header["lesionkit"]))
            segmenter = DepthGuidedSegmenter(config.guidance, config.encoder, pretrained=False)
            if any(name.startswith("segmenter.depth_features.stages.") for name in tensors):
                give_first_branch(segmenter)
        except (AttributeError, ValueError) as error:
            raise WeightsError(f"{path} has a configuration that cannot be used here: {error}") from None
        depth = DepthNet(pretrained=False)
        _load_strictly(nn.ModuleDict({"depth": depth, "segmenter": segmenter}), tensors, path)
        return cls(depth, segmenter, config, device)

    def fuse(self) -> "Detector":
        """For many images: `maps` runs `fused` copies from now on, which takes a tenth less time. What the networks
        learn afterwards is not seen until it is called again. Returns self."""
        nets = (fused(net) for net in (self.depth_net, self.segmenter))
        self.running = tuple(net.to(memory_format=torch.channels_last) for net in nets)
        return self

    def save(self, path: str | Path) -> Path:
        """Writes the weights in half precision (vectors, such as batch statistics, in single) with the configuration
        and the current threshold in the header, in one step. Raises WeightsError for what `from_pretrained` would not
        read, or read as something else: a guidance that needs more than an image, a threshold of 0 or 1, a
        configuration that says another guidance or encoder than the segmenter has."""
        try:
            config = _configuration(asdict(self.config) | {"threshold": float(self.threshold)})
        except ValueError as error:
            raise WeightsError(f"these weights cannot be saved for use: {error}") from None
        has, says = (self.segmenter.guidance, self.segmenter.encoder_name), (config.guidance, config.encoder)
        if has != says:  # all arms have the same parameters: the file would be read as another arm in silence
            raise WeightsError(f"the segmenter has {', '.join(has)} but its configuration says {', '.join(says)}")
        tensors = _tensors(nn.ModuleDict({"depth": self.depth_net, "segmenter": self.segmenter}))
        tensors = {k: t.half() if t.is_floating_point() and t.ndim > 1 else t for k, t in tensors.items()}
        write_bytes(Path(path), save(tensors, {"lesionkit": json.dumps(asdict(config), sort_keys=True)}))
        return Path(path)

    @torch.inference_mode()
    def __call__(
        self, image: np.ndarray | Float[Tensor, "b 3 h w"], depth: np.ndarray | Float[Tensor, "b 1 h w"] | None = None
    ) -> Detection:
        """depth: takes the place of the estimate, near is small; h×w for an array, b×1×h×w for a tensor. Raises
        ImageError for a wrong type, shape or range, GuidanceError for depths that are not positive and finite."""
        check_given(image, depth)
        if isinstance(image, np.ndarray):
            # a copy: torch warns of arrays it could not write to, and takes no mirrored views
            tensor = torch.from_numpy(image.copy()).permute(2, 0, 1)[None].to(self.device)
            given = None if depth is None else torch.from_numpy(depth.astype(np.float32))[None, None]
            return self._one(tensor.float() / 255, image, given)
        # one by one: each image has a field of view of its own
        depths = [None] * len(image) if depth is None else depth[:, None]
        pairs = zip(image, depths, strict=True)
        singles = [self._one(one[None].to(self.device).float(), fusion.to_array(one), given) for one, given in pairs]
        probability, depth = (_stack(getattr(one, name) for one in singles) for name in ("probability", "depth"))
        attention = tuple(map(_stack, zip(*(one.attention for one in singles), strict=True)))
        views = tuple(one.view_px for one in singles)
        return Detection(image, probability, depth, attention, self.threshold, views, singles)

    def maps(self, image: Float[Tensor, "b 3 s s"], depth: Tensor | None = None) -> tuple[Tensor, Tensor, tuple]:
        """Preprocessed images through both networks: probability, target depth (or `depth` b×1×s×s), attention."""
        image = image.to(memory_format=torch.channels_last)
        depth_net, segmenter = self.running
        depth = depth_net(image).target if depth is None else depth
        found = segmenter(image, depth)
        return found.probability, depth, found.attention

    def _one(self, tensor: Float[Tensor, "1 3 h w"], pixels: np.ndarray, given: Tensor | None) -> Detection:
        seen = preprocess(tensor, self.config.size_px, self.view)
        if given is not None:
            given = crop_resize(given.to(self.device).float(), seen.box, self.config.size_px, fill="edge")
        probability, depth, attention = self.maps(seen.image, given)
        box, size_hw = tuple(seen.box[0].tolist()), pixels.shape[:2]
        return Detection(
            image=pixels,
            probability=fusion.restore(probability * seen.view, box, size_hw),
            depth=fusion.restore(depth, box, size_hw, fill="edge"),
            attention=tuple(w[0, 0].float().cpu().numpy() for w in attention),
            threshold=self.threshold,
            view_px=tuple(seen.found[0].tolist()),
        )


def check_given(image: object, depth: object) -> None:
    """Whether a detector can take the image, and the depth with it. Raises ImageError."""
    if isinstance(image, Tensor):
        fits = image.is_floating_point() and image.ndim == 4 and image.shape[1] == 3
    else:
        fits = isinstance(image, np.ndarray) and image.dtype == np.uint8 and image.ndim == 3 and image.shape[2] == 3
    if not fits or 0 in image.shape:
        known = isinstance(image, (Tensor, np.ndarray))
        kind = f"{image.dtype} {tuple(image.shape)}" if known else type(image).__name__
        raise ImageError(f"give an h×w×3 uint8 array or a b×3×h×w float tensor that is not empty, not {kind}")
    wanted = image.shape[:2] if isinstance(image, np.ndarray) else (len(image), 1, *image.shape[2:])
    if depth is not None and (type(depth) is not type(image) or depth.shape != wanted):
        size = "×".join(map(str, wanted))
        raise ImageError(f"give the depth as the image is given, an array or a tensor, of {size}: one per pixel")


def _stack(maps: Iterable[np.ndarray]) -> Float[Tensor, "b 1 y x"]:
    return torch.stack([torch.from_numpy(one) for one in maps])[:, None]


def fused(net: nn.Module) -> nn.Module:
    """A copy in eval mode whose batch normalisations are folded into the convolutions before them, where both follow
    each other among the children of a module: the same results (but for rounding) in less time, for inference alone."""
    net = deepcopy(net).eval()
    for part in net.modules():
        for (first, conv), (second, norm) in pairwise(list(part.named_children())):
            if isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
                setattr(part, first, fuse_conv_bn_eval(conv, norm))
                setattr(part, second, nn.Identity())
    return net


def save_depth(net: DepthNet, path: Path) -> Path:
    """The weights of a depth network alone, as safetensors, and how large it sees an image."""
    write_bytes(path, save(_tensors(net), {"sees_px": str(net.sees_px)}))
    return path


def load_depth(path: Path) -> DepthNet:
    """What `save_depth` wrote. Raises WeightsError."""
    header, tensors = _open(path)
    net = DepthNet(DepthConfig(sees_px=int(header.get("sees_px", 0))), pretrained=False)
    _load_strictly(net, tensors, path)
    return net.eval()


def _tensors(net: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.detach().cpu().contiguous() for name, tensor in net.state_dict().items()}


def _open(path: Path) -> tuple[dict[str, str], dict[str, Tensor]]:
    """Header and tensors of a safetensors file."""
    if not path.is_file():
        raise WeightsError(f"there is no weight file {path}: give `reference` or a file that a run left in artefacts/")
    try:
        with safe_open(path, framework="pt") as file:
            return file.metadata() or {}, {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (it is no mapping)
    except (SafetensorError, OSError) as error:
        raise WeightsError(f"{path} is no safetensors file or is damaged ({error}): train or fetch it anew") from None


def _configuration(values: dict) -> DetectorConfig:
    """What a header says, with every name, type and range checked. Raises ValueError."""
    kinds, values = DetectorConfig.__annotations__, {"depth_px": 0} | values  # older files have none: not enlarged
    wrong = [f"{name} {value!r}" for name, value in values.items() if not isinstance(value, kinds.get(name, ()))]
    if wrong:
        raise ValueError(", ".join(wrong))
    config = DetectorConfig(**values)
    if not 0 < config.threshold < 1:
        raise ValueError(f"threshold {config.threshold!r}")
    if not check_guidance(config.guidance).alone:
        raise ValueError(f"guidance {config.guidance!r} needs more than an image")
    if config.size_px < STRIDE or config.size_px % STRIDE:
        raise ValueError(f"size_px {config.size_px!r}")
    if not 0 <= config.depth_px <= LARGEST_PX:
        raise ValueError(f"depth_px {config.depth_px!r}")
    return config


def _load_strictly(net: nn.Module, tensors: dict[str, Tensor], path: Path) -> None:
    wanted = net.state_dict()
    missing, extra = sorted(wanted.keys() - tensors.keys()), sorted(tensors.keys() - wanted.keys())
    wrong = sorted(k for k in wanted.keys() & tensors.keys() if wanted[k].shape != tensors[k].shape)
    if problems := missing + extra + wrong:
        raise WeightsError(
            f"{path} does not fit this version's networks ({len(missing)} tensors missing, {len(extra)} unknown, "
            f"{len(wrong)} of another shape; the first is {problems[0]}): train it anew"
        )
    net.load_state_dict(tensors)  # half precision becomes single again
