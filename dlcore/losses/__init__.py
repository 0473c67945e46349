"""Per-example losses that JAX's libraries lack; `optax.losses` has the rest."""
