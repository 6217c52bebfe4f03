"""What people start: command line, demo, finetuning, explanations, server."""
