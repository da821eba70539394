"""What is particular to the small policy that mmturn ships."""
