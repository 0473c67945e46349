"""Networks that draw examples, and networks that judge them."""

from dlcore.models.generative.adversarial import (
    CONDITIONS,
    Adversaries,
    Discriminator,
    Generator,
    require_same_sizes,
)
from dlcore.models.generative.dcgan import DCGANDiscriminator, DCGANGenerator, check_sides
from dlcore.models.generative.dense import DenseDiscriminator, DenseGenerator
from dlcore.models.generative.layers import NORMS

__all__ = [
    "CONDITIONS",
    "NORMS",
    "Adversaries",
    "DCGANDiscriminator",
    "DCGANGenerator",
    "DenseDiscriminator",
    "DenseGenerator",
    "Discriminator",
    "Generator",
    "check_sides",
    "require_same_sizes",
]
