"""What is particular to Qwen3-VL."""
