"""Floor 2: differentiate, plan, run and train."""
