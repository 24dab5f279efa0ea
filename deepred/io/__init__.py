"""Files: images, data sets, kernels and masks, results that are whole or not there."""
