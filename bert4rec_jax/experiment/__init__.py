"""An experiment: a recipe and its inputs, what is trained, calibrated, tested and recorded."""
