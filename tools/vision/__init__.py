"""The pieces of torchvision that lessons use, over Pillow and NumPy."""
