"""Training: supervised and reinforcement learning on the DeepSpeed engine, and checkpoints."""
