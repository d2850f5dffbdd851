"""The digits network as int8: what the overflow report shows when no model is given."""

from __future__ import annotations

from typing import TYPE_CHECKING

from abcdeep_core import nn

from .digits_demo import load_digits, network

if TYPE_CHECKING:
    from ..overflow import Source

EPOCHS = 6


def digits_source(
    *,
    seed: int = 0,
    quantise: str = "int8",
    per_channel: bool = True,
    affine: bool = False,
    zero_point: str = "subtract",
) -> Source:
    """Train the demo's network in float32, quantise it, and return it with the 597 test images.

    Parameters
    ----------
    seed : int
        Of the split, the weights and the order of the samples.
    quantise, per_channel, affine, zero_point
        As for `abcdeep_core.overflow.network_source`.

    Returns
    -------
    Source

    Raises
    ------
    ImportError
        Without the extra ``[examples]``.
    """
    from ..overflow import network_source

    data, (images, _) = load_digits(seed)
    model = network(seed)
    nn.train(
        model,
        data,
        optimizer=nn.sgd(0.05),
        schedule=nn.cosine_schedule,
        epochs=EPOCHS,
        batch_size=64,
        seed=seed,
        progress=False,
    )
    return network_source(
        model,
        images,
        quantise=quantise,
        per_channel=per_channel,
        affine=affine,
        zero_point=zero_point,
        title="digits network",
    )
