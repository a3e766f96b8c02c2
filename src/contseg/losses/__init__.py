"""Pure functions of tensors.

Shape letters: B images, K classes, O old classes (including background), H x W pixels, C channels.
"""
