"""From batches to a trained model: masking, loss, schedule, step, loop, checkpoints."""
