"""Depth Anything V2 Small as an alternative *global* depth estimator [15], behind the interface of `depth.DepthNet`.

Letters: b images, h × w pixels, both multiples of 32; H × W the same image at the size the model likes. The weights
need the extra `[depth]`; importing this module does not.

The model (Yang et al., Depth Anything V2, NeurIPS 2024) was trained on everyday scenes, not on endoscopy, and gives a
*disparity*: inverse depth up to an unknown factor and an unknown shift, near is large. `to_relative_depth` turns that
into the kit's convention. Only Small is offered: it is Apache-2.0, its larger sisters are CC-BY-NC-4.0.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from lesionkit.depth import TYPICAL_MM, DepthMaps, DepthNet, check_size, up_to
from lesionkit.encoders import IMAGENET_MEAN, IMAGENET_STD

SMALL = "depth-anything/Depth-Anything-V2-Small-hf"
TIMEOUT_S = 10.0  # for the first answer of the network; the hub's own retries go on for minutes
PATCH_PX = 14  # of its transformer, DINOv2: width and height must be multiples
INPUT_PX = 518  # the shorter side it was trained at; smaller inputs are faster and coarser
FAR_SHARE, NEAR_SHARE = 0.02, 0.98  # quantiles of disparity: a few odd pixels must not set the scale
SPAN = 10.0  # from the near to the far quantile: 9.4 in rendered scenes (`standard`), 10.7 in `hard`
NEAREST = 2.0  # times the near quantile; of 96 rendered scenes none goes beyond 1.91
FLAT = 1e-3  # of the largest disparity: a smaller spread is noise, which must not be stretched to a landscape


class DepthAnythingError(RuntimeError):
    """Other weights than Small, no transformers, or weights that are missing or damaged; one sentence."""


class DepthAnything(DepthNet):
    """image b×3×h×w in [0, 1] → DepthMaps: `first` is the model's relative depth (positive, near is small, the median
    of each image is TYPICAL_MM), `second` is zero, `third` and `target` are `first`. Its weights are frozen.

    Whatever *calls* a DepthNet can call this one; but the kit's weight files hold the kit's own layers, so that a file
    saved with it cannot be loaded. Raises DepthError when h or w is no multiple of 32 or below 64.
    """

    def __init__(self, network: nn.Module, input_px: int = INPUT_PX):
        """`network`: a transformers.DepthAnythingForDepthEstimation; `input_px`: the shorter side it is given."""
        nn.Module.__init__(self)  # not DepthNet's: a DepthNet by its call and its maps, not by its layers
        self.network, self.input_px = network.requires_grad_(False), input_px
        self.register_buffer("mean", torch.tensor(IMAGENET_MEAN).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(IMAGENET_STD).view(1, 3, 1, 1), persistent=False)
        self.eval()

    @classmethod
    def from_pretrained(cls, name: str = SMALL, input_px: int = INPUT_PX) -> "DepthAnything":
        """The published weights (99 MB, 24.8 million parameters), from the user's Hugging Face cache or, where they are
        not in it, from the network; HF_HOME, HF_ENDPOINT and HF_HUB_OFFLINE are obeyed. Raises DepthAnythingError."""
        if name != SMALL:  # metric variants among them: they give depth, not disparity
            raise DepthAnythingError(f"{name} is refused: use {SMALL}, Apache-2.0 (Base and Large are CC-BY-NC-4.0)")
        try:
            return cls(_published(), input_px)
        except ImportError as error:
            message = f"Depth Anything needs transformers ({error}): pip install -e '.[depth]'"
        except Exception as error:  # whatever the damage leads to: JSON, safetensors, shapes; the hub's HTTP library
            from huggingface_hub.constants import HF_HUB_CACHE

            reason = " ".join(str(error).split())[:160].rstrip(" .")
            message = (
                f"the weights of {SMALL} cannot be loaded ({reason}): run `hf download {SMALL}` where there is a "
                "network, or set HF_HOME to a folder that has them; if they are damaged, delete "
                f"{HF_HUB_CACHE}/models--{SMALL.replace('/', '--')}"
            )
        raise DepthAnythingError(message)

    def forward(self, image: Float[Tensor, "b 3 h w"]) -> DepthMaps:
        h, w = check_size(image)  # as DepthNet: one may replace the other anywhere
        # without antialiasing, as the authors do; cubic overshoots
        x = F.interpolate(image, size=model_size(h, w, self.input_px), mode="bicubic", align_corners=False).clamp(0, 1)
        disparity = self.network((x - self.mean) / self.std).predicted_depth[:, None]  # b H W -> b 1 H W
        first = to_relative_depth(up_to(disparity.float(), image))
        return DepthMaps(first, torch.zeros_like(first), first, first)


def _published() -> nn.Module:
    from huggingface_hub import get_hf_file_metadata, hf_hub_url
    from transformers import DepthAnythingForDepthEstimation as Architecture

    how = {"use_safetensors": True, "output_loading_info": True}  # never pickle
    try:
        network, found = Architecture.from_pretrained(SMALL, local_files_only=True, **how)
    except OSError:  # not in the cache, or not all of it
        get_hf_file_metadata(hf_hub_url(SMALL, "config.json"), timeout=TIMEOUT_S)
        network, found = Architecture.from_pretrained(SMALL, **how)
    # a tensor too many does no harm, a missing one would be random
    if wrong := sorted(map(str, [*found["missing_keys"], *found["mismatched_keys"]])):
        raise ValueError(f"{len(wrong)} tensors are missing or misshapen, {wrong[0]} among them")
    return network


def model_size(h: int, w: int, input_px: int = INPUT_PX) -> tuple[int, int]:
    """(H, W) for an image of h × w pixels: the shorter side `input_px`, the aspect kept, multiples of PATCH_PX."""
    scale = input_px / min(h, w) / PATCH_PX
    return max(1, round(h * scale)) * PATCH_PX, max(1, round(w * scale)) * PATCH_PX


def to_relative_depth(disparity: Float[Tensor, "b 1 h w"]) -> Float[Tensor, "b 1 h w"]:
    """Disparity (near is large; factor and shift unknown) → depth (near is small; the median is TYPICAL_MM).

    Per image, t = (disparity − far) / (near − far), with the FAR_SHARE and NEAR_SHARE quantiles; depth is proportional
    to 1 / (1/SPAN + (1 − 1/SPAN) · t). The factor falls out, and SPAN stands in for the unknown shift, so order is the
    model's and *ratios* of depths are an assumption. Beyond the far quantile depth is constant (the end of the lumen);
    beyond the near one it goes on to t = NEAREST, since the nearest two per cent may be the lesion. A flat map gives
    TYPICAL_MM everywhere. Computed in float32; always positive and finite for a finite disparity.
    """
    flat = disparity.float().flatten(1)  # b 1 h w -> b n
    far, near = (flat.quantile(share, dim=1, keepdim=True) for share in (FAR_SHARE, NEAR_SHARE))
    least = FLAT * flat.abs().amax(dim=1, keepdim=True) + torch.finfo(torch.float32).tiny
    t = ((flat - far) / torch.maximum(near - far, least)).clamp(0, NEAREST)
    depth = 1 / (1 / SPAN + (1 - 1 / SPAN) * t)
    return (TYPICAL_MM * depth / depth.quantile(0.5, dim=1, keepdim=True)).view_as(disparity)
