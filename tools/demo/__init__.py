"""The demo: the main job, once, on a model and real data that ship with the package.

`digits.npz` holds 1,797 handwritten digits, 8 x 8 pixels from 0 to 16, of 13 writers: the test part of "Optical
Recognition of Handwritten Digits" (E. Alpaydin, C. Kaynak, UCI Machine Learning Repository, 1998, CC BY 4.0), in the
copy that scikit-learn distributes (BSD-3-Clause).
`make_digits.py` made the file, `train_digits.py` trained `digits.onnx` on it.
"""
