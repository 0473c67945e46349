"""Colours of one picture in the forms of another (Gatys et al. 2016, Preserving Color in Neural
Artistic Style Transfer).

Shapes: H W height and width of a picture, uint8 with red, green and blue.
"""

import numpy as np

# Luminance and two differences of colours (YIQ, the American standard of colour television).
_TO_YIQ = np.array(
    [[0.299, 0.587, 0.114], [0.595716, -0.274453, -0.321263], [0.211456, -0.522591, 0.311135]]
)
_FROM_YIQ = np.linalg.inv(_TO_YIQ)


def match_colours(style: np.ndarray, content: np.ndarray) -> np.ndarray:
    """Returns the style with the mean and covariance of the content's colours, uint8 [H, W, 3].

    This is the linear map of section 3.1, by the symmetric roots of the covariances ("image
    analogies"): x' = A (x - mean of the style) + mean of the content.

    Args:
        style: the style (h, w, 3).
        content: the content (H, W, 3), of any size.
    """
    pixels = style.reshape(-1, 3).astype(np.float64)
    wanted = content.reshape(-1, 3).astype(np.float64)
    root = _root(np.cov(wanted.T)) @ np.linalg.inv(_root(np.cov(pixels.T)))
    matched = (pixels - pixels.mean(0)) @ root.T + wanted.mean(0)
    return np.rint(matched.clip(0, 255)).astype(np.uint8).reshape(style.shape)


def with_colours_of(picture: np.ndarray, content: np.ndarray) -> np.ndarray:
    """Returns a picture's luminance with the content's colours, uint8 [H, W, 3] (section 3.2).

    Args:
        picture: (H, W, 3).
        content: (H, W, 3).
    """
    yiq = content @ _TO_YIQ.T
    yiq[..., 0] = picture @ _TO_YIQ[0]
    return np.rint((yiq @ _FROM_YIQ.T).clip(0, 255)).astype(np.uint8)


def grey(picture: np.ndarray, like: np.ndarray | None = None) -> np.ndarray:
    """Returns the luminance of a picture in three equal channels, uint8 [H, W, 3].

    Args:
        picture: (H, W, 3).
        like: a picture whose mean and deviation of luminance the result gets (section 3.2), or
            None.
    """
    luminance = picture @ _TO_YIQ[0]
    if like is not None:
        wanted = like @ _TO_YIQ[0]
        scale = wanted.std() / max(luminance.std(), 1e-6)
        luminance = (luminance - luminance.mean()) * scale + wanted.mean()
    return np.repeat(np.rint(luminance.clip(0, 255)).astype(np.uint8)[..., None], 3, -1)


def _root(covariance: np.ndarray) -> np.ndarray:
    """Returns the symmetric root of a covariance; colours that do not vary count as almost none."""
    values, vectors = np.linalg.eigh(covariance)
    return np.asarray(vectors * np.sqrt(np.maximum(values, 1e-3)) @ vectors.T)
