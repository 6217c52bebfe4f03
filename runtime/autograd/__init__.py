"""The tape: what is recorded, and how gradients flow back through it."""
