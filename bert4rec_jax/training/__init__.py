"""Training: masking, losses, schedules, the train step, the training loop and checkpoints."""
