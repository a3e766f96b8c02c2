"""Pure functions of tensors.

Shape letters: B images, K classes, O old ones (background among them), H x W pixels, C channels.
"""
