"""Loading a vision-language model, its forward step and the log-probs of what was sampled."""
