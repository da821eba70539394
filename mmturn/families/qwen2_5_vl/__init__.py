"""What is particular to Qwen2.5-VL."""
